"""Reading a content in order, from any place, while it is still being downloaded.

Always: a part is named only once its piece is held, so its digest was right; the last piece of
content whose whole digest is known is named when that was right, too, and the last part only if
all that was named before is still what is held: who trusted a member that lied is cut short, and
never gets to the end; another version never goes on where one began.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

import trio

from peerd.errors import OriginChanged, PeerdError, RemoteProtocolError, StoreDamaged
from peerd.ids import PieceIndex
from peerd.manifest import VersionInfo
from peerd.swarm import events as ev
from peerd.swarm.ports import StoredVersion
from peerd.units import MIB

AHEAD_BYTES: Final = 8 * MIB
"""What a reader says it needs next. Guess: a tenth of a second of 1 Gbit/s is 12 MB."""
AHEAD_MIN: Final = 2
"""Pieces, where they are large: the next one is asked for while this one comes."""

_numbers = count(1)


class News:
    """Wakes all who wait for it, each time that something happened."""

    def __init__(self) -> None:
        self._next = trio.Event()

    def tell(self) -> None:
        self._next.set()
        self._next = trio.Event()

    @property
    def next(self) -> trio.Event:
        """Set when something happens from now on."""
        return self._next


class Source(Protocol):
    """What reading along needs from a download (run.TaskRun)."""

    stored: StoredVersion | None
    error: PeerdError | None
    finished: trio.Event
    news: News

    def post(self, event: ev.Event) -> None: ...


@dataclass(frozen=True)
class Part:
    """`size_bytes` from `offset_bytes` on of one piece, ready to be read from the store."""

    stored: StoredVersion
    index: PieceIndex
    offset_bytes: int
    size_bytes: int


async def opened(source: Source) -> StoredVersion:
    """The version, once it is known; raises the download's error if that comes first."""
    while source.stored is None:
        news = source.news.next
        if source.error is not None:
            raise source.error
        await news.wait()
    return source.stored


async def parts(
    source: Source, stored: StoredVersion, first_byte: int = 0, last_byte: int | None = None
) -> AsyncGenerator[Part, None]:
    """The bytes from the first to the last one, inclusive (None: to the end), in order.

    Raises the download's error if it fails before, OriginChanged if another version took its
    place, StoreDamaged where a held piece is not any more what it was; RemoteProtocolError, in
    place of the last part, if one that was given away before was vouched for wrongly. Closed, or
    at its end: nothing is waited for on its behalf any more.
    """
    reader, place = next(_numbers), first_byte
    end = None if last_byte is None else last_byte + 1
    given: dict[PieceIndex, bytes] = {}
    try:
        while True:
            part = await _next(source, stored, reader, place, last_byte)
            if part is None:
                return
            place += part.size_bytes
            if place in (stored.info.length_bytes, end):
                _still_so(stored, given)
            made = stored.attestation(part.index)
            if made is not None:
                given[part.index] = made.digest
            yield part
    finally:
        source.post(ev.ReaderAt(reader, 0, 0))


async def _next(
    source: Source, stored: StoredVersion, reader: int, place: int, last_byte: int | None
) -> Part | None:
    """What begins at that byte, as soon as it can be had; None at the end."""
    waiting = False
    while True:
        news = source.news.next
        if source.error is not None:
            raise source.error
        if source.stored is not stored:
            raise OriginChanged("the content changed while it was read; read it again")
        info = stored.info
        if last_byte is not None and place > last_byte:
            return None
        if info.length_bytes is not None and place >= info.length_bytes:
            return None
        index = PieceIndex(place // info.piece_length_bytes)
        if index in stored.held and _may_end(source, info, index):
            if await stored.check(index):
                return _part(stored, index, place, last_byte)
            if source.finished.is_set():
                raise source.error or StoreDamaged(f"piece {index} is damaged on this disk")
            # Whoever vouched for it lied: it comes again, from another.
        if not waiting:
            waiting = True
            ahead = max(AHEAD_MIN, AHEAD_BYTES // info.piece_length_bytes)
            source.post(ev.ReaderAt(reader, index, ahead))
        await news.wait()


def _still_so(stored: StoredVersion, given: dict[PieceIndex, bytes]) -> None:
    for index, digest in given.items():
        made = stored.attestation(index)
        if made is None or made.digest != digest:
            raise RemoteProtocolError(f"piece {index} was vouched for wrongly; read it again")


def _may_end(source: Source, info: VersionInfo, index: int) -> bool:
    """Whether that piece may be given away: the last one once the whole is known to be right."""
    if info.digest is None or source.finished.is_set():
        return True
    return info.piece_count is not None and index + 1 < info.piece_count


def _part(stored: StoredVersion, index: PieceIndex, place: int, last_byte: int | None) -> Part:
    begin, size = stored.info.span(index)
    end = begin + size if last_byte is None else min(begin + size, last_byte + 1)
    return Part(stored, index, place - begin, end - place)
