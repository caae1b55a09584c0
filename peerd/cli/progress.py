"""One line that says how far a download is, drawn over itself on a terminal.

Always: on standard error, and only on a terminal; no wider than it; the rate is of the last
seconds, so the time left follows what is happening now.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from peerd.units import format_duration, format_size

WINDOW_S: Final = 3.0
SAMPLES_MAX: Final = 64
QUIET_S: Final = 0.3
"""What is over sooner never draws: a line that flashes by helps nobody."""


class Watcher(Protocol):
    """Whom a download tells how far it is."""

    def show(self, event: Mapping[str, Any]) -> None: ...
    def end(self) -> None: ...


class Rate:
    """Bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)

    def add(self, held_bytes: int, now: float) -> float | None:
        """The rate with this sample; None before there are two."""
        self._samples.append((now, held_bytes))
        while len(self._samples) > 2 and self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        since, bytes_then = self._samples[0]
        return max(0, held_bytes - bytes_then) / (now - since) if now > since else None


def line(name: str, event: Mapping[str, Any], rate_bytes_s: float | None) -> str:
    """A progress event in words, the most wanted first: what does not fit is cut off."""
    total, held = event["bytes_total"], event["bytes_held"]
    parts = [name]
    if total:
        parts.append(f"{100 * held // total:3d}%")
    parts.append(f"{format_size(held)} of {format_size(total)}" if total else format_size(held))
    if rate_bytes_s is not None:
        parts.append(f"{format_size(rate_bytes_s)}/s")
        if total and rate_bytes_s > 0:
            parts.append(f"{format_duration((total - held) / rate_bytes_s)} left")
    parts.append(f"origin {format_size(event['from_origin'])}")
    parts.append(f"peers {format_size(event['from_peers'])}")
    return "  ".join(parts)


class Progress:
    """Draws on standard error; silent where that is no terminal, or `wanted` is False."""

    def __init__(self, name: str, wanted: bool) -> None:
        self._name = name
        self._drawing = wanted and sys.stderr.isatty()
        self._rate = Rate()
        self._began = time.monotonic()
        self._drawn = False

    def show(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        rate = self._rate.add(event["bytes_held"], now)
        if self._drawing and now - self._began > QUIET_S:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            text = line(self._name, event, rate)[: width - 1]
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def end(self) -> None:
        """Clears the line: what comes next starts at its beginning."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
