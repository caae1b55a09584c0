"""Which parent is asked for which pieces next, and when a piece is asked of another.

Always: bytes in flight never exceed IN_FLIGHT_MAX_BYTES beyond a piece a parent; a piece is taken
from a parent only if another, idle, should have it here in a fraction of the time; two are asked
for the same only when nothing else is left to ask for; over a border of our zone nothing is asked
for but what borders.py allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.swarm import events as ev
from peerd.swarm.borders import Borders
from peerd.swarm.parents import Parent, Parents
from peerd.swarm.picker import Picker
from peerd.units import MIB

if TYPE_CHECKING:
    from random import Random

IN_FLIGHT_MAX_BYTES: Final = 64 * MIB
"""Verified pieces are written once, so those in flight wait in memory: this bounds it."""
RESCUE_EVERY_S: Final = 0.2
"""While parents are idle and pieces are in flight elsewhere, it is looked so often whether they
could have them sooner. Guess: a few round trips."""
STEAL_FACTOR: Final = 4.0
"""A piece is taken from a parent where another should have it here in so much less time, and asked
of a second one, at the end, in half of it. Guess; the waste it causes is counted."""
LATE_MIN_S: Final = 0.25
"""… but not before it has been in flight for so long. Guess."""
BEHIND_MAX: Final = 2
"""Pieces in flight of a download behind another one on the same peer: what is asked for is sent,
and shares the downlink. Not none, for parents may have nothing else to send. Guess."""
SECONDS_MAX: Final = 2
"""Parents that are asked for one piece at the same time."""


class Requests:
    """The choice among joined parents."""

    def __init__(self, parents: Parents, borders: Borders, rng: Random) -> None:
        self._parents, self._borders, self._rng = parents, borders, rng
        self.capped = False
        self.behind = False

    def fill_all(self, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
        """Requests for every parent with room, who should answer soonest first."""
        self.capped = False
        able = [parent for parent in self._parents if parent.room(length_bytes, now)]
        able.sort(key=lambda parent: parent.next_s(length_bytes))
        return [each for parent in able for each in self.fill(parent, picker, length_bytes, now)]

    def fill(self, parent: Parent, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
        """Requests for one parent, as far as it has room and what is wanted."""
        room = parent.room(length_bytes, now)
        if not room:
            return []
        left = IN_FLIGHT_MAX_BYTES // length_bytes - len(picker.requested)
        left = max(left, int(not parent.in_flight))
        if self.behind:
            left = min(left, max(0, BEHIND_MAX - len(picker.requested)))
        if left < room:
            self.capped = True
        picked = picker.pick(self._borders.may_fetch(parent), min(room, left))
        return self._ask(parent, picked, picker, now)

    @staticmethod
    def _ask(parent: Parent, picked: list[int], picker: Picker, now: float) -> list[ev.Order]:
        if not picked:
            return []
        for index in picked:
            picker.request(index, parent.peer)
            parent.ask(index, now)
        return [ev.RequestPieces(parent.peer, tuple(picked))]

    # --- pieces that are late

    def may_rescue(self, picker: Picker, length_bytes: int, now: float) -> bool:
        """Whether somebody is idle while others are asked for something."""
        if not picker.requested:
            return False
        return any(parent.room(length_bytes, now) for parent in self._parents)

    def rescue(self, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
        """Ask idle parents for what others should have sent long ago, or will not for long."""
        orders: list[ev.Order] = []
        idle = [parent for parent in self._parents if parent.room(length_bytes, now)]
        if not idle or not picker.requested:
            return orders
        left = self._left_s(length_bytes, now)
        idle.sort(key=lambda each: each.next_s(length_bytes))
        if max(left.values()) < self._needed_s(idle[0], picker, length_bytes):
            return orders  # Mostly: nobody would have even the latest piece soon enough.
        late = sorted(((left_s, index) for index, left_s in left.items()), reverse=True)
        for parent in idle:
            for _ in range(parent.room(length_bytes, now)):
                found = self._latest_for(parent, late, picker, length_bytes)
                if found is None:
                    break
                orders += self._move(found, parent, picker, length_bytes, now)
                late = [each for each in late if each[1] != found]
        return orders

    def _latest_for(
        self, thief: Parent, late: Iterable[tuple[float, int]], picker: Picker, length_bytes: int
    ) -> int | None:
        """The piece that it would help most with, if it would help much."""
        fetchable = self._borders.may_fetch(thief)
        needed_s = self._needed_s(thief, picker, length_bytes)
        over_s = self._needed_over_s(thief, length_bytes)
        for left_s, index in late:
            if left_s < needed_s:
                return None
            if index not in fetchable or thief.peer in picker.requested[index]:
                continue
            if left_s >= over_s or not self._comes_over(thief.border, picker.requested[index]):
                return index
        return None

    def _comes_over(self, border: str | None, asked: Iterable[PeerId]) -> bool:
        joined = self._parents.joined
        return border is not None and any(joined[peer].border == border for peer in asked)

    @staticmethod
    def _needed_over_s(thief: Parent, length_bytes: int) -> float:
        """The same for what comes over the thief's border already, where it is mostly the border
        that is slow, and what was brought of the piece would be brought again."""
        if thief.rate_bytes_s is None:
            return inf
        return STEAL_FACTOR * thief.next_s(length_bytes)

    @staticmethod
    def _needed_s(thief: Parent, picker: Picker, length_bytes: int) -> float:
        """So long a piece should still take elsewhere to be asked of this parent."""
        factor = STEAL_FACTOR if picker.wanted else STEAL_FACTOR / 2
        return max(LATE_MIN_S, factor * thief.next_s(length_bytes))

    def _move(
        self, index: int, to: Parent, picker: Picker, length_bytes: int, now: float
    ) -> list[ev.Order]:
        """While other things are wanted it is taken from whom it was asked of; at the end not,
        unless both would bring it over the same border."""
        asked = tuple(picker.requested[index])
        orders: list[ev.Order] = []
        if picker.wanted or len(asked) >= SECONDS_MAX or self._comes_over(to.border, asked):
            for peer in asked:
                self._parents.joined[peer].taken(index, length_bytes, now)
                picker.release(index, peer, "another is faster")
                orders.append(ev.CancelPieces(peer, (index,)))
        return orders + self._ask(to, [index], picker, now)

    def _left_s(self, length_bytes: int, now: float) -> dict[int, float]:
        """How long each piece in flight should still take, where it should be here first."""
        left: dict[int, float] = {}
        for parent in self._parents:
            for index, left_s in parent.left_s(length_bytes, now):
                if left_s < left.get(index, inf):
                    left[index] = left_s
        return left
