"""The newest term that a peer knows of the scheduler: what is older is not followed any more.

Always: the newest term only grows, and by signed words of eligible members alone; none is believed
that lies both far above the newest and above one for each second since EPOCH_S. So terms do not run
out, however many a liar signs, and whoever hears of one that another believes can believe it, too.
docs/adr/0018.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from functools import lru_cache
from typing import Final

from peerd.ids import PeerId
from peerd.link.scheduler_messages import TermProof
from peerd.rendezvous import weight
from peerd.signing import SigningKey, verify

SEAT: Final = "scheduler"
"""What is hashed for the order of those who may lead."""
EPOCH_S: Final = 1_767_225_600.0
"""2026-01-01, before the first leader. A term takes a second at least (ElectingConfig.renew_s)."""
TERM_JUMP_MAX: Final = 1_000
"""Where a clock is behind: design.md, section 6."""
_PURPOSE: Final = "term"


class Age(Enum):
    """What a term is to one who knows a newest."""

    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    FOREIGN = "foreign"  # not of an eligible member, not signed by it, or too far ahead


class Fence:
    """`wall_s`: seconds since 1970 when `now` is 0; what the wall clock says later is not asked.

    `genuine`: whether a proof's signature is right (`is_genuine`, but for tests).
    """

    def __init__(self, wall_s: float, genuine: Callable[[TermProof], bool] | None = None) -> None:
        self.newest: TermProof | None = None
        self.eligible: Collection[PeerId] = ()
        self._seconds_s = wall_s - EPOCH_S
        self._genuine = genuine or is_genuine

    @property
    def term(self) -> int:
        """0 where none is known."""
        return self.newest.term if self.newest is not None else 0

    def age(self, proof: TermProof, now: float) -> Age:
        if proof == self.newest:
            return Age.SAME
        if proof.leader not in self.eligible:
            return Age.FOREIGN
        if self.newest is not None and order(proof) < order(self.newest):
            return Age.OLDER
        if proof.term > max(self.term + TERM_JUMP_MAX, now + self._seconds_s):
            return Age.FOREIGN
        return Age.NEWER if self._genuine(proof) else Age.FOREIGN

    def take(self, proof: TermProof) -> None:
        """It is the newest from now on, or still is."""
        self.newest = proof

    def next_term(self) -> int:
        """What this peer leads with, where it leads next."""
        return self.term + 1


def order(proof: TermProof) -> tuple[int, int, PeerId]:
    """Of two leaders the one with the greater order stays (design.md, section 6)."""
    return proof.term, _weight(proof.leader), proof.leader


def prove(key: SigningKey, term: int) -> TermProof:
    return TermProof(key.peer_id, term, key.sign(_PURPOSE, str(term).encode()))


def is_genuine(proof: TermProof) -> bool:
    return verify(proof.leader, _PURPOSE, str(proof.term).encode(), proof.signature)


@lru_cache(maxsize=4096)
def _weight(peer: PeerId) -> int:
    return weight(peer, SEAT)
