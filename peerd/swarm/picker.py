"""Which piece is in which state, who is fetching it, and which to ask for next.

Invariant: a piece is in exactly one of WANTED, REQUESTED (from ≥ 1 parent), READING (from the
origin, under a lease of ours) and HELD; an illegal step raises with the piece's story.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.pieces import PieceSet

if TYPE_CHECKING:
    from random import Random


class PieceState(StrEnum):
    """Words a user may read in `peerd task show`."""

    WANTED = "wanted"
    REQUESTED = "requested"
    READING = "reading"
    HELD = "held"


STEPS: Final = {
    (PieceState.WANTED, PieceState.REQUESTED): "asked a parent",
    (PieceState.WANTED, PieceState.READING): "leased from the keeper",
    (PieceState.WANTED, PieceState.HELD): "read under a stream lease",
    (PieceState.REQUESTED, PieceState.WANTED): "parent rejected, left, stalled or lied",
    (PieceState.REQUESTED, PieceState.HELD): "arrived",
    (PieceState.READING, PieceState.WANTED): "lease over before it was read",
    (PieceState.READING, PieceState.HELD): "read",
    (PieceState.HELD, PieceState.WANTED): "damaged or disputed",
}
"""The whole state machine; docs/adr/0001 draws it."""

STORY_MAX: Final = 2048
"""Transitions remembered for one download: twice its usual 1,024 pieces."""


class IllegalStep(AssertionError):
    """Our mistake: names the piece, the step and the transitions that led there."""


class Picker:
    """The pieces of one version on one peer. `rarity[i]` counts parents that have piece i."""

    def __init__(self, count: int, held: PieceSet, rng: Random) -> None:
        self.count = count
        self.held = held.copy()
        self.held.grow(count)
        self.wanted = self.held.missing()
        self.reading = PieceSet(count)
        self.requested: dict[int, set[PeerId]] = {}
        self.rarity = [0] * count
        self._rng = rng
        self._story: deque[tuple[int, PieceState, PieceState, str]] = deque(maxlen=STORY_MAX)

    def state(self, index: int) -> PieceState:
        if index in self.held:
            return PieceState.HELD
        if index in self.requested:
            return PieceState.REQUESTED
        return PieceState.READING if index in self.reading else PieceState.WANTED

    def pick(self, have: PieceSet, most: int) -> list[int]:
        """Up to `most` wanted pieces that `have` holds: the rarest first, ties at random."""
        rarity, rng = self.rarity, self._rng
        candidates = [(rarity[index], rng.random(), index) for index in have & self.wanted]
        if most == 1 and candidates:
            return [min(candidates)[2]]
        return [index for _, _, index in heapq.nsmallest(most, candidates)]

    def request(self, index: int, peer: PeerId) -> None:
        """The first parent moves it from WANTED; further ones (endgame) join."""
        if index in self.requested:
            self.requested[index].add(peer)
            return
        self._step(index, PieceState.REQUESTED, peer)
        self.requested[index] = {peer}

    def release(self, index: int, peer: PeerId, why: str) -> None:
        """That parent will not send it; WANTED again when it was the last one asked."""
        askers = self.requested.get(index)
        if askers is None or peer not in askers:
            return
        askers.discard(peer)
        if not askers:
            self._step(index, PieceState.WANTED, why)

    def read(self, index: int) -> None:
        self._step(index, PieceState.READING, "lease")

    def unread(self, index: int) -> None:
        if index in self.reading:
            self._step(index, PieceState.WANTED, "lease over")

    def hold(self, index: int, source: str) -> set[PeerId]:
        """Held from now on; returns the parents that were asked for it."""
        if index in self.held:
            return set()
        askers = set(self.requested.get(index, ()))
        self._step(index, PieceState.HELD, source)
        return askers

    def lose(self, index: int, why: str) -> None:
        if index in self.held:
            self._step(index, PieceState.WANTED, why)

    def grow(self, count: int) -> None:
        """Pieces beyond the known end turned up (content of unknown length)."""
        if count <= self.count:
            return
        for pieces in (self.held, self.wanted, self.reading):
            pieces.grow(count)
        self.wanted.add_run(self.count, count)
        self.rarity += [0] * (count - self.count)
        self.count = count

    def cut(self, count: int) -> None:
        """The end is known: what was claimed to lie behind it never was. Nothing there is asked
        for any more."""
        for index in [index for index in self.requested if index >= count]:
            del self.requested[index]
        for pieces in (self.held, self.wanted, self.reading):
            pieces.cut(count)
        del self.rarity[count:]
        self.count = min(self.count, count)

    def seen(self, indices: Iterable[int], change: int) -> None:
        """A parent got (+1) or took away (-1) these pieces."""
        for index in indices:
            self.rarity[index] += change

    def complete(self) -> bool:
        return len(self.held) == self.count

    def story(self, index: int | None = None) -> list[str]:
        """The last transitions, of one piece or of all."""
        return [
            f"piece {piece}: {before} → {after} ({why})"
            for piece, before, after, why in self._story
            if index is None or piece == index
        ]

    def validate(self) -> None:
        """The invariant, for tests."""
        for index in range(self.count):
            places = (index in self.wanted, index in self.requested, index in self.reading,
                      index in self.held)  # fmt: skip
            assert sum(places) == 1, f"piece {index} is in {places}: {self.story(index)}"
        assert all(self.requested.values()), "requested from nobody"
        assert min(self.rarity, default=0) >= 0

    def _step(self, index: int, after: PieceState, why: str) -> None:
        before = self.state(index)
        if (before, after) not in STEPS:
            told = "; ".join(self.story(index))
            raise IllegalStep(f"piece {index}: {before} → {after} ({why}). Before: {told}")
        self._story.append((index, before, after, why))
        if before is PieceState.REQUESTED:
            del self.requested[index]
        else:
            self._set(before).discard(index)
        if after is not PieceState.REQUESTED:
            self._set(after).add(index)

    def _set(self, state: PieceState) -> PieceSet:
        if state is PieceState.HELD:
            return self.held
        return self.reading if state is PieceState.READING else self.wanted
