"""Sending held pieces to children, as swarm/serving.py does, by the same turns.

Always: a piece in hand is a flow through the uplink of its own; one that is cancelled is broken
off.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link import messages as msg
from peerd.manifest import Attestation
from peerd.swarm.turns import Item, Turns
from tools.sim.clock import Timer

if TYPE_CHECKING:
    from tools.sim.network import Link
    from tools.sim.peer import SimPeer


class Sending:
    """A piece in hand for one child."""

    __slots__ = ("begun_at", "flow_end", "flowing", "item", "link", "made", "peer", "serving")

    def __init__(self, serving: Serving, peer: PeerId, link: Link, item: Item) -> None:
        self.serving, self.peer, self.link, self.item = serving, peer, link, item
        self.made = serving.made(item)
        self.flow_end = self.begun_at = 0.0
        self.flowing = False

    def block_sent(self) -> int:
        self.serving.sent(self)
        return 0


class Serving:
    """All children of one peer."""

    def __init__(self, peer: SimPeer) -> None:
        self._peer = peer
        self._turns = Turns(self._read_here)
        self._sending: dict[PeerId, dict[Item, Sending]] = {}
        self.asked_at: dict[VersionId, float] = {}
        self._timer = Timer(peer.world.clock, peer.guarded(self._go_on))

    def made(self, item: Item) -> Attestation:
        """As it is when the piece is taken in hand: it may be dropped before it is sent."""
        return self._peer.copy_of(item[0]).store.made[item[1]]

    def requested(self, peer: PeerId, message: msg.Request) -> None:
        link = self._peer.links.get(peer)
        if link is None or not link.up:
            return
        version = message.version
        self.asked_at[version] = self._peer.world.clock.now
        refused = self._turns.asked(
            peer, [(version, index) for index in message.indices], message.lacking
        )
        if refused:
            self._reject(peer, version, tuple(PieceIndex(index) for _, index in refused))
        self._go_on()

    def cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        unwanted = {(message.version, index) for index in message.indices}
        for item in self._turns.cancelled(peer, unwanted):
            self._stop(peer, item)
        self._go_on()

    def peer_gone(self, peer: PeerId) -> None:
        for item in list(self._sending.get(peer, ())):
            self._stop(peer, item)
        self._turns.gone(peer)
        self._go_on()

    @property
    def children(self) -> int:
        """Peers that wait for pieces, or are sent some, now."""
        return len(self._turns.children)

    def busy_s(self, now: float) -> float:
        return self._turns.busy_s(now)

    def order(self, places: dict[VersionId, int], until: float) -> None:
        self._turns.order(places, until)

    def feed_first(self, version: VersionId, children: Iterable[PeerId], until: float) -> None:
        self._turns.feed_first(version, children, until)

    def sends_to(self, peer: PeerId) -> bool:
        """Whether anything is in hand for it."""
        return bool(self._sending.get(peer))

    def stop(self) -> None:
        for peer, items in self._sending.items():
            for item in list(items):
                self._stop(peer, item)
        self._timer.set(inf)

    def sent(self, sending: Sending) -> None:
        """The piece has left: it is on its way."""
        peer, (version, index) = self._peer, sending.item
        del self._sending[sending.peer][sending.item]
        size_bytes = peer.copy_of(version).store.size_of(index)
        other = sending.link.other(peer)
        peer.world.network.carry(
            sending.link, peer, size_bytes, sending.begun_at, other.piece_arrived, peer,
            sending.item, size_bytes, sending.made, peer.lies,
        )  # fmt: skip
        self._turns.sent(sending.peer, sending.item, peer.world.clock.now, whole=True)
        # Not from within the uplink's own step.
        peer.world.clock.after(0.0, peer.guarded(self._go_on))

    def _stop(self, peer: PeerId, item: Item) -> None:
        sending = self._sending.get(peer, {}).pop(item, None)
        if sending is not None:
            self._peer.up.stop(sending)
            self._turns.sent(peer, item, self._peer.world.clock.now, whole=False)

    def _go_on(self) -> None:
        peer = self._peer
        now = peer.world.clock.now
        self._turns.went(peer.up.carried_bytes(), now)
        while (turn := self._turns.next(now)) is not None:
            child, item = turn
            version, index = item
            link, store = peer.links.get(child), peer.copy_of(version).store
            if link is None or not link.up:
                self._turns.gone(child)
            elif store.version is None or index not in store:
                self._turns.sent(child, item, now, whole=False)
                self._reject(child, version, (PieceIndex(index),))
            else:
                sending = Sending(self, child, link, item)
                self._sending.setdefault(child, {})[item] = sending
                peer.up.start(sending, store.size_of(index))
        self._timer.set(self._turns.deadline(now))

    def _read_here(self, item: Item) -> bool:
        store, index = self._peer.copy_of(item[0]).store, item[1]
        return index in store and store.made[index].attester == self._peer.own

    def _reject(self, peer: PeerId, version: VersionId, indices: tuple[PieceIndex, ...]) -> None:
        self._peer.world.network.send(self._peer, peer, msg.Reject(version, indices))
