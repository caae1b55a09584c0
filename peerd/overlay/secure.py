"""From a TCP connection to a proven peer: libp2p's own Noise XX handshake.

Always: what comes back is proven by a signature over the Noise static key; a handshake that fails,
whatever the bytes were, is RemoteProtocolError; not one byte after it has been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from libp2p.crypto.x25519 import create_new_key_pair as create_static_key_pair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.patterns import PatternXX

from peerd.errors import PeerdError, RemoteProtocolError
from peerd.ids import PeerId
from peerd.overlay.identity import key_pair, library_id, peer_id
from peerd.overlay.transport import BoundedStream
from peerd.signing import SigningKey


class Noise:
    """The handshake with our identity. One Noise static key serves the life of the process."""

    def __init__(self, key: SigningKey) -> None:
        self.key_pair = key_pair(key)
        self._local = ID.from_pubkey(self.key_pair.public_key)
        self._static = create_static_key_pair().private_key

    async def handshake(
        self,
        stream: BoundedStream,
        *,
        outbound: bool,
        expected: PeerId | None = None,
        prologue: bytes | None = None,
    ) -> tuple[PeerId, Any]:
        """Who is at the other end, and libp2p's secure session with it.

        `expected` None: whoever it is. Both sides must mean the same `prologue`: it keeps one use
        of the handshake from being passed off as another.
        """
        pattern = PatternXX(
            self._local, self.key_pair.private_key, self._static, None, prologue=prologue
        )
        raw = RawConnection(stream, outbound)
        with remote_errors("the Noise handshake failed"):
            try:
                if outbound:
                    wanted = None if expected is None else library_id(expected)
                    session = await pattern.handshake_outbound(raw, wanted)
                else:
                    session = await pattern.handshake_inbound(raw)
            except PeerIDMismatchesPubkey as error:
                raise RemoteProtocolError(f"the peer that answered is not {expected}") from error
            return peer_id(session.remote_peer), session


def handshake_hash(session: Any) -> bytes:
    """The 32 bytes that both ends of this one handshake share, and nobody else's.

    libp2p hides them: they are dug out of the noise state that its reader and writer share.
    """
    digest = bytes(session.conn.noise_state.get_handshake_hash())
    assert len(digest) == 32, "Noise_XX_25519_ChaChaPoly_SHA256 gives 32 bytes"
    return digest


@contextmanager
def remote_errors(what: str) -> Iterator[None]:
    """Everything that a stranger's bytes make the library raise becomes RemoteProtocolError.

    libp2p, noiseprotocol, protobuf, nacl and multiaddr have no common base class, and bytes of
    their choice reach assertions and KeyErrors: to us it means one thing. Ours pass as they are.
    """
    try:
        yield
    except PeerdError:
        raise
    except Exception as error:
        words = str(error) or type(error).__name__
        raise RemoteProtocolError(f"{what}: {words[:200]}") from error
