"""What links need from their neighbours, and what they call back.

Twins: tests/link has in-memory ones of each. `daemon.py` joins the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link.messages import Message
from peerd.manifest import Attestation


class ProvenStream(Protocol):
    """A connection after the Noise handshake: the peer at its end is proven."""

    peer: PeerId
    handshake_hash: bytes

    async def send(self, payload: bytes) -> None: ...
    async def receive(self) -> bytes: ...


class Prover(Protocol):
    """libp2p's own Noise handshake on a connection of ours (overlay/noise).

    The stream is a plain trio stream that counts what it lets in before the peer is proven; it must
    not be read beyond the handshake and the messages that `receive` was asked for.
    """

    async def prove_outbound(self, stream: trio.abc.Stream, expected: PeerId) -> ProvenStream:
        """RemoteProtocolError if the other is not `expected`, or does not speak Noise."""
        ...

    async def prove_inbound(self, stream: trio.abc.Stream) -> ProvenStream:
        """RemoteProtocolError if the other does not speak Noise."""
        ...


class AddressBook(Protocol):
    """Where peers can be reached: host:port texts for links, best first."""

    def link_addresses(self, peer: PeerId) -> Sequence[str]: ...


class Admission(Protocol):
    """May this peer take part, and as what? Asked in one place (cluster/admission)."""

    def admit(self, peer: PeerId) -> None:
        """AdmissionRefused says why not."""
        ...


class PieceSource(Protocol):
    """Reads one held piece; called in worker threads."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fills the whole buffer from `offset_bytes` of the piece; OSError if it cannot."""
        ...


class LinkHandler(Protocol):
    """Whom links tell. The first three run on the event loop and must not block."""

    def link_up(self, peer: PeerId) -> None: ...
    def link_down(self, peer: PeerId) -> None: ...
    def message_arrived(self, peer: PeerId, message: Message) -> None: ...

    def chunk_arrived(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        offset_bytes: int,
        attestation: Attestation | None,
        data: memoryview,
    ) -> object | None:
        """In wire order for one link: part of a piece of `size_bytes`.

        In a worker thread where the part ends its piece, else perhaps on the event loop: it may
        block only then. `attestation` comes with the first part. `data` stays valid until its owner
        drops it: the link does not use that buffer again while a view of it lives. What is
        returned, if not None, is then given to `chunk_done` on the event loop. RemoteProtocolError
        closes the link.
        """
        ...

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        """Must return soon: the link reads on only afterwards (this is the back pressure)."""
        ...
