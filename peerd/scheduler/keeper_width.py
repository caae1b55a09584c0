"""How many members read the origin at once: as many as make the group read faster (ADR 0005).

Always: between `readers_min` and `readers_max`; one step at a time, and what it did to the rate of
all together is measured before the next; a step stays only if it did at least half of what it
would where every reader counts in full, so that chance moves nothing for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from peerd.scheduler.keeper_events import KeeperConfig

STEP = 4
"""Readers more or less at a time: a third of the first dozen is more than chance. Guess."""
WINDOW_S = 1.0
"""A rate is measured for at least so long: two report intervals."""
WINDOW_PIECES = 3
"""… and over so many pieces of each reader. Guess."""
REST_MIN = 2
REST_MAX = 32
"""Windows from a step that was taken back to the next one; doubling. Guess."""


@dataclass(slots=True, eq=False)
class Width:
    """Of one kept task. `readers` is how many may read now."""

    config: KeeperConfig
    readers: int = field(init=False)
    _up: bool = True
    _since: float | None = None
    _skip: int = 0
    _pieces: int = 0
    _tried: tuple[int, float] | None = None
    _pause: int = REST_MIN
    _rest: int = 1

    def __post_init__(self) -> None:
        self.readers = self.config.readers_first

    def made(self, pieces: int, now: float, *, wanted: bool) -> None:
        """So many pieces were read. `wanted`: more members would read if they might; else the
        rate says nothing of how many there should be."""
        if not wanted:
            self._since = None
            return
        if self._skip > 0:
            self._skip -= pieces  # Begun before the last step.
            return
        if self._since is None:
            self._since, self._pieces = now, 0
            return
        self._pieces += pieces
        passed_s = now - self._since
        if passed_s >= WINDOW_S and self._pieces >= WINDOW_PIECES * self.readers:
            rate = self._pieces / passed_s
            self._since = None
            self._measured(rate)

    def _measured(self, rate: float) -> None:
        if self._tried is None:
            self._rest -= 1
            if self._rest <= 0:
                self._try(rate)
            return
        (was, had), self._tried = self._tried, None
        if rate / had - 1 >= (self.readers / was - 1) / 2:
            self._pause = REST_MIN
            self._try(rate)
            return
        self._set(was)
        self._up = not self._up
        self._pause = min(2 * self._pause, REST_MAX)
        self._rest = self._pause

    def _try(self, rate: float) -> None:
        """One step on; the other way where this one ends."""
        if self._bounded(self._up) == self.readers:
            self._up = not self._up
        self._tried = (self.readers, rate)
        self._set(self._bounded(self._up))

    def _bounded(self, up: bool) -> int:
        config = self.config
        wanted = self.readers + (STEP if up else -STEP)
        return max(config.readers_min, min(config.readers_max, wanted))

    def _set(self, readers: int) -> None:
        self._skip = max(self.readers, readers)
        self.readers = readers
