"""Content of this machine's files: file:// URLs.

Always: only a regular file is read; its validator is made of what changes whenever it is written
(device, inode, time of the last change, size), and is looked at again after every read, so that
bytes of two states never mix. Whether a caller may name a local file is for who calls: never open
a file:// URL that another peer sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes, urlsplit

import trio

from peerd.errors import (
    OriginChanged,
    OriginNotFound,
    OriginRefused,
    OriginUnreachable,
    PeerdError,
    UsageError,
)
from peerd.origin.facts import OriginFacts
from peerd.task import Ask
from peerd.units import MIB

READ_BYTES = MIB
"""One hop to a worker thread for each; Guess."""


class FileOrigin:
    """Back-to-source for file URLs."""

    @asynccontextmanager
    async def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AsyncIterator[FileBody]:
        """See swarm.ports.Origin. The file is closed when the context ends."""
        path = path_of(ask.spec.url)
        descriptor = await trio.to_thread.run_sync(_open, path)
        try:
            state = os.fstat(descriptor)
            facts = _facts(state, path, first_byte, expect, unless)
            end = state.st_size if last_byte is None else min(state.st_size, last_byte + 1)
            if facts.not_modified:
                end = first_byte
            yield FileBody(facts, descriptor, path, end)
        finally:
            os.close(descriptor)


class FileBody:
    """Bytes of an open file, from `facts.first_byte` to before `end_bytes`."""

    def __init__(self, facts: OriginFacts, descriptor: int, path: bytes, end_bytes: int) -> None:
        self.facts = facts
        self.bytes_read = 0
        self._descriptor = descriptor
        self._path = path
        self._end_bytes = end_bytes

    async def read(self) -> bytes:
        """Some bytes in order, b"" at the end."""
        position = self.facts.first_byte + self.bytes_read
        if position >= self._end_bytes:
            return b""
        size = min(READ_BYTES, self._end_bytes - position)
        data = await trio.to_thread.run_sync(self._read_at, position, size)
        self.bytes_read += len(data)
        return data

    def _read_at(self, position: int, size_bytes: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size_bytes, position)
            validator = _validator(os.fstat(self._descriptor))
        except OSError as error:
            raise unreadable(self._path, error) from error
        if not data or validator != self.facts.validator:
            raise _changed(self._path)
        return data


def path_of(url: str) -> bytes:
    """The path that a file URL names; UsageError says why it names none."""
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise UsageError(f"{url} names the machine {parts.netloc}; write file:///path")
    if parts.query or parts.fragment:
        raise UsageError(f"{url}: write ? as %3F and # as %23 in a path")
    path = unquote_to_bytes(parts.path)
    if not path.startswith(b"/") or b"\0" in path:
        raise UsageError(f"{url} names no file; write file:///path")
    return path


def _open(path: bytes) -> int:
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer. It changes nothing for files.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise unreadable(path, error) from error


def _facts(
    state: os.stat_result,
    path: bytes,
    first_byte: int,
    expect: OriginFacts | None,
    unless: str | None,
) -> OriginFacts:
    shown = os.fsdecode(path)
    if stat.S_ISDIR(state.st_mode):
        raise UsageError(f"{shown} is a directory; name a file")
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"{shown} is a device, pipe or socket; name a file")
    validator, size = _validator(state), state.st_size
    if unless == validator:
        return OriginFacts(size, validator, True, first_byte, not_modified=True)
    if expect is not None:
        same_state = expect.validator in (None, validator)
        if not same_state or expect.length_bytes not in (None, size):
            raise _changed(path)
    if first_byte > 0 and first_byte >= size:
        raise _changed(path)
    return OriginFacts(size, validator, True, first_byte)


def _validator(state: os.stat_result) -> str:
    return f'"{state.st_dev:x}-{state.st_ino:x}-{state.st_mtime_ns:x}-{state.st_size:x}"'


def _changed(path: bytes) -> PeerdError:
    return OriginChanged(f"{os.fsdecode(path)} has changed while it was read; start again")


def unreadable(path: bytes, error: OSError) -> PeerdError:
    shown = os.fsdecode(path)
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return OriginNotFound(f"{shown} is not there; check the path")
        case PermissionError():
            return OriginRefused(f"peerd may not read {shown}; change its mode or its owner")
        case _:
            return OriginUnreachable(f"{shown} cannot be read: {error.strerror}; check the disk")
