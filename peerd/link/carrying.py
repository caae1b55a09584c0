"""The shell around circuits: carries out what circuits.py orders, over the links that are up.

Always: a circuit that was closed, or whose link went down, is closed at its wire; what cannot be
sent needs no answer, for that link is ending and all its circuits with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from peerd.errors import PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.circuit_wire import CircuitWire
from peerd.link.circuits import (
    Arrived,
    Circuits,
    Closed,
    LegId,
    Offered,
    Opened,
    Order,
    Pass,
    Room,
    Say,
)
from peerd.link.link import Link
from peerd.link.own_messages import CircuitMessage
from peerd.link.wire import Wire

log = logging.getLogger(__name__)

ANSWER_MAX_S: Final = 2.0
"""For a relay and the peer behind it to say yes or no: two round trips. Guess."""


class Carrying:
    """Implements circuit_wire.Carrier. `accept` is given the circuits that others offer us."""

    def __init__(
        self,
        circuits: Circuits,
        link: Callable[[PeerId], Link | None],
        accept: Callable[[Wire], None],
    ) -> None:
        self.circuits = circuits
        self._link = link
        self._accept = accept
        self._wires: dict[LegId, CircuitWire] = {}

    # --- for the service

    def link_up(self, peer: PeerId) -> None:
        self.circuits.link_up(peer)

    def link_down(self, peer: PeerId) -> None:
        self._obey(self.circuits.link_down(peer))

    def heard(self, peer: PeerId, message: CircuitMessage) -> None:
        """RemoteProtocolError where the peer does what it may not."""
        self._obey(self.circuits.heard(peer, message))

    async def open(self, relay: PeerId, peer: PeerId) -> CircuitWire:
        """A circuit to `peer` through `relay`; PeerUnreachable says why not, soon."""
        link = self._link(relay)
        if link is None or not link.up or link.relay is not None:
            raise PeerUnreachable("there is no direct link to it now")
        asked = self.circuits.ask(relay, peer)
        if asked is None:
            raise PeerUnreachable("this peer is at the end of too many circuits")
        leg, orders = asked
        wire = self._wires[leg] = CircuitWire(leg, self)
        try:
            self._obey(orders)
            with trio.move_on_after(ANSWER_MAX_S) as late:
                await wire.until_open()
            if late.cancelled_caught:
                raise PeerUnreachable("it did not answer in time")
        except BaseException:
            self.close(leg, "given up")
            raise
        return wire

    # --- for wires

    def room_bytes(self, leg: LegId) -> int:
        return self.circuits.room_bytes(leg)

    def send(self, leg: LegId, data: bytes) -> None:
        self._obey(self.circuits.send(leg, data))

    def took(self, leg: LegId, cost: int) -> None:
        self._obey(self.circuits.took(leg, cost))

    def close(self, leg: LegId, words: str) -> None:
        self._obey(self.circuits.close(leg, words))
        self._wires.pop(leg, None)

    async def queue_room(self, relay: PeerId) -> None:
        link = self._link(relay)
        if link is not None:
            await link.circuit_room()

    # --- carrying out

    def _obey(self, orders: Sequence[Order]) -> None:
        for order in orders:
            match order:
                case Say(peer=peer, message=message):
                    self._send(peer, message, along=False)
                case Pass(peer=peer, message=message):
                    self._send(peer, message, along=True)
                case Offered(leg=leg):
                    wire = self._wires[leg] = CircuitWire(leg, self)
                    wire.opened()
                    self._accept(wire)
                case _:
                    self._tell(order)

    def _send(self, peer: PeerId, message: CircuitMessage, *, along: bool) -> None:
        link = self._link(peer)
        if link is not None:
            with suppress(PeerUnreachable):  # it is ending: link_down follows
                (link.send_along if along else link.send)(message)

    def _tell(self, order: Opened | Arrived | Room | Closed) -> None:
        wire = self._wires.get(order.leg)
        if wire is None:
            return
        match order:
            case Opened():
                wire.opened()
            case Arrived(data=data):
                wire.arrived(data)
            case Room():
                wire.room()
            case Closed(leg=leg, words=words):
                del self._wires[leg]
                wire.closed(words)


def no_chains(peer: PeerId, message: CircuitMessage) -> None:
    """`carry` of a link that is relayed itself."""
    raise RemoteProtocolError("a relayed link carries no circuits")
