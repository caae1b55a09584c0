"""Which parent is asked for which pieces next, and when a second one is asked.

Always: bytes in flight never exceed IN_FLIGHT_MAX_BYTES beyond two pieces a parent; a piece is
asked of a second parent only when nothing else is left to ask for; over a border of our zone only
what borders.py allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.swarm import events as ev
from peerd.swarm.borders import Borders
from peerd.swarm.parents import WINDOW_MIN, Parent, Parents
from peerd.swarm.picker import Picker
from peerd.units import MIB

if TYPE_CHECKING:
    from random import Random

IN_FLIGHT_MAX_BYTES: Final = 64 * MIB
"""Verified pieces are written once, so those in flight wait in memory: this bounds it."""
ENDGAME_AFTER_S: Final = 0.25
"""When nothing else is left to ask for, another parent is asked for a piece that has been in flight
for so long since the last one was asked. Guess; the waste it causes is counted."""


class Requests:
    """The choice among joined parents; keeps nothing of its own."""

    def __init__(self, parents: Parents, borders: Borders, rng: Random) -> None:
        self._parents, self._borders, self._rng = parents, borders, rng

    def fill(self, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
        """Requests for every parent with room, the emptiest first."""
        in_flight = sum(len(parent.in_flight) for parent in self._parents)
        left = IN_FLIGHT_MAX_BYTES // length_bytes - in_flight
        orders: list[ev.Order] = []
        for parent in sorted(self._parents, key=lambda p: len(p.in_flight)):
            room = parent.room(length_bytes, now)
            floor = max(0, WINDOW_MIN - len(parent.in_flight))
            room = min(room, max(left, floor))
            picked = self._picks(picker, parent, room, length_bytes, now) if room else []
            for index in picked:
                picker.request(index, parent.peer)
                parent.in_flight[index] = now
            if picked:
                orders.append(ev.RequestPieces(parent.peer, tuple(picked)))
                left -= len(picked)
        return orders

    @staticmethod
    def endgame(picker: Picker) -> bool:
        """Whether all that is not held is asked for."""
        return not picker.wanted and bool(picker.requested)

    def _picks(
        self, picker: Picker, parent: Parent, room: int, length_bytes: int, now: float
    ) -> list[int]:
        fetchable = self._borders.may_fetch(parent)
        picked = picker.pick(fetchable, room)
        if picked or not self.endgame(picker):
            return picked
        late = [
            index
            for index, peers in picker.requested.items()
            if parent.peer not in peers
            and index in fetchable
            and now - self._asked_at(index, peers) >= self._overdue_s(peers, length_bytes)
        ]
        self._rng.shuffle(late)
        return late[: min(room, WINDOW_MIN)]

    def _asked_at(self, index: int, peers: set[PeerId]) -> float:
        times = [self._parents.joined[p].in_flight.get(index) for p in peers]
        return max((at for at in times if at is not None), default=0.0)

    def _overdue_s(self, peers: set[PeerId], length_bytes: int) -> float:
        """Twice as long as what is in flight there should take, at least ENDGAME_AFTER_S."""
        asked = [self._parents.joined[peer] for peer in peers]
        owed_s = [len(p.in_flight) * length_bytes / p.rate_bytes_s for p in asked if p.rate_bytes_s]
        return max(ENDGAME_AFTER_S, 2.0 * min(owed_s, default=0.0))
