"""When the swarm is about to be slower than a plain download: which pieces to ask a hedge for.

Always: asked only while nothing is read here, for pieces of which each holder that is linked is far
slower than the origin; no more often than the doubling pause allows. Whether the origin is read
again is the keeper's decision, out of the group's budget (scheduler/keeper_hedges; docs/adr/0017).
"""

from __future__ import annotations

from math import inf
from typing import Final

from peerd.ids import PieceIndex, VersionId
from peerd.swarm.events import AskHedge, Order
from peerd.swarm.parents import Parent, Parents
from peerd.swarm.picker import Picker

HEDGED_MAX: Final = 64
"""Pieces in one question: three times the budget of a usual content. With more than these lacking
the end is not near, and what a hedge could save is little."""
FIRST_S: Final = 0.1
"""The first look, and the first pause between two questions, which doubles. Half of what a download
may lose (design.md, promise 5) is gone by then at most."""
PAUSE_MAX_S: Final = 4.0
"""Guess: a slow parent may become slower still."""
FAR_SLOWER: Final = 4.0
"""A holder takes so many times as long for a piece as the origin did. requests.STEAL_FACTOR."""
SLOW_S: Final = 0.5
"""… or so long, where nothing was read here: the keeper knows how fast others read. Guess."""
EXPECTED_MAX_S: Final = 1e6
"""A parent that has sent nothing for long may look as if it took for ever."""
PACE_WEIGHT: Final = 0.3
"""Weight of the newest measurement. keeper_events.KeeperConfig.pace_weight."""


class Watchdog:
    """Of one download of one version. `pace_s`: what a piece took from the origin, if one came."""

    def __init__(self, version: VersionId, lacking: int, now: float) -> None:
        self.pace_s: float | None = None
        self._version, self._lacking, self._began_at = version, lacking, now
        self._read_at = now
        self._due = now + FIRST_S
        self._pause_s = FIRST_S

    def begun(self, now: float) -> None:
        """A lease to read was granted: no time before it says anything of the origin."""
        self._read_at = max(self._read_at, now)

    def read(self, now: float) -> None:
        """A piece came from the origin."""
        took_s, self._read_at = max(0.0, now - self._read_at), now
        if self.pace_s is not None:
            took_s = PACE_WEIGHT * took_s + (1 - PACE_WEIGHT) * self.pace_s
        self.pace_s = took_s

    def due(self, picker: Picker, *, reading: bool) -> float:
        """When to look again; inf where only events can change anything."""
        lacking = len(picker.wanted) + len(picker.requested)
        return self._due if 0 < lacking <= HEDGED_MAX and not reading else inf

    def look(
        self, picker: Picker, parents: Parents, length_bytes: int, now: float, *, reading: bool
    ) -> list[Order]:
        """What to ask the keeper for now, the latest first."""
        if now < self.due(picker, reading=reading):
            return []
        self._due = now + FIRST_S
        late = self._late(picker, parents, length_bytes, now)
        if not late:
            return []
        self._due = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        late.sort(reverse=True)
        indices = tuple(PieceIndex(index) for _, index in late)
        expected_s = tuple(min(at_s, EXPECTED_MAX_S) for at_s, _ in late)
        return [AskHedge(self._version, indices, expected_s, self._lacking)]

    def _late(
        self, picker: Picker, parents: Parents, length_bytes: int, now: float
    ) -> list[tuple[float, int]]:
        """The pieces that only slow parents have, and when after our beginning they would be here,
        each from whom it should come first, behind what that one sends before it."""
        slow_s = SLOW_S if self.pace_s is None else FAR_SLOWER * self.pace_s
        each_s = {parent.peer: _piece_s(parent, length_bytes, now) for parent in parents}
        queued = dict.fromkeys(each_s, 0)
        late: list[tuple[float, int]] = []
        for index in [*picker.requested, *picker.wanted]:
            holders = [parent.peer for parent in parents if index in parent.have]
            if not holders:
                continue  # What nobody has is leased to be read, or will be.
            soonest = min(holders, key=lambda peer: (queued[peer] + 1) * each_s[peer])
            queued[soonest] += 1
            if min(each_s[peer] for peer in holders) > slow_s:
                left_s = queued[soonest] * each_s[soonest]
                late.append((now - self._began_at + left_s, index))
        return late


def _piece_s(parent: Parent, length_bytes: int, now: float) -> float:
    """What one piece takes from it, by its rate, and by how long it owes one already."""
    owed_s = parent.silent_s(now)
    return (
        owed_s if parent.rate_bytes_s is None else max(owed_s, length_bytes / parent.rate_bytes_s)
    )
