"""An overlay in memory: connections between peers of one process, partitions, drops, delay.

Always: what is sent on a connection arrives in order, or the connection drops; peers of different
sides of a partition have no connection, and a dial between them hangs like one into a black hole.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from peerd.errors import PeerUnreachable
from peerd.gossip.ports import OverlayHandler
from peerd.ids import PeerId

DELAY_S = 0.01
DIAL_S = 0.25
"""What a libp2p dial takes (reference: 251 ms)."""


class MemoryNetwork:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.listening: dict[str, MemoryOverlay] = {}
        self.sides: dict[PeerId, int] = {}
        self.bytes_sent = 0

    def overlay(self, peer: PeerId, name: str) -> MemoryOverlay:
        overlay = MemoryOverlay(self, peer, name)
        self.listening[name] = overlay
        return overlay

    def split(self, *sides: Sequence[PeerId]) -> None:
        """Who is named in no side is on side 0."""
        self.sides = {peer: number for number, side in enumerate(sides) for peer in side}
        for overlay in list(self.listening.values()):
            for peer in list(overlay.links):
                if not self.same_side(overlay.peer, peer):
                    overlay.cut(peer)

    def heal(self) -> None:
        self.sides = {}

    def same_side(self, one: PeerId, other: PeerId) -> bool:
        return self.sides.get(one, 0) == self.sides.get(other, 0)


class MemoryOverlay:
    """The Overlay port of one peer. Its addresses: /memory/<name>/p2p/<peer>, and <name>."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, name: str) -> None:
        self.network = network
        self.peer = peer
        self.name = name
        self.links: dict[PeerId, MemoryOverlay] = {}
        self.outboxes: dict[PeerId, trio.MemorySendChannel[tuple[float, bytes]]] = {}
        self.handler: OverlayHandler | None = None
        self.connects: list[str] = []

    def set_handler(self, handler: OverlayHandler) -> None:
        self.handler = handler

    def addresses(self) -> Sequence[str]:
        return [f"/memory/{self.name}/p2p/{self.peer}"]

    def neighbours(self) -> Sequence[PeerId]:
        return list(self.links)

    async def connect(self, address: str) -> PeerId:
        self.connects.append(address)
        name, _, expected = address.removeprefix("/memory/").partition("/p2p/")
        await trio.sleep(DIAL_S)
        other = self.network.listening.get(name)
        if other is None or other.handler is None or expected not in ("", other.peer):
            raise PeerUnreachable(f"nobody of that name listens at {address}")
        if not self.network.same_side(self.peer, other.peer):
            await trio.sleep_forever()
        if other.peer != self.peer and self.links.get(other.peer) is not other:
            # By the id two clones are one peer: its newer connection takes the older one's place.
            self.cut(other.peer)
            other.cut(self.peer)
            self._link(other)
            other._link(self)
            other.handler.neighbour_up(self.peer)
            if self.handler is not None:
                self.handler.neighbour_up(other.peer)
        return other.peer

    def _link(self, other: MemoryOverlay) -> None:
        self.links[other.peer] = other
        self.outboxes[other.peer], inbox = trio.open_memory_channel[tuple[float, bytes]](1000)
        self.network.nursery.start_soon(self._pump, other, inbox)

    async def _pump(
        self, other: MemoryOverlay, inbox: trio.MemoryReceiveChannel[tuple[float, bytes]]
    ) -> None:
        async for at, payload in inbox:
            await trio.sleep_until(at)
            if self.links.get(other.peer) is other and other.handler is not None:
                other.handler.gossip_arrived(self.peer, payload)

    async def disconnect(self, peer: PeerId) -> None:
        await trio.sleep(2 * DELAY_S)  # What was sent before arrives.
        self.cut(peer)

    def cut(self, peer: PeerId) -> None:
        other = self.links.get(peer)
        if other is None:
            return
        for side, gone in ((self, peer), (other, self.peer)):
            side.links.pop(gone, None)
            outbox = side.outboxes.pop(gone, None)
            if outbox is not None:
                outbox.close()
            if side.handler is not None:
                side.handler.neighbour_down(gone)

    def send(self, peer: PeerId, payload: bytes) -> None:
        outbox = self.outboxes.get(peer)
        if outbox is None:
            raise PeerUnreachable(f"{peer} is no neighbour")
        assert len(payload) <= 64 * 1024
        self.network.bytes_sent += len(payload)
        try:
            outbox.send_nowait((trio.current_time() + DELAY_S, payload))
        except trio.WouldBlock:
            self.cut(peer)

    def close(self) -> None:
        """The process is gone."""
        for peer in list(self.links):
            self.cut(peer)
        self.handler = None
        if self.network.listening.get(self.name) is self:
            del self.network.listening[self.name]
