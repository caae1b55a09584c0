"""The file system, as the store sees it: the one module here that opens files of content.

Always: every file is opened without following a symbolic link, and closed with its `with` block;
`write_at` and `read_at` do all of it or raise. The test twin (tests/store/crashing.py) forgets what
was not synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, Self

from peerd.errors import NoSpace
from peerd.store.layout import FILE_MODE, Space

BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")
_IOV_MAX: Final = 1024
"""Linux, UIO_MAXIOV: buffers in one pwritev."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FLAGS: Final = {"r": os.O_RDONLY, "w": os.O_RDWR, "x": os.O_RDWR | os.O_CREAT | os.O_EXCL}


class File(Protocol):
    """An open file; blocking."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def write_at(self, parts: Sequence[memoryview], offset_bytes: int) -> None: ...
    def read_at(self, buffer: memoryview, offset_bytes: int) -> None: ...
    def allocate(self, offset_bytes: int, size_bytes: int) -> None: ...
    def truncate(self, size_bytes: int) -> None: ...
    def sync(self) -> None: ...
    def sizes(self) -> tuple[int, int]:
        """(size, bytes taken from the file system)."""
        ...


class FileLayer(Protocol):
    """Files of content and their directory; blocking, OSError where something fails."""

    def open(self, path: Path, mode: str) -> File:
        """ "r" to read, "w" to write as well, "x" to make it."""
        ...

    def names(self, directory: Path) -> list[str]: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def unlink(self, path: Path) -> None: ...
    def sync_directory(self, directory: Path) -> None: ...
    def space(self, directory: Path) -> Space: ...
    def descriptor(self, path: Path) -> int:
        """A read-only descriptor for somebody else; the caller closes it."""
        ...


class DiskFile:
    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write_at(self, parts: Sequence[memoryview], offset_bytes: int) -> None:
        left = [part for part in parts if len(part)]
        while left:
            done = os.pwritev(self._fd, left[:_IOV_MAX], offset_bytes)
            offset_bytes += done
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if done:
                left[0] = left[0][done:]

    def read_at(self, buffer: memoryview, offset_bytes: int) -> None:
        while len(buffer):
            done = os.preadv(self._fd, [buffer], offset_bytes)
            if not done:
                raise OSError(errno.ENODATA, "the file ends before the piece does")
            buffer, offset_bytes = buffer[done:], offset_bytes + done

    def allocate(self, offset_bytes: int, size_bytes: int) -> None:
        if size_bytes:
            os.posix_fallocate(self._fd, offset_bytes, size_bytes)

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    def sync(self) -> None:
        os.fsync(self._fd)

    def sizes(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_size, found.st_blocks * 512


class DiskFiles:
    """The real one."""

    def open(self, path: Path, mode: str) -> DiskFile:
        return DiskFile(path, FLAGS[mode])

    def names(self, directory: Path) -> list[str]:
        return os.listdir(directory)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def sync_directory(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, directory: Path) -> Space:
        found = os.statvfs(directory)
        return Space(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def descriptor(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def no_space(error: OSError, where: Path) -> NoSpace | None:
    """The sentence for an error that says the disk (or a quota on it) is full."""
    if error.errno not in _FULL:
        return None
    return NoSpace(
        f"no space in {where}: {error.strerror}; remove something (peerd task rm), "
        "or choose another --data-dir"
    )


def machine_boot_id() -> str:
    """Changes when the machine starts; "" where the kernel does not say (then never trusted)."""
    try:
        return BOOT_ID_PATH.read_text().strip()
    except OSError:
        return ""
