"""How good a parent one peer would be for another: a pure function, which an operator can replace.

Always: the same facts give the same scores; a score below 0 means "not this one"; nobody is kept
from a parent by it, for advice only orders what a peer tries first. The starting point is
Dragonfly's default evaluator (v2.5.1: load 0.6, IDC 0.2, location 0.1, host type 0.1, bad parents
left out); what we know beyond it is measured: what crosses a border, and who has what is lacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Final

from msgspec import Struct

from peerd.ids import PeerId
from peerd.zones import scopes

CHILDREN_FULL: Final = 18
"""Links of a swarm (swarm/parents.py): who serves so many has no place left."""
LOAD: Final = 0.4
ZONE: Final = 0.3
PIECES: Final = 0.15
EXCHANGE: Final = 0.1
HOST: Final = 0.05
"""Weights; they sum up to 1. Load and zone weigh as much as in Dragonfly, together. Guess."""
BAD: Final = -1.0


class Child(Struct, frozen=True):
    """Who looks for parents; `progress` 0.0–1.0."""

    peer: PeerId
    zone: str
    progress: float


class Candidate(Struct, frozen=True):
    """Who may be one. `border` is what comes from its zone into the child's, over the best that
    comes from anywhere there: 0.0–1.0, None where nothing was measured."""

    peer: PeerId
    zone: str
    seed: bool
    wants: bool
    progress: float
    load_percent: int
    children: int
    border: float | None


Evaluator = Callable[[Child, Sequence[Candidate]], Sequence[float]]
"""One score for each candidate, the greater the better."""


class Why(IntEnum):
    """What makes one a better parent than the others that were looked at; also on the wire."""

    SCORE = 0
    IDLE = 1
    NEAR = 2
    AHEAD = 3
    EXCHANGE = 4
    SEED = 5


APART_MIN: Final = 0.01
"""Less is no reason: a hundredth of the best score. Guess."""
PARTS: Final = (Why.IDLE, Why.NEAR, Why.AHEAD, Why.EXCHANGE, Why.SEED)

WORDS: Final[Mapping[int, str]] = {
    Why.SCORE: "as good as the others that it looked at, or better all in all",
    Why.IDLE: "it has room to spare",
    Why.NEAR: "it is near",
    Why.AHEAD: "it has what is lacked here",
    Why.EXCHANGE: "each has what the other lacks",
    Why.SEED: "it is a seed peer",
}


def evaluate(child: Child, candidates: Sequence[Candidate]) -> list[float]:
    return [BAD if _is_bad(each) else sum(_parts(child, each)) for each in candidates]


def reasons(child: Child, candidates: Sequence[Candidate]) -> list[Why]:
    """Of each what most sets it apart from all of these together, as `evaluate` weighs it; SCORE
    where nothing does."""
    parts = [_parts(child, each) for each in candidates]
    means = [sum(column) / len(parts) for column in zip(*parts, strict=True)]
    found = []
    for each in parts:
        apart = [part - mean for part, mean in zip(each, means, strict=True)]
        most = max(range(len(apart)), key=apart.__getitem__)
        found.append(PARTS[most] if apart[most] > APART_MIN else Why.SCORE)
    return found


def _is_bad(each: Candidate) -> bool:
    return each.progress <= 0.0 or (each.children >= CHILDREN_FULL and each.load_percent >= 90)


def _parts(child: Child, each: Candidate) -> tuple[float, ...]:
    """What its score is made of, in the order of PARTS."""
    free = 1.0 - min(1.0, each.children / CHILDREN_FULL)
    idle = 1.0 - each.load_percent / 100
    ahead = max(0.0, each.progress - child.progress)
    # Two that are about as far have different pieces, and each can pay with its own.
    mutual = 1.0 - abs(each.progress - child.progress) if each.wants else 0.0
    near = 1.0
    if each.zone != child.zone:
        crosses = 0.5 if each.border is None else each.border
        near = 0.25 * (_shared(child.zone, each.zone) + crosses)
    return (
        LOAD * (0.7 * free + 0.3 * idle),
        ZONE * near,
        PIECES * ahead,
        EXCHANGE * mutual,
        HOST * each.seed,
    )


@lru_cache(maxsize=4096)
def _shared(zone: str, other: str) -> float:
    """The share of a zone's scopes that the other lies in, too: over a border below 1."""
    own = scopes(zone)
    return len(set(own).intersection(scopes(other))) / max(1, len(own))
