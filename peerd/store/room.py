"""Disk space: who takes it asks here first. Blocking, from worker threads.

Always: asking and taking are one step, so that two who ask at once do not both get the last bytes;
what was promised to a version and is not yet taken from the file system counts as gone.
"""

from __future__ import annotations

import threading
from pathlib import Path

from peerd.errors import NoSpace
from peerd.store.files import File, FileLayer, no_space
from peerd.store.layout import ReserveRule, lack_of_space


class Room:
    def __init__(self, files: FileLayer, directory: Path, reserve: ReserveRule) -> None:
        self._files, self._directory, self._reserve = files, directory, reserve
        self._promises: dict[Path, int] = {}
        self._asking = threading.Lock()

    def promise(self, path: Path, length_bytes: int) -> None:
        """That file may take so much, sooner or later."""
        with self._asking:
            self._promises[path] = length_bytes

    def settle(self, path: Path) -> None:
        """That file takes no more than it has."""
        with self._asking:
            self._promises.pop(path, None)

    def take(self, file: File, offset_bytes: int, size_bytes: int, needed_bytes: int) -> None:
        """Preallocates the range; NoSpace if `needed_bytes` of it cannot be had."""
        with self._asking:
            space = self._files.space(self._directory)
            lack = lack_of_space(
                needed_bytes, space, self._promised_bytes(), self._reserve, self._directory
            )
            if lack is not None:
                raise NoSpace(lack)
            try:
                file.allocate(offset_bytes, size_bytes)
            except OSError as error:
                full = no_space(error, self._directory)
                if full is None:
                    raise
                raise full from error

    def _promised_bytes(self) -> int:
        """Usually 0: where the file system preallocates, what is promised is taken at once."""
        total = 0
        for path, length_bytes in self._promises.items():
            try:
                with self._files.open(path, "r") as file:
                    total += max(0, length_bytes - file.sizes()[1])
            except FileNotFoundError:
                continue
        return total
