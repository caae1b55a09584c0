"""What came to pass in a run, line by line, and one hash over all of it.

Always: the hash covers every line, whether or not the lines are written to a file.
"""

from __future__ import annotations

import hashlib
from typing import TextIO

from tools.sim.clock import START_S

_BATCH_LINES = 1024


class Trace:
    """`out`: where the lines go, if anywhere."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out
        self._hash = hashlib.blake2b(digest_size=16)
        self._lines: list[str] = []

    def note(self, now: float, number: int, what: str, index: int, more: object) -> None:
        self._lines.append(f"{now - START_S:.6f} {number} {what} {index} {more}\n")
        if len(self._lines) >= _BATCH_LINES:
            self._flush()

    def digest(self) -> str:
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        text = "".join(self._lines)
        self._lines.clear()
        self._hash.update(text.encode())
        if self._out is not None:
            self._out.write(text)
