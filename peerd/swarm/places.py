"""The order of this peer's tasks, as far as the scheduler's leader advised one.

Always: a place counts until its time is up; tasks of which nothing was said are in no order.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from peerd.ids import TaskId


class Places:
    """Of one peer."""

    def __init__(self) -> None:
        self._told: dict[TaskId, tuple[int, float]] = {}

    def told(self, task: TaskId, place: int, until: float, now: float) -> dict[TaskId, int]:
        """All that count now, with this one."""
        self._told[task] = (place, until)
        self._told = {task: said for task, said in self._told.items() if said[1] > now}
        return {task: said[0] for task, said in self._told.items()}

    def behind_until(self, task: TaskId, others: Iterable[TaskId]) -> float:
        """Until when one of those comes before that task; -inf if none does."""
        place, until = self._told.get(task, (0, -inf))
        before = [self._told[x] for x in others if x in self._told and self._told[x][0] < place]
        return min(until, max((end for _, end in before), default=-inf))
