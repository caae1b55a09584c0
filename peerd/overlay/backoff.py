"""How long to wait before the next try: doubling, with jitter, bounded.

Always: the n-th wait lies in [½, 1] × min(last, first × 2ⁿ), so that many who failed together do
not come back together.
"""

from __future__ import annotations

import random


class Backoff:
    """`next_s` is the wait before the next try; `reset` after a success that lasted."""

    def __init__(self, rng: random.Random, *, first_s: float, last_s: float) -> None:
        self._rng, self._first_s, self._last_s = rng, first_s, last_s
        self.failures = 0

    def next_s(self) -> float:
        full_s = min(self._last_s, self._first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return full_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        self.failures = 0
