"""Which pieces of a version are held, and which of those are suspect.

    absent ──hold──▶ held ◀──prove── suspect        drop, reshape: held, suspect ──▶ absent
                       └────suspect_all───▲

Always: suspect ⊆ held; every held piece has the size that the version gives it now (content of
unknown length: 1 byte to a full piece, and the size of a piece that is not full is remembered).
Changed on the event loop only; worker threads may ask.
"""

from __future__ import annotations

from collections.abc import Iterable

from peerd.errors import RemoteProtocolError
from peerd.ids import PieceIndex
from peerd.manifest import VersionInfo
from peerd.pieces import PIECE_COUNT_MAX, PieceSet


class PieceStates:
    def __init__(self, info: VersionInfo) -> None:
        self.info = info
        self.held = PieceSet(info.piece_count or 0)
        self.suspect = PieceSet(info.piece_count or 0)
        self._short: dict[int, int] = {}
        self._measure()

    def _measure(self) -> None:
        """`last` is (index, size) of the last piece; (-1, 0) of nothing; None where unknown."""
        count = self.info.piece_count
        self._full = self.info.piece_length_bytes
        self._last: tuple[int, int] | None = None
        if count is not None:
            self._last = (count - 1, self.info.span(count - 1)[1] if count else 0)

    def fits(self, index: int, size_bytes: int) -> bool:
        """Whether a piece of that size has a place in the version as it is known now."""
        if self._last is None:
            return 0 <= index < PIECE_COUNT_MAX and 1 <= size_bytes <= self._full
        end = self._last[0]
        return 0 <= index <= end and size_bytes == (self._last[1] if index == end else self._full)

    def hold(self, index: int, size_bytes: int, *, suspect: bool = False) -> None:
        assert self.fits(index, size_bytes), f"piece {index} of {size_bytes} bytes has no place"
        self.held.grow(index + 1)
        self.suspect.grow(index + 1)
        self.held.add(index)
        (self.suspect.add if suspect else self.suspect.discard)(index)
        self._short.pop(index, None)
        if size_bytes != self.info.piece_length_bytes:
            self._short[index] = size_bytes

    def load(self, rows: Iterable[tuple[int, int, bool]], file_size_bytes: int) -> list[PieceIndex]:
        """Holds (index, size, suspect) as a journal lists them; returns those without a place.

        In one go, because a journal may list millions: adding to a PieceSet costs its whole size.
        """
        full, fits = self.info.piece_length_bytes, self.fits
        held: dict[int, bool] = {}
        lost: list[PieceIndex] = []
        for index, size, suspect in rows:
            if index * full + size <= file_size_bytes and fits(index, size):
                held[index] = suspect
                if size != full:
                    self._short[index] = size
            else:
                lost.append(PieceIndex(index))
        count = self.info.piece_count
        own = max(held, default=-1) + 1 if count is None else count
        self.held = _set_of(held, own)
        self.suspect = _set_of((index for index, suspect in held.items() if suspect), own)
        return lost

    def hold_all(self) -> None:
        """A complete version, whose pieces are not listed one by one."""
        count, length = self.info.piece_count, self.info.length_bytes
        assert count is not None, "complete without a length"
        assert length is not None, "complete without a length"
        self.held = PieceSet.full(count)
        if length % self.info.piece_length_bytes:
            self._short = {count - 1: self.info.span(count - 1)[1]}

    def size_of(self, index: int) -> int:
        """Bytes of a held piece."""
        return self._short.get(index, self.info.piece_length_bytes)

    def held_bytes(self) -> int:
        full = self.info.piece_length_bytes
        return len(self.held) * full - sum(full - size for size in self._short.values())

    def prove(self, index: int) -> None:
        self.suspect.discard(index)

    def suspect_all(self) -> None:
        self.suspect = self.held.copy()

    def drop(self, indices: Iterable[int]) -> list[PieceIndex]:
        """Those of them that were held, and are no more."""
        gone = [PieceIndex(index) for index in indices if index in self.held]
        for index in gone:
            self.held.discard(index)
            self.suspect.discard(index)
            self._short.pop(index, None)
        self._cut()
        return gone

    def reshape(self, info: VersionInfo) -> list[PieceIndex]:
        """The version as it is known now; returns the pieces that it has no place for any more."""
        same_cut = info.piece_length_bytes == self.info.piece_length_bytes
        sizes = {index: self.size_of(index) for index in self.held} if same_cut else {}
        misfits = PieceStates(info)
        gone = self.drop(i for i in self.held if i not in sizes or not misfits.fits(i, sizes[i]))
        self.info = info
        self._measure()
        self._cut()
        return gone

    def _cut(self) -> None:
        """Both sets count the version's pieces; without a length, up to the last one held."""
        count = self.info.piece_count
        own = self.held.end() if count is None else count
        for pieces in (self.held, self.suspect):
            pieces.cut(own)
            pieces.grow(own)

    def yields_to(self, info: VersionInfo) -> bool:
        """Whether what is known gives way to another's word: nothing known yet, or nothing held."""
        if not tells_more(self.info, info):
            return False
        return self.info.length_bytes is None or not self.held

    def validate(self) -> None:
        assert not self.suspect - self.held, "suspect pieces that are not held"
        assert all(self.fits(i, self.size_of(i)) for i in self.held), "a piece without a place"
        assert all(i in self.held for i in self._short), "a size of a piece that is not held"


def tells_more(known: VersionInfo, told: VersionInfo) -> bool:
    """Whether `told` gives another length or cut. A length once known stays: None is no news."""
    shape = (told.length_bytes, told.piece_length_bytes)
    return told.length_bytes is not None and shape != (known.length_bytes, known.piece_length_bytes)


def _set_of(indices: Iterable[int], count: int) -> PieceSet:
    bits = bytearray((count + 7) // 8)
    for index in indices:
        bits[index >> 3] |= 1 << (index & 7)
    return PieceSet.from_bytes(bytes(bits), count)


def check_successor(known: VersionInfo, told: VersionInfo, *, complete: bool) -> None:
    """RemoteProtocolError unless `told` may take the place of what is known of this version."""
    if (known.task, known.version, known.digest) != (told.task, told.version, told.digest):
        raise RemoteProtocolError(
            f"{told.attester} vouched for version {told.version[:12]} as another content"
        )
    if complete and tells_more(known, told):
        raise RemoteProtocolError(
            f"{told.attester} gave version {told.version[:12]} another length than it has"
        )
    if told.piece_count is not None and told.piece_count > PIECE_COUNT_MAX:
        raise RemoteProtocolError(f"a version of {told.piece_count} pieces")
