"""Pieces that were written and are not acknowledged yet; shared by the event loop and its workers.

Always: while a piece is frozen no write to it begins; a piece that two wrote, or that somebody
failed to write, is contested: its bytes may be either's, and must be hashed before they count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass
class _Written:
    size_bytes: int
    writers: int = 0
    contested: bool = False


class Writes:
    """One for a version. `held` asks whether a piece is acknowledged."""

    def __init__(self, held: Callable[[int], bool]) -> None:
        self._held = held
        self._changed = threading.Condition()
        self._written: dict[int, _Written] = {}
        self._frozen: set[int] = set()
        self._closed = False

    def begin(self, index: int, size_bytes: int) -> bool:
        """False: leave what is there, it is acknowledged or about to be."""
        with self._changed:
            if self._closed:
                raise FileNotFoundError("the version was removed")
            written = self._written.get(index)
            if index in self._frozen and written is not None:
                # What is refused here may be what is acknowledged next, if the first one fails.
                written.contested = True
            if index in self._frozen or self._held(index):
                return False
            if written is None:
                written = self._written[index] = _Written(size_bytes)
            else:
                written.contested = True
                written.size_bytes = size_bytes
            written.writers += 1
            return True

    def end(self, index: int, *, done: bool) -> None:
        with self._changed:
            written = self._written[index]
            written.writers -= 1
            written.contested |= not done
            self._changed.notify_all()

    def freeze(self, index: int) -> tuple[int, bool] | None:
        """(size, must be hashed) of a written piece, which now stays as it is; None: not written.

        With a writer still at it, `wait` first.
        """
        with self._changed:
            written = self._written.get(index)
            if written is None:
                return None
            self._frozen.add(index)
            return written.size_bytes, written.contested or written.writers > 0

    def wait(self, index: int) -> None:
        """Blocking: until nobody writes that frozen piece."""
        with self._changed:
            self._changed.wait_for(lambda: not self._written[index].writers)

    def thaw(self, index: int, *, acknowledged: bool) -> None:
        with self._changed:
            self._frozen.discard(index)
            if acknowledged:
                self._written.pop(index, None)

    def forget(self, indices: Iterable[int]) -> None:
        """What was written there does not count; who is still at it makes it contested."""
        with self._changed:
            for index in indices:
                written = self._written.get(index)
                if written is not None and written.writers:
                    written.contested = True
                else:
                    self._written.pop(index, None)

    def close(self) -> None:
        """No write begins any more."""
        with self._changed:
            self._closed = True
