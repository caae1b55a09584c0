"""A token bucket for bytes: how long to wait before sending or taking some.

Always: over any time t at most rate·t + burst bytes are let through; debts are paid by waiting,
so a single amount larger than the burst passes, later.
"""

from __future__ import annotations


class TokenBucket:
    """`rate_bytes_s` of None lets everything through. Time comes in; nothing waits here."""

    def __init__(self, rate_bytes_s: float | None, burst_bytes: float = 1 << 20) -> None:
        if rate_bytes_s is not None and rate_bytes_s <= 0:
            raise ValueError("a rate is more than 0 bytes per second")
        self.rate_bytes_s = rate_bytes_s
        self.burst_bytes = burst_bytes
        self._level = burst_bytes
        self._filled_at: float | None = None

    def take(self, amount_bytes: int, now: float) -> float:
        """Take the bytes and return the seconds to wait before using them (0.0: at once)."""
        if self.rate_bytes_s is None:
            return 0.0
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self.rate_bytes_s
            self._level = min(self.burst_bytes, self._level + gained)
        self._filled_at = now
        self._level -= amount_bytes
        return max(0.0, -self._level / self.rate_bytes_s)
