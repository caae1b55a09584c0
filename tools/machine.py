"""How busy the processors of this machine were: near 1, it is they that a run measured."""

from __future__ import annotations

from pathlib import Path


class Processors:
    """From when it is made on."""

    def __init__(self) -> None:
        self._busy, self._total = _ticks()

    def busy(self) -> float:
        """The share of all processors' time since then that was not idle, 0 to 1."""
        busy, total = _ticks()
        return (busy - self._busy) / max(1, total - self._total)


def _ticks() -> tuple[int, int]:
    """Busy and in all, of all processors since boot (proc(5), /proc/stat: idle, iowait)."""
    words = Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]
    ticks = [int(word) for word in words]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
