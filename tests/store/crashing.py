"""A file system that loses what was not synced, and journals as they were at each instant.

Always: what was synced survives a crash; of the rest any part may, in any order, cut anywhere at a
sector. A name and the bytes under it are lost independently of each other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

from peerd.store.layout import JOURNAL_NAME, Space
from tests.store.helper import PLENTY

SECTOR_BYTES = 16
PREALLOCATED_MAX_BYTES = 4096
"""Steps of 64 MiB would be copied at each instant; a file system may always preallocate less."""
JOURNAL_FILES = (JOURNAL_NAME, f"{JOURNAL_NAME}-wal")


@dataclass
class Inode:
    """`late` are writes (offset, bytes) or new sizes that no sync has covered."""

    live: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    late: list[tuple[int, bytes] | int] = field(default_factory=list)

    def after_crash(self, rng: Random) -> bytearray:
        data = bytearray(self.durable)
        for change in rng.sample(self.late, rng.randint(0, len(self.late))):
            if isinstance(change, int):
                _resize(data, change)
                continue
            offset, part = change
            for at in range(0, len(part), SECTOR_BYTES):
                if rng.random() < 0.8:
                    _put(data, offset + at, part[at : at + SECTOR_BYTES])
        return data


@dataclass
class Disk:
    """The names, live and durable; `late` are the names that no directory sync has covered."""

    live: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    def after_crash(self, rng: Random) -> Disk:
        """What a machine finds when it starts again."""
        kept = dict(self.durable)
        for name in rng.sample(self.late, rng.randint(0, len(self.late))):
            kept.pop(name, None)
            if name in self.live:
                kept[name] = self.live[name]
        return _settled({name: inode.after_crash(rng) for name, inode in kept.items()})

    def after_kill(self) -> Disk:
        return _settled({name: bytearray(inode.live) for name, inode in self.live.items()})


class CrashingFiles:
    """Implements store.files.FileLayer. `changed` is called after each change."""

    def __init__(self, disk: Disk | None = None, space: Space = PLENTY) -> None:
        self.disk = disk or Disk()
        self._space = space
        self.changed: Callable[[], None] = lambda: None

    def open(self, path: Path, mode: str) -> CrashingFile:
        if mode == "x":
            self.disk.live[path.name] = Inode()
            self._renamed(path.name)
        inode = self.disk.live.get(path.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return CrashingFile(inode, self)

    def names(self, directory: Path) -> list[str]:
        return list(self.disk.live)

    def rename(self, old: Path, new: Path) -> None:
        self.disk.live[new.name] = self.disk.live.pop(old.name)
        self._renamed(old.name, new.name)

    def unlink(self, path: Path) -> None:
        if self.disk.live.pop(path.name, None) is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        self._renamed(path.name)

    def sync_directory(self, directory: Path) -> None:
        self.disk.durable, self.disk.late = dict(self.disk.live), []

    def space(self, directory: Path) -> Space:
        return self._space

    def descriptor(self, path: Path) -> int:
        descriptor = os.memfd_create("crashing")
        os.pwrite(descriptor, self.disk.live[path.name].live, 0)
        return descriptor

    def _renamed(self, *names: str) -> None:
        self.disk.late += names
        self.changed()


class CrashingFile:
    def __init__(self, inode: Inode, layer: CrashingFiles) -> None:
        self._inode, self._layer = inode, layer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write_at(self, parts: Sequence[memoryview], offset_bytes: int) -> None:
        """In two steps, so that a crash may come between them."""
        data = b"".join(parts)
        half = len(data) // 2
        for at, part in ((0, data[:half]), (half, data[half:])):
            _put(self._inode.live, offset_bytes + at, part)
            self._inode.late.append((offset_bytes + at, part))
            self._layer.changed()

    def read_at(self, buffer: memoryview, offset_bytes: int) -> None:
        found = self._inode.live[offset_bytes : offset_bytes + len(buffer)]
        if len(found) < len(buffer):
            raise OSError(errno.ENODATA, "the file ends before the piece does")
        buffer[:] = found

    def allocate(self, offset_bytes: int, size_bytes: int) -> None:
        wanted = min(offset_bytes + size_bytes, PREALLOCATED_MAX_BYTES)
        self._resize(max(len(self._inode.live), wanted))

    def truncate(self, size_bytes: int) -> None:
        self._resize(size_bytes)

    def _resize(self, size: int) -> None:
        _resize(self._inode.live, size)
        self._inode.late.append(size)
        self._layer.changed()

    def sync(self) -> None:
        self._inode.durable, self._inode.late = bytearray(self._inode.live), []

    def sizes(self) -> tuple[int, int]:
        return len(self._inode.live), len(self._inode.live)


Journals = dict[str, bytes]


@dataclass
class Instant:
    """When a crash may come: the disk, and the oldest journal that may be found then."""

    disk: Disk
    oldest: int
    newest: int


class Recorder:
    """Every instant of a run: the disk after each change, the journal after each commit."""

    def __init__(self, files: CrashingFiles, data_dir: Path) -> None:
        self._files, self._data_dir = files, data_dir
        self.journals: list[Journals] = []
        self.instants: list[Instant] = []
        self._oldest = 0
        files.changed = self.step

    def synced(self) -> None:
        """The journal was synced: no crash takes it back behind this point."""
        self.step()
        self._oldest = len(self.journals) - 1

    def step(self) -> None:
        found = {
            name: (self._data_dir / name).read_bytes()
            for name in JOURNAL_FILES
            if (self._data_dir / name).exists()
        }
        if not found:
            return
        if not self.journals or self.journals[-1] != found:
            self.journals.append(found)
        disk = deepcopy(self._files.disk)
        self.instants.append(Instant(disk, self._oldest, len(self.journals) - 1))

    def lay_out(self, journals: Journals, data_dir: Path) -> None:
        """A data directory as that journal says."""
        data_dir.mkdir(mode=0o700)
        for name, data in journals.items():
            (data_dir / name).write_bytes(data)


def _settled(files: dict[str, bytearray]) -> Disk:
    inodes = {name: Inode(data, bytearray(data)) for name, data in files.items()}
    return Disk(inodes, dict(inodes))


def _put(data: bytearray, offset: int, part: bytes) -> None:
    _resize(data, max(len(data), offset + len(part)))
    data[offset : offset + len(part)] = part


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))
