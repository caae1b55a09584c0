"""The control socket's name in the file system: taken safely, given back at the end.

Always: between the look at an old socket and our own listening, the directory is locked, so that
two daemons that start together never unlink each other's live socket; mode and group stand before
`listen`, and before that nobody can connect; only our own inode is unlinked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from peerd.errors import UsageError
from peerd.gateway.places import check_socket_path

BACKLOG: Final = 128
LOCK_WAIT_S: Final = 5.0
LOCK_PAUSE_S: Final = 0.05


@dataclass(frozen=True)
class ControlSocket:
    """A path to listen on, and who may connect."""

    path: str
    mode: int
    group: str | None

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[trio.SocketListener]:
        """Listens for the length of the block. UsageError says why it cannot."""
        path = check_socket_path(self.path)
        listening = await self._listen(path)
        async with trio.SocketListener(trio.socket.from_stdlib_socket(listening)) as listener:
            inode = _inode(path)
            try:
                yield listener
            finally:
                # Unlinked while it still answers: nobody takes it for a dead daemon's meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if _inode(path) == inode:
                        os.unlink(path)

    async def _listen(self, path: str) -> socket.socket:
        directory = os.path.dirname(path)
        try:
            # Others may enter only where others may connect.
            os.makedirs(directory, mode=0o755 if self.mode & 0o066 else 0o700, exist_ok=True)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                await _lock(lock, directory)
                _clear_stale(path)
                return self._bind(path)
            finally:
                os.close(lock)
        except OSError as error:
            raise UsageError(
                f"the control socket {path} cannot be made: {error.strerror or error}; "
                "choose another with --socket"
            ) from error

    def _bind(self, path: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            group_id = -1 if self.group is None else _group_id(self.group)
            listening.bind(path)
            os.chown(path, -1, group_id)
            os.chmod(path, self.mode)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening


async def _lock(directory_descriptor: int, directory: str) -> None:
    with trio.move_on_after(LOCK_WAIT_S):
        while True:
            try:
                return fcntl.flock(directory_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(LOCK_PAUSE_S)
    raise UsageError(f"another process keeps {directory} locked; choose another --socket")


def _clear_stale(path: str) -> None:
    """Removes the socket of a dead daemon. Only a refused connection proves that it is dead."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"{path} is there and is not a socket; move it or choose --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        os.unlink(path)
    elif result in (0, errno.EAGAIN):  # EAGAIN: its backlog is full.
        raise UsageError(
            f"a daemon already answers on {path}; stop it, or choose another --socket and "
            "--data-dir for this one"
        )
    elif result != errno.ENOENT:
        raise OSError(result, os.strerror(result))


def _group_id(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise UsageError(f"there is no group {group!r} on this machine") from error


def _inode(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
