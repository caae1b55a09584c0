"""Which link of several between the same two peers is the one: pure.

Always: two peers that dial each other at once end with the link that the smaller peer id dialled,
and neither has used the other one; who lost its end of a link can open a new one.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct

from peerd.ids import PeerId

RACE_MAX_S: Final = 7.0
"""Longer than a dial (5 s) and its handshake (2 s) last, no two are the same meeting."""


class Verdict(Enum):
    """What a listener does with a link that another peer dialled."""

    ACCEPT = "accept it; it takes the place of a link that is there"
    AWAIT = "our own dial may be up at the other side: wait for its end, then ask again"
    REFUSE = "the link that we dialled is the one"


class Standing(Struct, frozen=True):
    """The link that is up between the two: who dialled it, how old, in which run of the other."""

    dialled: bool
    age_s: float
    boot: bytes


def judge(
    own: PeerId, other: PeerId, other_boot: bytes, *, committed: bool, standing: Standing | None
) -> Verdict:
    """`committed`: we have said Hello on a link of our own to it, and have no answer yet.

    The larger id never waits and never refuses, so that the two cannot wait for each other.
    """
    if own > other:
        return Verdict.ACCEPT
    if committed:
        return Verdict.AWAIT
    if (
        standing is not None
        and standing.dialled
        and standing.age_s < RACE_MAX_S
        and standing.boot == other_boot
    ):
        return Verdict.REFUSE
    return Verdict.ACCEPT
