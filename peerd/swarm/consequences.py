"""What follows from an event in a download: whom to ask for what, whom to let go.

Always: only parents for whom something may have changed are looked at; what a parent owes when it
goes is wanted again.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId, PieceIndex
from peerd.link.messages import LeaseInfo
from peerd.manifest import VersionInfo
from peerd.pieces import PIECE_COUNT_MAX
from peerd.scheduler.ports import STALLS
from peerd.swarm import events as ev
from peerd.swarm.borders import Borders
from peerd.swarm.first_copies import FirstCopies
from peerd.swarm.parents import Parent, Parents
from peerd.swarm.picker import Picker
from peerd.swarm.requests import Requests
from peerd.swarm.watchdog import Watchdog
from peerd.units import MIB

if TYPE_CHECKING:
    from random import Random

LEASES_WANTED: Final = 8
"""Leases to hold at most; the keeper decides. Eight reads keep one fast origin busy."""
LEASED_MAX_BYTES: Final = 32 * MIB
"""… together with this: pieces of leases in memory, before they are written."""
ALONE_SOME: Final = 4
ALONE_MANY: Final = 8
"""With so many pieces read here that no parent has yet, two leases are asked for, or one. In the
lab one of eight, the first to come, had read two to three times its share, and all waited for its
uplink. Guess: half of what it may have in hand for its children, and all of it."""
MATES_S: Final = 2.0
"""With few parents one of them is asked for others so often. Guess: some dials."""
ROOM = "another has few links"
KEEPER_SHARE: Final = 3
"""So many times what it read itself has to be here for a keeper to read less. Guess: else it is one
of two, or the only one that reaches the origin."""
LACKING_S: Final = 2.0
"""So long nothing is in flight though pieces are wanted, then parents are asked what they have.
Guess: many round trips, and a reader's pause."""
GROW_MAX: Final = 65_536
"""Pieces by which content of unknown length grows on one peer's word: 64 GiB. Guess."""


