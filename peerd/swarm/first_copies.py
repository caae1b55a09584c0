"""Who is told first of a piece that was read here, so that the others get it from there.

Always: while several pieces wait for their first copy, each is told to one child alone, until
anybody has it, that child goes, or its time is up; nothing is held back from children that are the
only one, nor over a border, nor once all is read. (Super-seeding, BEP 16, but only for so long:
there it costs an uplink that waits for the one who was told.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.swarm.parents import Parent

if TYPE_CHECKING:
    from random import Random

ALONE_MIN: Final = 2
"""Pieces that nobody else has, from which on one is told to a single child. The one reader of six
peers, simulated at 40 Mbit/s: 2 ends at 1.15 × the bound, 3 at 1.24, 4 at 1.25, never at 1.47."""
ADVISED_MORE: Final = 2
"""Who was advised is told of so many more before others are. Guess: one on its way, one next."""
TOOK_START_S: Final = 0.125
TOOK_WEIGHT: Final = 0.125
PATIENCE: Final = 4.0
"""A child is waited for so many times as long as they need for a first copy lately. With twice as
long those that are just late are asked for by all, which makes the next ones late: 1.36 × instead
of 1.15 × in the case above."""
PATIENCE_MIN_S: Final = 0.25
PATIENCE_MAX_S: Final = 2.0
"""Whoever needs longer than this held up all others. Guess."""


@dataclass(frozen=True, slots=True)
class Told:
    """One piece's first child. Times in seconds."""

    peer: PeerId
    at: float
    until: float


class FirstCopies:
    """Of one version on one peer. `held_back` are the pieces that one child alone was told of;
    `took_s` is smoothed: from then on until somebody had it.
    """

    def __init__(self) -> None:
        self.held_back: dict[int, Told] = {}
        self._advised: frozenset[PeerId] = frozenset()
        self._advised_until = -inf
        self.took_s = TOOK_START_S
        self._owing: dict[PeerId, set[int]] = {}

    def begin(self) -> None:
        """Another version; who passes it on fastest is the same."""
        self.held_back.clear()
        self._owing.clear()
        self.took_s = TOOK_START_S

    def advise(self, peers: Iterable[PeerId], until: float) -> None:
        """The scheduler's leader says who passes it on fastest."""
        self._advised, self._advised_until = frozenset(peers), until

    def tell(
        self, index: int, alone: int, parents: Iterable[Parent], rng: Random, now: float
    ) -> tuple[PeerId, ...]:
        """Whom alone to tell that this piece was read; nobody: tell all. Who has been told of the
        fewest that it has not got yet is first; those over borders need leases and hear at once.
        """
        if alone < ALONE_MIN:
            return ()
        able: list[PeerId] = []
        far: list[PeerId] = []
        for parent in parents:
            if parent.border is not None:
                far.append(parent.peer)
            elif index not in parent.have and parent.paused_until <= now:
                able.append(parent.peer)
        if len(able) < 2:
            return ()
        one = self._first_of(able, rng, now)
        self._owing.setdefault(one, set()).add(index)
        patience_s = min(PATIENCE_MAX_S, max(PATIENCE_MIN_S, PATIENCE * self.took_s))
        self.held_back[index] = Told(one, now, now + patience_s)
        return (one, *far)

    def _first_of(self, able: list[PeerId], rng: Random, now: float) -> PeerId:
        owes = {peer: len(self._owing.get(peer, ())) for peer in able}
        if now < self._advised_until:
            for peer in self._advised & owes.keys():
                owes[peer] -= ADVISED_MORE
        fewest = min(owes.values())
        return rng.choice([peer for peer in able if owes[peer] == fewest])

    def has(self, peer: PeerId, indices: Iterable[int], now: float) -> list[int]:
        """It has these; returns those that all are told of now."""
        owing = self._owing.get(peer)
        if owing is not None:
            owing.difference_update(indices)
        return self._release(indices, now)

    def gone(self, peer: PeerId) -> list[int]:
        """It is no parent any more; returns those that all are told of now."""
        self._owing.pop(peer, None)
        its = [index for index, told in self.held_back.items() if told.peer == peer]
        for index in its:
            del self.held_back[index]
        return its

    def due(self, now: float) -> list[int]:
        """Those for which nobody waits any longer."""
        late = [index for index, told in self.held_back.items() if told.until <= now]
        return self._release(late, now)

    def all(self) -> list[int]:
        """All is held here: nothing is held back any more."""
        everything = list(self.held_back)
        self.held_back.clear()
        return everything

    def deadline(self) -> float:
        """When `due` has something; inf while nothing is held back."""
        return min((told.until for told in self.held_back.values()), default=inf)

    def _release(self, indices: Iterable[int], now: float) -> list[int]:
        released: list[int] = []
        for index in indices:
            told = self.held_back.pop(index, None)
            if told is not None:
                released.append(index)
                self.took_s += TOOK_WEIGHT * (now - told.at - self.took_s)
        return released
