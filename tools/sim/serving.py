"""Sending held pieces to children, as swarm/serving.py and a link's outgoing queue do.

Always: a child has one flow through the uplink, its pieces go one after the other; at most
SENDS_AT_ONCE of them are with the link already, which a Cancel does not reach.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link import messages as msg
from peerd.swarm.serving import REQUESTS_MAX, SENDS_AT_ONCE

if TYPE_CHECKING:
    from tools.sim.network import Link
    from tools.sim.peer import SimPeer


class Child:
    """One peer that asked for pieces over one link."""

    __slots__ = ("flow_end", "flowing", "link", "peer", "sending", "serving", "waiting")

    def __init__(self, serving: Serving, peer: PeerId, link: Link) -> None:
        self.serving, self.peer, self.link = serving, peer, link
        self.waiting: deque[tuple[VersionId, int]] = deque()
        self.sending: deque[int] = deque()
        self.flow_end = 0.0
        self.flowing = False

    def block_sent(self) -> int:
        return self.serving.sent(self)


class Serving:
    """All children of one peer."""

    def __init__(self, peer: SimPeer) -> None:
        self._peer = peer
        self.children: dict[PeerId, Child] = {}

    def requested(self, peer: PeerId, message: msg.Request) -> None:
        link = self._peer.links.get(peer)
        if link is None or not link.up:
            return
        child = self.children.get(peer)
        if child is None:
            child = self.children[peer] = Child(self, peer, link)
        room = REQUESTS_MAX - len(child.waiting)
        version = message.version
        child.waiting.extend([(version, index) for index in message.indices[:room]])
        if len(message.indices) > room:
            self._reject(peer, version, message.indices[room:])
        self._fill(child)
        if not child.flowing and child.sending:
            self._peer.up.start(child, self._peer.store.size_of(child.sending[0]))

    def cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        child = self.children.get(peer)
        if child is not None and child.waiting:
            unwanted = {(message.version, index) for index in message.indices}
            child.waiting = deque(item for item in child.waiting if item not in unwanted)

    def peer_gone(self, peer: PeerId) -> None:
        child = self.children.pop(peer, None)
        if child is not None:
            child.waiting.clear()
            child.sending.clear()
            self._peer.up.stop(child)

    def stop(self) -> None:
        for peer in list(self.children):
            self.peer_gone(peer)

    def sent(self, child: Child) -> int:
        """The first piece has left: on its way with it, and the next one."""
        peer, index = self._peer, child.sending.popleft()
        size_bytes = peer.store.size_of(index)
        other = child.link.other(peer)
        peer.world.network.carry(
            child.link, peer, size_bytes, other.piece_arrived, peer, index, size_bytes,
            peer.store.made[index], peer.lies,
        )  # fmt: skip
        if child.waiting:
            self._fill(child)
        return peer.store.size_of(child.sending[0]) if child.sending else 0

    def _fill(self, child: Child) -> None:
        store = self._peer.store
        while child.waiting and len(child.sending) < SENDS_AT_ONCE:
            version, index = child.waiting.popleft()
            if store.version is not None and store.version.version == version and index in store:
                child.sending.append(index)
            else:
                self._reject(child.peer, version, (PieceIndex(index),))

    def _reject(self, peer: PeerId, version: VersionId, indices: tuple[int, ...]) -> None:
        self._peer.world.network.send(self._peer, peer, msg.Reject(version, indices))
