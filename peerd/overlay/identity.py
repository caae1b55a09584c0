"""Our key and peer ids as libp2p knows them.

Always: the libp2p peer id of `key_pair(key)` is `key.peer_id`; only Ed25519 peer ids pass.
"""

from __future__ import annotations

from typing import Any

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from peerd.ids import PeerId
from peerd.signing import SigningKey, public_key_of


def key_pair(key: SigningKey) -> Any:
    """libp2p's KeyPair made of our 32-byte seed."""
    pair = create_new_key_pair(key.seed)
    assert ID.from_pubkey(pair.public_key).to_base58() == key.peer_id, "peer ids differ"
    return pair


def library_id(peer: PeerId) -> Any:
    return ID.from_base58(peer)


def peer_id(library: Any) -> PeerId:
    """Ours for libp2p's; RemoteProtocolError if its key is not Ed25519 (RSA and the like)."""
    peer = PeerId(library.to_base58())
    public_key_of(peer)
    return peer
