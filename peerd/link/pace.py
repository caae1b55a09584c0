"""How large the frames of a link are, and how long a round trip takes.

Always: a frame takes at most 50 ms of the rate that was measured, within 16 KiB and 1 MiB, so that
a control message never waits long behind piece data.
"""

from __future__ import annotations

from typing import Final

from peerd.units import KIB, MIB

FRAME_TIME_S: Final = 0.05
UNSENT_TIME_S: Final = 0.02
"""Guess: with a frame of 50 ms behind it, HAVE and requests wait for 70 ms at most."""
FRAME_MIN_BYTES: Final = 16 * KIB
FRAME_MAX_BYTES: Final = MIB
"""The three: docs/design.md, 5."""
FRAME_FIRST_BYTES: Final = 32 * KIB
"""Before anything was measured: a frame is worth nothing before it is whole, and over a link that
turns out slow and lossy 256 KiB took longer than a child's patience (lab, 80 ms and 1 % loss)."""
_SAMPLE_BYTES: Final = MIB
_SAMPLE_S: Final = 0.1
"""A sample is at least this much data or this long. Guess."""
_SMOOTHING: Final = 0.5
"""Guess: a rate that changed is believed after some three samples."""
_RTT_SMOOTHING: Final = 0.125
"""RFC 6298, section 2."""


class Pace:
    """Fed with how long each write took; says how much data the next batch should carry."""

    def __init__(self, limit_bytes_s: float | None = None) -> None:
        self._limit_bytes_s = limit_bytes_s
        self.rate_bytes_s: float | None = None
        self._bytes = 0
        self._seconds = 0.0

    def sent(self, size_bytes: int, seconds: float) -> None:
        self._bytes += size_bytes
        self._seconds += seconds
        if self._bytes < _SAMPLE_BYTES and self._seconds < _SAMPLE_S:
            return
        rate = self._bytes / max(self._seconds, 1e-6)
        known = self.rate_bytes_s
        self.rate_bytes_s = rate if known is None else known + _SMOOTHING * (rate - known)
        self._bytes, self._seconds = 0, 0.0

    @property
    def unsent_bytes(self) -> int:
        """What may wait in the kernel: UNSENT_TIME_S of the rate."""
        rate = self.rate_bytes_s
        return FRAME_FIRST_BYTES if rate is None else int(rate * UNSENT_TIME_S)

    @property
    def frame_bytes(self) -> int:
        wanted: float = FRAME_FIRST_BYTES
        if self.rate_bytes_s is not None:
            wanted = self.rate_bytes_s * FRAME_TIME_S
        if self._limit_bytes_s is not None:
            wanted = min(wanted, self._limit_bytes_s * FRAME_TIME_S)
        return int(max(FRAME_MIN_BYTES, min(FRAME_MAX_BYTES, wanted)))


class RoundTrip:
    """Smoothed round trip, the least of all and the last one; None before the first answer."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.least_s: float | None = None
        self.last_s: float | None = None

    def sample(self, seconds: float) -> None:
        self.last_s = seconds
        known = self.seconds
        self.least_s = seconds if self.least_s is None else min(seconds, self.least_s)
        self.seconds = seconds if known is None else known + _RTT_SMOOTHING * (seconds - known)
