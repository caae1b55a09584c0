"""Virtual time: what is to happen next, and when.

Always: steps run in the order of their times, those of one time in the order they were added; a
timer that was set anew runs once, at its newest time; nothing here reads a real clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Any

START_S = 1000.0
"""Where time begins: no core's «long ago» lies after it."""


class Clock:
    """The steps that are still to come."""

    def __init__(self) -> None:
        self.now = START_S
        self.steps = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, step: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        when = when if when > self.now else self.now
        heapq.heappush(self._queue, (when, self._count, step, arguments))

    def after(self, delay_s: float, step: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay_s, step, *arguments)

    def run(self, until_s: float, done: Callable[[], bool]) -> None:
        """Until `done()`, `until_s` or the end of all steps."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_s and not done():
            self.now, _, step, arguments = pop(queue)
            self.steps += 1
            step(*arguments)


class Timer:
    """One pending call of one function; set sooner or later as often as needed.

    A later time costs nothing: the earlier call finds that it is not due, and is put off.
    """

    __slots__ = ("_armed_at", "_clock", "_run", "due_at")

    def __init__(self, clock: Clock, run: Callable[[], None]) -> None:
        self._clock, self._run = clock, run
        self.due_at = inf
        self._armed_at = inf

    def set(self, due_at: float) -> None:
        """inf: not at all."""
        self.due_at = due_at
        if due_at < self._armed_at:
            self._armed_at = due_at
            self._clock.at(due_at, self._fire, due_at)

    def _fire(self, armed_at: float) -> None:
        if armed_at != self._armed_at:
            return  # Set sooner meanwhile: that call does it.
        self._armed_at = inf
        if self.due_at == inf:
            return
        if self.due_at > self._clock.now:
            self.set(self.due_at)
            return
        self.due_at = inf
        self._run()
