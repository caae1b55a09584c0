"""Which piece is in which state, who is fetching it, and which to ask for next.

Invariant: a piece is in exactly one of WANTED, REQUESTED (from ≥ 1 parent), READING (from the
origin, under a lease of ours) and HELD; an illegal step raises with the piece's story.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.pieces import PieceSet
from peerd.swarm.rarity import Rarity

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


RANDOM_FIRST: Final = 4
"""So many pieces are picked at random before the rarest: who has nothing yet gets something to
share soon, from whoever is fast (as BitTorrent does; reference: Cohen, «Incentives build
robustness in BitTorrent», 2003, section 2.4.2)."""


class IllegalStep(AssertionError):
    """Our mistake: names the piece, the step and the transitions that led there."""


class Picker:
    """The pieces of one version on one peer. `rarity` counts the parents that have each, `nearby`
    those on this side of all borders: few of the others may be asked (ADR 0013);
    `urgent` are those that readers wait for, by reader.
    """

    def __init__(self, count: int, held: PieceSet, rng: Random, *, borders: bool = False) -> None:
        self.count = count
        self.held = held.copy()
        self.held.grow(count)
        self.wanted = self.held.missing()
        self.reading = PieceSet(count)
        self.requested: dict[int, dict[PeerId, None]] = {}
        self.rarity = Rarity()
        self.nearby = Rarity() if borders else self.rarity
        self.urgent: dict[int, int] = {}
        self._rng = rng
        self._story: deque[tuple[int, PieceState, PieceState, str]] = deque(maxlen=STORY_MAX)

    def state(self, index: int) -> PieceState:
        if index in self.held:
            return PieceState.HELD
        if index in self.requested:
            return PieceState.REQUESTED
        return PieceState.READING if index in self.reading else PieceState.WANTED

    def add_parent(self, bits: int, border: str | None) -> None:
        """One more has these pieces, `border`: beyond that one."""
        self.rarity.add(bits)
        if border is None and self.nearby is not self.rarity:
            self.nearby.add(bits)

    def take_parent(self, bits: int, border: str | None) -> None:
        """One fewer has these pieces; each was counted before."""
        self.rarity.take(bits)
        if border is None and self.nearby is not self.rarity:
            self.nearby.take(bits)

    def pick(self, have: PieceSet, most: int) -> list[int]:
        """Up to `most` wanted pieces that `have` holds: what readers wait for in order, then some
        at random, then the rarest first, ties at random."""
        left = have.bits & self.wanted.bits
        picked: list[int] = []
        if left and self.urgent:
            picked = self._urgent(left, most)
            left &= ~sum(1 << index for index in picked)
        if left and len(self.held) < RANDOM_FIRST:
            return picked + self._some(left, most - len(picked))
        while left and len(picked) < most:
            rarest = self.nearby.rarest(left)
            left ^= rarest
            picked += self._some(rarest, most - len(picked))
        return picked

    def _urgent(self, left: int, most: int) -> list[int]:
        """The next piece of each reader in turn, who moved least lately first."""
        first: list[int] = []
        while len(first) < most:
            before = len(first)
            for bits in self.urgent.values():
                low = bits & left & -(bits & left)
                if low and len(first) < most:
                    first.append(low.bit_length() - 1)
                    left ^= low
            if len(first) == before:
                break
        return first

    def _some(self, bits: int, most: int) -> list[int]:
        """Up to `most` of a set, each the first one from a random place on."""
        chosen: list[int] = []
        while bits and len(chosen) < most:
            start = int(self._rng.random() * bits.bit_length())
            high = bits >> start << start
            low = high & -high
            chosen.append(low.bit_length() - 1)
            bits ^= low
        return chosen

    def wait_for(self, reader: int, first: int, count: int) -> None:
        """A reader needs pieces [first, first + count) next; none: it needs no more."""
        self.urgent.pop(reader, None)
        last = min(first + count, self.count)
        if last > first:
            self.urgent[reader] = ((1 << (last - first)) - 1) << first

    def request(self, index: int, peer: PeerId) -> None:
        """The first parent moves it from WANTED; further ones (endgame) join."""
        if index in self.requested:
            self.requested[index][peer] = None
            return
        self._step(index, PieceState.REQUESTED, peer)
        self.requested[index] = {peer: None}

    def release(self, index: int, peer: PeerId, why: str) -> None:
        """That parent will not send it; WANTED again when it was the last one asked."""
        askers = self.requested.get(index)
        if askers is None or peer not in askers:
            return
        del askers[peer]
        if not askers:
            self._step(index, PieceState.WANTED, why)

    def read(self, index: int) -> None:
        self._step(index, PieceState.READING, "lease")

    def unread(self, index: int) -> None:
        if index in self.reading:
            self._step(index, PieceState.WANTED, "lease over")

    def hold(self, index: int, source: str) -> list[PeerId]:
        """Held from now on; returns the parents that were asked for it."""
        if index in self.held:
            return []
        askers = list(self.requested.get(index, ()))
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
        self.count = count

    def cut(self, count: int) -> None:
        """The end is known: what was claimed to lie behind it never was. Nothing there is asked
        for any more."""
        for index in [index for index in self.requested if index >= count]:
            del self.requested[index]
        for pieces in (self.held, self.wanted, self.reading):
            pieces.cut(count)
        self.rarity.cut(count)
        self.nearby.cut(count)
        self.count = min(self.count, count)

    def complete(self) -> bool:
        return self.held.complete()

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
