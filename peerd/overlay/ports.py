"""What the overlay needs from its neighbours and whom it tells. Twins: tests/overlay.

`Handler` is peerd.gossip.ports.OverlayHandler, said again because imports go only downward; a test
holds the two together.
"""

from __future__ import annotations

from typing import Protocol

from peerd.ids import PeerId


class Handler(Protocol):
    """Called on the event loop; must not block. up and down of a peer come in pairs."""

    def neighbour_up(self, peer: PeerId) -> None: ...
    def neighbour_down(self, peer: PeerId) -> None: ...
    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None: ...


class Admission(Protocol):
    """May this peer take part? Asked before anything of ours is told to it."""

    def admit(self, peer: PeerId) -> None:
        """AdmissionRefused says why not."""
        ...
