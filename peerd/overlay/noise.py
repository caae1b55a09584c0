"""The Noise handshake on a TCP connection of ours, for links (peerd.link.ports.Prover).

Always: before the peer is proven at most HANDSHAKE_MAX_BYTES are read; the socket is never read
beyond the message that was asked for, so that the link can take it over at any point.
"""

from __future__ import annotations

from typing import Any

import trio

from peerd.ids import PeerId
from peerd.overlay.secure import Noise, handshake_hash, remote_errors
from peerd.overlay.transport import BoundedStream
from peerd.signing import SigningKey

HANDSHAKE_MAX_BYTES = 4096
"""design.md, section 5. A handshake of ours takes 2 + 202 + 170 bytes."""
PAYLOAD_MAX_BYTES = 1024
_OVERHEAD_BYTES = 2 + 16
"""Length and authentication tag of a Noise transport message."""
PROLOGUE = b"peerd-link/1"
"""So that a handshake on a link can not be relayed from, or to, a handshake on the overlay."""


class LinkStream:
    """A proven connection: small payloads in the Noise session, in order."""

    def __init__(self, peer: PeerId, session: Any, stream: BoundedStream) -> None:
        self.peer = peer
        self.handshake_hash = handshake_hash(session)
        self._messages = session.conn
        self._stream = stream

    async def send(self, payload: bytes) -> None:
        if len(payload) > PAYLOAD_MAX_BYTES:
            raise ValueError(f"at most {PAYLOAD_MAX_BYTES} bytes go through the handshake")
        with remote_errors("the connection closed"):
            await self._messages.write_msg(payload)

    async def receive(self) -> bytes:
        """The next payload; RemoteProtocolError if it is too long or not authentic."""
        self._stream.trust(PAYLOAD_MAX_BYTES + _OVERHEAD_BYTES)
        with remote_errors("no payload came"):
            return bytes(await self._messages.read_msg())


class NoiseProver:
    """Both sides of the handshake. Time limits and the number at once are the caller's."""

    def __init__(self, key: SigningKey) -> None:
        self._noise = Noise(key)

    async def prove_outbound(self, stream: trio.abc.Stream, expected: PeerId) -> LinkStream:
        """RemoteProtocolError if the other is not `expected`, or does not speak Noise."""
        return await self._prove(stream, outbound=True, expected=expected)

    async def prove_inbound(self, stream: trio.abc.Stream) -> LinkStream:
        """RemoteProtocolError if the other does not speak Noise."""
        return await self._prove(stream, outbound=False, expected=None)

    async def _prove(
        self, stream: trio.abc.Stream, *, outbound: bool, expected: PeerId | None
    ) -> LinkStream:
        bounded = BoundedStream(stream, HANDSHAKE_MAX_BYTES)
        peer, session = await self._noise.handshake(
            bounded, outbound=outbound, expected=expected, prologue=PROLOGUE
        )
        return LinkStream(peer, session, bounded)
