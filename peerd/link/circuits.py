"""Circuits: byte streams through a third peer's two links, as its ends and that relay count them.

Always: a circuit runs over direct links only; what is on its way in one direction is at most
WINDOW_BYTES, so that a relay holds no more of it; a relay has at most `relayed_max` circuits, of
which one peer asked for `asked_max`, and each counts until both its links have read the last of it;
whoever breaks this is RemoteProtocolError, which costs it its link. Pure. docs/adr/0012.

A *leg* is a circuit's stretch over one link. An end has one leg; a relay has two, each the other's
`beyond`. Whoever opens a leg numbers it: the smaller peer id even, the larger odd.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from msgspec import Struct

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.own_messages import (
    CREDIT_MIN_BYTES,
    WINDOW_BYTES,
    CircuitClose,
    CircuitCredit,
    CircuitData,
    CircuitMessage,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
)
from peerd.units import KIB

MESSAGE_MIN_COST_BYTES = KIB
"""What the smallest data message takes of the window, so that a window is few messages as well."""


class CircuitLimits(Struct, frozen=True):
    relayed_max: int = 64  # Guess: if all stall both ways, 128 MiB wait here
    asked_max: int = 8  # Guess: by one peer, so that none takes all places
    ends_max: int = 64  # Guess: circuits that end here; 64 MiB if nobody reads them
    offered_max: int = 32  # Guess: of those, what one relay may offer


class LegId(NamedTuple):
    """The link that carries it, and its number there."""

    peer: PeerId
    number: int


# --- what the shell should do


class Say(Struct, frozen=True):
    """Send it to `peer` like any control message."""

    peer: PeerId
    message: CircuitMessage


class Pass(Struct, frozen=True):
    """Send it to `peer` behind the circuit bytes that wait for it."""

    peer: PeerId
    message: CircuitData | CircuitClose


class Offered(Struct, frozen=True):
    """Somebody wants to speak with us: treat it like a connection that was accepted."""

    leg: LegId


class Opened(Struct, frozen=True):
    """The circuit that we asked for stands."""

    leg: LegId


class Arrived(Struct, frozen=True):
    """Bytes for us; none: the other end says no more. `took` them when they are read."""

    leg: LegId
    data: bytes


class Room(Struct, frozen=True):
    """We may send again."""

    leg: LegId


class Closed(Struct, frozen=True):
    """It is over; what arrived before may still be read."""

    leg: LegId
    words: str


Order = Say | Pass | Offered | Opened | Arrived | Room | Closed


class _Circuit(Struct):
    """One that is relayed here."""

    asker: PeerId
    legs: int = 2


class _Leg(Struct):
    id: LegId
    ours: bool  # we opened it: the answer is the other's
    opened: bool = False
    said_close: bool = False
    incoming: int = 0  # came on it, and was not credited yet
    outgoing: int = 0  # went on it, and was not credited yet
    taken: int = 0  # of incoming: read by the end, and not credited yet
    beyond: _Leg | None = None
    circuit: _Circuit | None = None


def cost_bytes(data: bytes | memoryview) -> int:
    """What a data message takes of the window."""
    return max(len(data), MESSAGE_MIN_COST_BYTES)


class Circuits:
    """All circuits that run through this peer or end at it."""

    def __init__(self, own: PeerId, limits: CircuitLimits | None = None) -> None:
        self._own = own
        self._limits = limits or CircuitLimits()
        self._numbers: dict[PeerId, int] = {}
        self._legs: dict[LegId, _Leg] = {}
        self._asked: Counter[PeerId] = Counter()

    @property
    def relayed(self) -> int:
        return self._asked.total()

    @property
    def ends(self) -> int:
        return sum(1 for leg in self._legs.values() if leg.circuit is None)

    # --- the links that carry circuits: direct ones

    def link_up(self, peer: PeerId) -> None:
        self._numbers[peer] = 0 if self._own < peer else 1

    def link_down(self, peer: PeerId) -> list[Order]:
        """Also for peers without a direct link, where it does nothing."""
        self._numbers.pop(peer, None)
        orders: list[Order] = []
        for leg in [leg for leg in self._legs.values() if leg.id.peer == peer]:
            orders += self._end(leg, f"the link between {self._own} and {peer} ended")
        return orders

    # --- ends

    def ask(self, relay: PeerId, peer: PeerId) -> tuple[LegId, list[Order]] | None:
        """A circuit to `peer` through `relay`, to which we have a direct link; None: no room."""
        if self.ends >= self._limits.ends_max:
            return None
        leg = self._leg(self._next(relay), ours=True)
        return leg.id, [Say(relay, CircuitOpen(leg.id.number, peer))]

    def room_bytes(self, leg_id: LegId) -> int:
        """What an end may send now, at the cost of each message."""
        leg = self._legs.get(leg_id)
        if leg is None or not leg.opened or leg.said_close:
            return 0
        return WINDOW_BYTES - leg.outgoing

    def send(self, leg_id: LegId, data: bytes) -> list[Order]:
        cost = cost_bytes(data)
        assert cost <= self.room_bytes(leg_id)
        self._legs[leg_id].outgoing += cost
        return [Pass(leg_id.peer, CircuitData(leg_id.number, data))]

    def took(self, leg_id: LegId, cost: int) -> list[Order]:
        """An end has read a message of that cost."""
        leg = self._legs.get(leg_id)
        if leg is None or leg.said_close:
            return []
        leg.taken += cost
        assert leg.taken <= leg.incoming
        if leg.taken < CREDIT_MIN_BYTES:
            return []
        credit = CircuitCredit(leg_id.number, leg.taken)
        leg.incoming -= leg.taken
        leg.taken = 0
        return [Say(leg_id.peer, credit)]

    def close(self, leg_id: LegId, words: str) -> list[Order]:
        """What was sent before is still delivered."""
        leg = self._legs.get(leg_id)
        return self._say_close(leg, words) if leg is not None else []

    # --- what a direct link brings

    def heard(self, peer: PeerId, message: CircuitMessage) -> list[Order]:
        """RemoteProtocolError where the peer does what it may not."""
        if peer not in self._numbers:
            raise RemoteProtocolError("a circuit on a link that is none, or is relayed itself")
        leg_id = LegId(peer, message.circuit)
        match message:
            case CircuitOpen(peer=far):
                self._check_new(leg_id)
                return self._asked_for(leg_id, far)
            case CircuitOffer():
                self._check_new(leg_id)
                return self._offered(leg_id)
            case CircuitClose(words=words):
                closed = self._legs.get(leg_id)
                # Unknown: it crossed our refusal, which is not answered.
                return self._heard_close(closed, words) if closed is not None else []
        leg = self._legs.get(leg_id)
        if leg is None:
            raise RemoteProtocolError(f"circuit {leg_id.number} is not open")
        match message:
            case CircuitOpened():
                return self._heard_opened(leg)
            case CircuitData(data=data):
                return self._heard_data(leg, data)
            case CircuitCredit(size_bytes=size_bytes):
                return self._heard_credit(leg, size_bytes)

    def _check_new(self, leg_id: LegId) -> None:
        if leg_id.number % 2 != (leg_id.peer > self._own) or leg_id in self._legs:
            raise RemoteProtocolError(f"circuit {leg_id.number} is not one to open")

    def _asked_for(self, leg_id: LegId, far: PeerId) -> list[Order]:
        asker, limits = leg_id.peer, self._limits
        why = ""
        if far not in self._numbers or far == asker:
            why = "it has no direct link to that peer"
        elif self.relayed >= limits.relayed_max:
            why = f"it relays {limits.relayed_max} circuits already"
        elif self._asked[asker] >= limits.asked_max:
            why = f"it relays {limits.asked_max} circuits for this peer already"
        if why:
            return [Say(asker, CircuitClose(leg_id.number, why))]
        self._asked[asker] += 1
        near, beyond = self._leg(leg_id, ours=False), self._leg(self._next(far), ours=True)
        near.beyond, beyond.beyond = beyond, near
        near.circuit = beyond.circuit = _Circuit(asker)
        return [Say(far, CircuitOffer(beyond.id.number, asker))]

    def _offered(self, leg_id: LegId) -> list[Order]:
        relay, limits = leg_id.peer, self._limits
        offered = sum(
            1
            for leg in self._legs.values()
            if leg.circuit is None and not leg.ours and leg.id.peer == relay
        )
        if self.ends >= limits.ends_max or offered >= limits.offered_max:
            return [Say(relay, CircuitClose(leg_id.number, "the peer has no room for it"))]
        self._leg(leg_id, ours=False).opened = True
        return [Say(relay, CircuitOpened(leg_id.number)), Offered(leg_id)]

    def _heard_opened(self, leg: _Leg) -> list[Order]:
        if not leg.ours or leg.opened:
            raise RemoteProtocolError(f"circuit {leg.id.number} was open, or is not its to open")
        leg.opened = True
        if leg.said_close:
            return []
        if leg.beyond is None:
            return [Opened(leg.id)]
        leg.beyond.opened = True
        return [Say(leg.beyond.id.peer, CircuitOpened(leg.beyond.id.number))]

    def _heard_data(self, leg: _Leg, data: bytes) -> list[Order]:
        cost = cost_bytes(data)
        if not leg.opened or leg.incoming + cost > WINDOW_BYTES:
            raise RemoteProtocolError(f"circuit {leg.id.number}: more bytes than were allowed")
        leg.incoming += cost
        if leg.said_close:
            return []
        if leg.beyond is None:
            return [Arrived(leg.id, data)]
        leg.beyond.outgoing += cost
        return [Pass(leg.beyond.id.peer, CircuitData(leg.beyond.id.number, data))]

    def _heard_credit(self, leg: _Leg, size_bytes: int) -> list[Order]:
        if size_bytes > leg.outgoing:
            raise RemoteProtocolError(f"circuit {leg.id.number}: credit for what was not sent")
        leg.outgoing -= size_bytes
        if leg.said_close:
            return []
        if leg.beyond is None:
            return [Room(leg.id)]
        leg.beyond.incoming -= size_bytes
        return [Say(leg.beyond.id.peer, CircuitCredit(leg.beyond.id.number, size_bytes))]

    def _heard_close(self, leg: _Leg, words: str) -> list[Order]:
        answer = self._say_close(leg, "closed")
        return answer + self._end(leg, words)

    # --- how legs come and go

    def _next(self, peer: PeerId) -> LegId:
        """Numbers count up; in the two thousand million that there are, none comes again."""
        number = self._numbers[peer]
        self._numbers[peer] = number + 2
        return LegId(peer, number)

    def _leg(self, leg_id: LegId, *, ours: bool) -> _Leg:
        leg = self._legs[leg_id] = _Leg(leg_id, ours)
        return leg

    def _say_close(self, leg: _Leg, words: str) -> list[Order]:
        if leg.said_close:
            return []
        leg.said_close = True
        return [Pass(leg.id.peer, CircuitClose(leg.id.number, words[:512]))]

    def _end(self, leg: _Leg, words: str) -> list[Order]:
        """Nothing more will be heard on it."""
        del self._legs[leg.id]
        leg.said_close = True
        if leg.circuit is None:
            return [Closed(leg.id, words)]
        leg.circuit.legs -= 1
        if not leg.circuit.legs:
            self._asked[leg.circuit.asker] -= 1
            self._asked += Counter()  # drops the zeros
        beyond, leg.beyond = leg.beyond, None
        if beyond is None:
            return []
        beyond.beyond = None
        return self._say_close(beyond, words)

    def validate(self) -> None:
        limits = self._limits
        assert self.relayed <= limits.relayed_max
        assert all(0 < count <= limits.asked_max for count in self._asked.values())
        assert self.ends <= limits.ends_max
        for leg in self._legs.values():
            assert leg.id.peer in self._numbers
            assert 0 <= leg.taken <= leg.incoming <= WINDOW_BYTES
            assert 0 <= leg.outgoing <= WINDOW_BYTES
            beyond = leg.beyond
            if beyond is not None:
                assert beyond.beyond is leg
                assert leg.circuit is beyond.circuit
                if not leg.said_close and not beyond.said_close:
                    assert leg.outgoing == beyond.incoming
                    assert leg.opened == beyond.opened
