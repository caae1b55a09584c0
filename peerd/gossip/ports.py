"""What gossip needs from the overlay, and what it tells it. Twin: tests/gossip, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from peerd.ids import PeerId

GOSSIP_MESSAGE_MAX_BYTES = 64 * 1024


class OverlayHandler(Protocol):
    """Whom the overlay tells. Called on the event loop; must not block."""

    def neighbour_up(self, peer: PeerId) -> None: ...
    def neighbour_down(self, peer: PeerId) -> None: ...
    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None: ...


class Overlay(Protocol):
    """Connections to some of the other peers, and messages on them (≤ 64 KiB, in order)."""

    def set_handler(self, handler: OverlayHandler) -> None: ...

    def addresses(self) -> Sequence[str]:
        """Multiaddrs, with peer id, that others can dial."""
        ...

    async def connect(self, address: str) -> PeerId:
        """Dial a multiaddr (with or without /p2p/…) or "host:port"; names are resolved now.

        Returns who answered. PeerUnreachable, AdmissionRefused, or RemoteProtocolError (another
        wire version or cluster, in words).
        """
        ...

    async def disconnect(self, peer: PeerId) -> None: ...

    def neighbours(self) -> Sequence[PeerId]: ...

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queues it on the long-lived gossip stream; drops the neighbour if its queue is full."""
        ...
