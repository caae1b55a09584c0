"""Where a download goes: a file, a directory, standard output or a device.

Always: a file appears whole or not at all: written under a temporary name beside its place, then
renamed; what was there before stays until then. Not fsynced, like cp: the daemon holds the content
and gives it again, and a plain download, which `get` must not be slower than, does not either.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from peerd.errors import Cancelled, NoSpace, StoreDamaged, UsageError

FICLONE: Final = 0x40049409
"""_IOW(0x94, 9, int) of linux/fs.h: ioctl_ficlone(2)."""
COPY_STEP_BYTES: Final = 64 << 20
"""Between two system calls Ctrl-C is heard."""
READ_STEP_BYTES: Final = 1 << 20
NAME_MAX_BYTES: Final = 255
_UNSUPPORTED: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADF,
     errno.EPERM, errno.ETXTBSY}
)  # fmt: skip
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Target:
    """`path` of "-" is standard output; `direct`: written in place (a pipe, a device)."""

    path: str
    direct: bool

    def check(self) -> None:
        """UsageError, before anything was fetched, where it cannot be written."""
        if self.direct:
            return
        try:
            descriptor, temporary = self._temporary()
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {_words(error)}") from error
        os.close(descriptor)
        os.unlink(temporary)

    def write(self, source: int, size_bytes: int) -> None:
        """Copies the content there. NoSpace; Cancelled where nobody reads the pipe any more."""
        try:
            if self.direct:
                self._write_direct(source, size_bytes)
            else:
                self._write_file(source, size_bytes)
        except BrokenPipeError as error:
            raise Cancelled("the reader of the output closed it before the end") from error
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace(
                    f"no space for {size_bytes} bytes at {self.path}; free some and run the "
                    "command again: the daemon holds the content"
                ) from error
            raise UsageError(f"{self.path} cannot be written: {_words(error)}") from error

    def _write_direct(self, source: int, size_bytes: int) -> None:
        if self.path == "-":
            sys.stdout.flush()
            return copy(source, sys.stdout.fileno(), size_bytes)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            copy(source, descriptor, size_bytes)
        finally:
            os.close(descriptor)

    def _write_file(self, source: int, size_bytes: int) -> None:
        descriptor, temporary = self._temporary()
        try:
            try:
                copy(source, descriptor, size_bytes)
                self._keep_mode(descriptor)
            finally:
                os.close(descriptor)  # Before the rename: some file systems report errors here.
            os.replace(temporary, self.path)
        except BaseException:  # Ctrl-C too: no half file is left.
            os.unlink(temporary)
            raise

    def _temporary(self) -> tuple[int, str]:
        directory, name = os.path.split(self.path)
        ending = f".peerd-{os.urandom(4).hex()}"
        stem = os.fsencode(name)[: NAME_MAX_BYTES - len(ending) - 1].decode(errors="ignore")
        path = os.path.join(directory, f".{stem}{ending}")
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path

    def _keep_mode(self, descriptor: int) -> None:
        """A file that is replaced keeps its mode, as if it had been written over."""
        try:
            mode = stat.S_IMODE(os.stat(self.path).st_mode) & 0o777
        except FileNotFoundError:
            return
        os.fchmod(descriptor, mode)


def target_for(output: str, url: str) -> Target:
    """Where -O PATH leads. A link is followed: the file behind it is replaced, not the link."""
    if output == "-":
        return Target("-", direct=True)
    path = os.path.realpath(os.path.expanduser(output))
    if output.endswith("/") or os.path.isdir(path):
        if not os.path.isdir(path):
            raise UsageError(f"there is no directory {output}; make it, or name a file with -O")
        path = os.path.join(path, name_from(url))
        if os.path.isdir(path):
            raise UsageError(f"{path} is a directory; name a file with -O")
    # Renaming over /dev/null or a pipe would replace the device itself.
    special = os.path.exists(path) and not os.path.isfile(path)
    return Target(path, direct=special)


def name_from(url: str) -> str:
    """The last part of the URL's path; UsageError where it names no file."""
    try:
        name = unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError as error:
        raise UsageError(f"{url!r} is no URL: {error}") from error
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise UsageError(f"{url} names no file; name one with -O PATH")
    return name


def copy(source: int, target: int, size_bytes: int) -> None:
    """All of `source` to `target`, the cheapest way that the file systems know.

    A reflink shares the blocks and copies nothing; copy_file_range stays in the kernel, and on
    some file systems on the server; sendfile takes any target; reading and writing always works.
    """
    if size_bytes and _reflinked(source, target, size_bytes):
        return
    done = 0
    for step in (_copy_file_range, os.sendfile, _read_write):
        done = _copied(step, source, target, done, size_bytes)
    if done < size_bytes:
        raise StoreDamaged("the daemon's copy is shorter than it said; run the command again")


def _reflinked(source: int, target: int, size_bytes: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return os.fstat(target).st_size == size_bytes


_Step = Callable[[int, int, int, int], int]


def _copied(step: _Step, source: int, target: int, done: int, size_bytes: int) -> int:
    """How far `step` came: to the end, or to where it is not supported."""
    while done < size_bytes:
        try:
            moved = step(target, source, done, min(COPY_STEP_BYTES, size_bytes - done))
        except OSError as error:
            if error.errno in _UNSUPPORTED and step is not _read_write:
                break
            raise
        if moved == 0:
            break
        done += moved
    return done


def _copy_file_range(target: int, source: int, offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count, offset_src=offset)


def _read_write(target: int, source: int, offset: int, count: int) -> int:
    data = os.pread(source, min(READ_STEP_BYTES, count), offset)
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return len(data)


def _words(error: OSError) -> str:
    return error.strerror or str(error)