class Consequences:
    """The state of one download, and the steps that several events share."""

    def __init__(self, own: PeerId, rng: Random, zone: str = "") -> None:
        self.own = own
        self.parents = Parents(own, rng, zone)
        self.borders = Borders(zone)
        self._requests = Requests(self.parents, self.borders, rng)
        self.version: VersionInfo | None = None
        self.picker: Picker | None = None
        self.leases: dict[int, LeaseInfo] = {}
        self.wasted_bytes = 0
        self._rng = rng
        self._reading: dict[int, tuple[int, ...]] = {}
        self._early: list[ev.LeaseGranted] = []
        self._watchdog: Watchdog | None = None
        self._told_all_held = False
        self._room = -1
        self._reader_was_at: int | None = None
        self._own_reads = 0
        self._keeps = False
        self._first_copies = FirstCopies()
        self._lacking_since: float | None = None
        self._asks_mates_at = 0.0
        self._may_ask: dict[PeerId, None] | None = {}
        self._may_dial = True
        self._behind_until = -inf

    @property
    def _picker(self) -> Picker:
        assert self.picker is not None, "no version yet"
        return self.picker

    @property
    def comes_behind(self) -> bool:
        """Whether another download on this peer comes before this one now."""
        return self._requests.behind

    def _grow(self, count: int) -> None:
        """A peer has pieces beyond those known; it may lie, so not too many at once."""
        self._picker.grow(min(count, self._picker.count + GROW_MAX, PIECE_COUNT_MAX))

    def _hold(self, index: PieceIndex, source: str, sender: PeerId | None = None) -> list[ev.Order]:
        orders: list[ev.Order] = [ev.Announce(index, sender), *self.borders.held(index)]
        for peer in self._picker.hold(index, source):
            parent = self.parents.joined.get(peer)
            if parent is not None and parent.in_flight.pop(index, None) is not None:
                self._may_go_on(peer)
                orders.append(ev.CancelPieces(peer, (index,)))
        return orders

    @staticmethod
    def _tell_all(indices: Iterable[int]) -> list[ev.Order]:
        return [ev.Announce(PieceIndex(index)) for index in indices]

    def _condemn(self, peer: PeerId, words: str) -> list[ev.Order]:
        parent = self.parents.block(peer, words)
        self._may_dial = True
        told = [] if parent is None else self._forget(parent, words)
        return [*told, ev.Drop(peer, words)]

    def _make_room(self, zone: str, now: float) -> list[ev.Order]:
        """For one that has few, where there are links enough."""
        parent = self.parents.least_missed(zone)
        if parent is None:
            return []
        self.parents.full(parent.peer, now)
        return [*self._part_from(parent, "room for another"), ev.Drop(parent.peer, ROOM)]

    def _part_from(self, parent: Parent, why: str) -> list[ev.Order]:
        """In peace: what it owes is asked of others, and of it no more."""
        owed = tuple(parent.in_flight)
        told = self._forget(parent, why)
        return [*told, ev.CancelPieces(parent.peer, owed)] if owed else told

    def _ask_mates(self, now: float) -> list[ev.Order]:
        """With few parents and nobody left to dial: those know others."""
        parents = self.parents
        if not parents.few or not parents.joined or parents.connecting or now < self._asks_mates_at:
            return []
        self._asks_mates_at = now + MATES_S
        return [ev.AskMates(self._rng.choice(list(parents.joined)))]

    def _rob(self, parent: Parent, now: float) -> list[ev.Order]:
        taken = tuple(parent.in_flight)
        for index in taken:
            self._picker.release(index, parent.peer, "stalled")
        parent.in_flight.clear()
        self.parents.stalled(parent, now)
        return [ev.CancelPieces(parent.peer, taken), ev.Complain(parent.peer, STALLS)]

    def _read_here(self, index: PieceIndex, now: float) -> list[ev.Order]:
        """It came from the origin: all hear of it, or one child first, where the others have
        nothing for us: then they get everything through this uplink."""
        self._own_reads |= 1 << index
        orders = self._hold(index, "from the origin")
        if not self._picker.requested:
            alone = self._picker.rarity.single(self._own_reads).bit_count()
            first = self._first_copies.tell(index, alone, self.parents, self._rng, now)
            if first:
                orders[0] = ev.Announce(index, to=first)
        return orders

    def _forget(self, parent: Parent, why: str) -> list[ev.Order]:
        """What it owes is wanted again; what it alone was told of is told to all."""
        for index in tuple(parent.in_flight):
            self._picker.release(index, parent.peer, why)
        parent.in_flight.clear()
        self._picker.take_parent(parent.have.bits, parent.border)
        self._all_may_go_on()
        return self._tell_all(self._first_copies.gone(parent.peer))

    def _may_go_on(self, peer: PeerId) -> None:
        """That parent may be asked for something that it could not be asked for before."""
        if self._may_ask is not None:
            self._may_ask[peer] = None

    def _all_may_go_on(self, *, dial: bool = False) -> None:
        self._may_ask = None
        self._may_dial = self._may_dial or dial

    def _go_on(self, now: float) -> list[ev.Order]:
        """After anything: connect, ask parents and the keeper for what is open."""
        if self.picker is None or self.version is None:
            return []
        if self._all_held():
            return self._all_is_held()
        self._requests.behind = now < self._behind_until
        orders: list[ev.Order] = []
        if self._may_dial:
            self._may_dial = False
            orders += [ev.Connect(x.peer, x.addresses) for x in self.parents.to_connect(now)]
        orders += self._ask_parents(self.version.piece_length_bytes, now)
        return orders + self._ask_leases()

    def _ask_parents(self, length: int, now: float) -> list[ev.Order]:
        may_ask, self._may_ask = self._may_ask, {}
        orders: list[ev.Order] = []
        if may_ask is None or (may_ask and self._requests.capped):
            orders += self._requests.fill_all(self._picker, length, now)
        else:
            for peer in may_ask:
                parent = self.parents.joined.get(peer)
                if parent is not None:
                    orders += self._requests.fill(parent, self._picker, length, now)
        if self.borders:
            orders += self.borders.demands(self._picker.wanted, self.parents, length, now)
        return orders

    def _all_held(self) -> bool:
        known = self.version is not None and self.version.length_bytes is not None
        return known and self._picker.complete()

    def _all_is_held(self) -> list[ev.Order]:
        if self._told_all_held:
            return []
        self._told_all_held = True
        return [*self._tell_all(self._first_copies.all()), *self._ask_leases(), ev.AllHeld()]

    def _join_again(self, now: float) -> list[ev.Order]:
        """What a parent said may have been lost, or not been said because we had the piece."""
        lacks = self._picker.wanted and not self._picker.requested and not self.leases
        if not lacks or not self.parents.joined:
            self._lacking_since = None
        elif self._lacking_since is None:
            self._lacking_since = now
        elif now - self._lacking_since >= LACKING_S:
            self._lacking_since = now
            return [ev.JoinAgain()]
        return []

    def _ask_leases(self) -> list[ev.Order]:
        """Standing demand, as long as anything is not held: whoever was asked may fail."""
        room = 0 if self._all_held() else self._lease_room()
        reader_at = self._lacked_first() if room and self._picker.urgent else None
        if (room, reader_at) == (self._room, self._reader_was_at):
            return []
        self._room, self._reader_was_at = room, reader_at
        return [ev.AskLeases(room, reader_at)]

    def _lacked_first(self) -> int | None:
        """The first piece that a reader waits for, and that nobody is asked for or could be; of
        several readers the one that moved least lately."""
        lacked = self._picker.wanted.bits
        for parent in self.parents:
            lacked &= ~parent.have.bits
        for bits in self._picker.urgent.values():
            if bits & lacked:
                return (bits & lacked & -(bits & lacked)).bit_length() - 1
        return None

    def _lease_room(self) -> int:
        """Fewer where pieces are large, for each read holds some of them in memory; and where what
        was read here does not get on to others, who could read themselves. The task's own keeper
        reads one at a time, the next once others have it: roster and pieces are not to be lost
        together. Only where others read most of it; and one in any case while they send nothing."""
        assert self.version is not None
        room = max(2, min(LEASES_WANTED, LEASED_MAX_BYTES // self.version.piece_length_bytes))
        alone = self._picker.rarity.single(self._own_reads).bit_count()
        others_read = KEEPER_SHARE * self._own_reads.bit_count() < len(self._picker.held)
        if self._keeps and others_read and len(self.parents.joined) > 1:
            return 0 if alone and self._picker.requested else 1
        if self._requests.behind:
            return 1
        if alone < ALONE_SOME or all(parent.have.complete() for parent in self.parents):
            return room
        return 1 if alone >= ALONE_MANY else min(2, room)

    def _open_ended(self) -> bool:
        return self.version is not None and self.version.length_bytes is None

    def asked_again(self, keeper: PeerId) -> list[ev.Order]:
        """That keeper was found: it has to be told what we want."""
        self._keeps = keeper == self.own
        self._room = -1
        return self._ask_leases() if self.picker is not None and not self._all_held() else []

    def _ask_no_more(self, index: int) -> list[ev.Order]:
        """It is leased to us now: whoever was asked for it need not send it."""
        return self._unask(index, tuple(self._picker.requested.get(index, ())), "leased meanwhile")

    def _unask(self, index: int, peers: Iterable[PeerId], why: str) -> list[ev.Order]:
        orders: list[ev.Order] = []
        for peer in peers:
            parent = self.parents.joined.get(peer)
            if parent is not None:
                parent.in_flight.pop(index, None)
            self._picker.release(index, peer, why)
            self._may_go_on(peer)
            orders.append(ev.CancelPieces(peer, (index,)))
        return orders

    def _not_over(self, scope: str, index: int) -> list[ev.Order]:
        """Nobody beyond that border is to send the piece any more."""
        peers = self._picker.requested.get(index, ())
        joined = self.parents.joined
        return self._unask(index, [x for x in peers if joined[x].border == scope], "not to bring")
