"""Who is in charge of a key, as anyone finds it by hashing (highest random weight).

Always: the ranking depends on the key and the set of members alone; removing one member changes
nothing in the order of the others. Thaler & Ravishankar, «A name-based mapping scheme for
rendezvous», 1996.
"""

from __future__ import annotations

from collections.abc import Iterable

import mmh3

from peerd.ids import PeerId


def weight(peer: PeerId, key: str) -> int:
    """The 64-bit weight of a peer for a key (mmh3 ranks, it never identifies)."""
    return mmh3.hash64(f"{key}/{peer}", signed=False)[0]


def ranked(peers: Iterable[PeerId], key: str, most: int | None = None) -> list[PeerId]:
    """Peers by falling weight, ties by id; the first is in charge, the next stand by."""
    order = sorted(set(peers), key=lambda peer: (-weight(peer, key), peer))
    return order if most is None else order[:most]
