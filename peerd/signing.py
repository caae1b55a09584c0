"""Ed25519 keys, the peer ids they give, and signatures bound to a purpose.

Always: a PeerId of ours carries its public key (libp2p's identity multihash), so that a signature
is checked with the id alone; every signature covers its purpose, so that none passes for another.
"""

from __future__ import annotations

from functools import lru_cache

import base58
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId

_ID_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash (0x00) of 36 bytes (0x24): protobuf PublicKey {1: Ed25519 (1), 2: 32 bytes}.
libp2p specs, peer-ids.md, «Keys»."""


class SigningKey:
    """A peer's private key. `seed` is the 32 bytes kept on disk, nothing else leaves it."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.peer_id = peer_id_of(
            self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        )

    def sign(self, purpose: str, payload: bytes) -> bytes:
        """64 bytes over purpose and payload."""
        return self._key.sign(_covered(purpose, payload))


def peer_id_of(public_key: bytes) -> PeerId:
    """The peer id that carries these 32 public bytes."""
    return PeerId(base58.b58encode(_ID_PREFIX + public_key).decode())


@lru_cache(maxsize=4096)
def public_key_of(peer: PeerId) -> Ed25519PublicKey:
    """The key in a peer id; RemoteProtocolError if it carries none."""
    try:
        raw = base58.b58decode(peer)
    except ValueError as error:
        raise RemoteProtocolError(f"{peer!r} is no peer id") from error
    if len(raw) != len(_ID_PREFIX) + 32 or not raw.startswith(_ID_PREFIX):
        raise RemoteProtocolError(f"{peer!r} carries no Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw[len(_ID_PREFIX) :])


def verify(peer: PeerId, purpose: str, payload: bytes, signature: bytes) -> bool:
    """Whether `peer` signed `payload` for `purpose`."""
    try:
        public_key_of(peer).verify(signature, _covered(purpose, payload))
    except InvalidSignature:
        return False
    return True


def _covered(purpose: str, payload: bytes) -> bytes:
    return b"peerd/1/" + purpose.encode() + b"\0" + payload
