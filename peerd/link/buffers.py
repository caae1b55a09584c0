"""Buffers for frames, lent and taken back, so that a frame costs no fresh memory.

Always: a buffer is lent again only after it was given back and no view of it lives any more, in
whoever's hands; no more than `kept_max_bytes` wait here.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from peerd.units import KIB, MIB

_CLASSES_BYTES: Final = (32 * KIB, 128 * KIB, 512 * KIB, MIB + 16 * KIB)
"""The largest holds any frame or batch with what was read beyond it."""
KEPT_MAX_BYTES: Final = 16 * MIB
"""Guess: what some four links at full speed have in hand."""
_TRIES_MAX: Final = 8


class BufferPool:
    """Not for threads: called on the event loop only; views may live and die anywhere."""

    def __init__(self, kept_max_bytes: int = KEPT_MAX_BYTES) -> None:
        self._kept: dict[int, deque[bytearray]] = {size: deque() for size in _CLASSES_BYTES}
        self._kept_bytes = 0
        self._kept_max_bytes = kept_max_bytes

    def lend(self, size_bytes: int) -> bytearray:
        """A buffer of at least that size, with anything in it."""
        for size, kept in self._kept.items():
            if size_bytes <= size:
                return self._unviewed(kept) or bytearray(size)
        return bytearray(size_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """The lender's own use has ended; views handed on may live."""
        kept = self._kept.get(len(buffer))
        if kept is not None and self._kept_bytes + len(buffer) <= self._kept_max_bytes:
            kept.append(buffer)
            self._kept_bytes += len(buffer)

    def _unviewed(self, kept: deque[bytearray]) -> bytearray | None:
        for _ in range(min(len(kept), _TRIES_MAX)):
            buffer = kept.popleft()
            if not _is_viewed(buffer):
                self._kept_bytes -= len(buffer)
                return buffer
            kept.append(buffer)
        return None


def _is_viewed(buffer: bytearray) -> bool:
    # A bytearray refuses to change its length while a view of it lives: Python's own guard for
    # exactly this. One byte less and more again moves nothing.
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return True
    return False
