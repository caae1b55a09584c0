"""Which link of several between the same two peers is the one: pure.

Always: two peers that dial each other at once end with the direct link if the other is relayed,
else with the one that the smaller peer id dialled, and neither has used the other one; who lost
its end of a link can open a new one.
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
    relayed: bool = False


class Ours(Struct, frozen=True):
    """A link of ours on which we have said Hello, and have no answer yet."""

    relayed: bool = False


def judge(
    own: PeerId,
    other: PeerId,
    other_boot: bytes,
    *,
    committed: Ours | None,
    standing: Standing | None,
    relayed: bool = False,
) -> Verdict:
    """What to do with the other's link, which is `relayed` or direct.

    Both sides put the two links in the same order, so that they cannot wait for each other.
    """

    def ours_first(ours_relayed: bool) -> bool:
        return own < other if ours_relayed == relayed else relayed

    if committed is not None and ours_first(committed.relayed):
        return Verdict.AWAIT
    if (
        standing is not None
        and standing.dialled
        and ours_first(standing.relayed)
        and standing.age_s < RACE_MAX_S
        and standing.boot == other_boot
    ):
        return Verdict.REFUSE
    return Verdict.ACCEPT
