"""How often to try an origin again, and after how long.

Always: at most `retries_max` tries again in a row, and `cuts_max` cuts in a row that brought
nothing; no single wait is longer than `backoff_max_s`, or than `retry_after_max_s` where the
origin named it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerd.errors import OriginBusy, PeerdError
from peerd.origin.settings import OriginConfig

if TYPE_CHECKING:
    from random import Random


class Transient(Exception):
    """A failure that another try may mend; `error` is what to raise when patience is over."""

    def __init__(self, error: PeerdError, *, slow: bool = False) -> None:
        """`slow`: it took a whole timeout to fail, so fewer tries are worth their while."""
        super().__init__(str(error))
        self.error = error
        self.slow = slow


class Patience:
    """For one body: tries since the last answer, and cuts since the last progress."""

    def __init__(self, config: OriginConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._failures = 0
        self._cuts = 0

    def answered(self) -> None:
        self._failures = 0

    def after_failure(self, failure: Transient) -> float | None:
        """Seconds to wait before the next try; None: give up. A slow failure counts for two."""
        self._failures += 2 if failure.slow else 1
        if self._failures > self._config.retries_max:
            return None
        error = failure.error
        asked = error.retry_after_s if isinstance(error, OriginBusy) else None
        if asked is None:
            return self._backoff(self._failures)
        return asked if asked <= self._config.retry_after_max_s else None

    def after_cut(self, progress_bytes: int) -> float | None:
        """The same for a body that broke off, this many bytes after the last cut."""
        self._cuts = 0 if progress_bytes >= self._config.cut_progress_bytes else self._cuts + 1
        if self._cuts > self._config.cuts_max:
            return None
        return self._backoff(self._cuts) if self._cuts else 0.0

    def silence_s(self) -> float:
        """How long a body that another answer can go on with may be silent."""
        longest = self._config.resume_after_s * 2.0 ** min(self._cuts, 32)
        return min(longest, self._config.stall_timeout_s)

    def _backoff(self, count: int) -> float:
        """Doubling, and the second half of it random: readers cut together come back apart."""
        longest = self._config.backoff_first_s * float(2 ** min(count - 1, 32))
        return min(longest, self._config.backoff_max_s) * self._rng.uniform(0.5, 1.0)
