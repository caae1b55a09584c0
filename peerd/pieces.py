"""How content is cut into pieces and extents, and sets of pieces.

Always: piece i covers bytes [i·L, min((i+1)·L, length)); a PieceSet holds only indices in
[0, count).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from peerd.ids import PieceIndex
from peerd.units import KIB, MIB

PIECE_LENGTH_MIN_BYTES: Final = 256 * KIB
PIECE_LENGTH_MAX_BYTES: Final = 16 * MIB
PIECES_WANTED: Final = 1024
"""The number of pieces decides how near the bound a swarm ends: 64 peers, simulated, 256 pieces
1.15, 512 → 1.08, 1,024 → 1.045 (docs/adr/0003)."""
PIECE_LENGTH_UNKNOWN_BYTES: Final = 1 * MIB
"""Where the length is not known beforehand."""
EXTENT_SHARE: Final = 0.0025
"""A lease covers at most this share of the content, and at least one piece (docs/adr/0005)."""
PIECE_COUNT_MAX: Final = 1 << 22
"""64 TiB in 16 MiB pieces: what a bitmap of 512 KiB holds."""


def piece_length_for(length_bytes: int | None) -> int:
    """floor_pow2(length / 1024), clamped to 256 KiB … 16 MiB; 1 MiB where length is unknown."""
    if length_bytes is None:
        return PIECE_LENGTH_UNKNOWN_BYTES
    wanted = length_bytes // PIECES_WANTED
    power = 1 << (wanted.bit_length() - 1) if wanted else 0
    return max(PIECE_LENGTH_MIN_BYTES, min(PIECE_LENGTH_MAX_BYTES, power))


def piece_count(length_bytes: int, piece_length_bytes: int) -> int:
    """Pieces of content of that length; empty content has none."""
    return -(-length_bytes // piece_length_bytes)


def piece_span(index: int, length_bytes: int, piece_length_bytes: int) -> tuple[int, int]:
    """(offset, size) of a piece in bytes; ValueError if there is no such piece."""
    offset = index * piece_length_bytes
    if index < 0 or offset >= length_bytes:
        raise ValueError(f"no piece {index} in {length_bytes} bytes")
    return offset, min(piece_length_bytes, length_bytes - offset)


def extent_pieces(count: int) -> int:
    """Pieces in one extent of content with `count` pieces."""
    return max(1, int(count * EXTENT_SHARE))


class PieceSet:
    """A set of pieces of one version, as a bitmap.

    On the wire: little-endian bytes, bit i of byte i//8 is piece i; unused bits are 0.
    """

    __slots__ = ("_bits", "count")

    def __init__(self, count: int, members: Iterable[int] = ()) -> None:
        self.count = count
        self._bits = 0
        for index in members:
            self.add(index)

    @classmethod
    def full(cls, count: int) -> PieceSet:
        pieces = cls(count)
        pieces._bits = (1 << count) - 1
        return pieces

    @classmethod
    def from_bytes(cls, data: bytes, count: int) -> PieceSet:
        """ValueError where the size or an unused bit does not fit `count`."""
        if len(data) != (count + 7) // 8:
            raise ValueError(f"bitmap of {len(data)} bytes for {count} pieces")
        bits = int.from_bytes(data, "little")
        if bits >> count:
            raise ValueError("bitmap names pieces beyond the end")
        pieces = cls(count)
        pieces._bits = bits
        return pieces

    @classmethod
    def of(cls, bits: int, count: int) -> PieceSet:
        """The set whose members are the bits of a number, which has none beyond `count`."""
        pieces = cls(count)
        pieces._bits = bits
        return pieces

    @property
    def bits(self) -> int:
        """Bit i stands for piece i: for sums over whole sets."""
        return self._bits

    def to_bytes(self) -> bytes:
        return self._bits.to_bytes((self.count + 7) // 8, "little")

    def add(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise ValueError(f"no piece {index} of {self.count}")
        self._bits |= 1 << index

    def add_run(self, first: int, end: int) -> None:
        """Pieces [first, end), all at once."""
        if not 0 <= first <= end <= self.count:
            raise ValueError(f"no pieces [{first}, {end}) of {self.count}")
        self._bits |= ((1 << (end - first)) - 1) << first

    def add_all(self, bits: int) -> int:
        """All pieces that are bits of a number; returns those that were not in it."""
        if bits >> self.count:
            raise ValueError(f"pieces beyond {self.count}")
        fresh = bits & ~self._bits
        self._bits |= fresh
        return fresh

    def discard(self, index: int) -> None:
        if 0 <= index < self.count:
            self._bits &= ~(1 << index)

    def grow(self, count: int) -> None:
        """Content of unknown length got longer."""
        self.count = max(self.count, count)

    def cut(self, count: int) -> None:
        """Content of unknown length ended earlier than somebody claimed."""
        self.count = min(self.count, count)
        self._bits &= (1 << self.count) - 1

    def end(self) -> int:
        """One more than the highest member; 0 of an empty set."""
        return self._bits.bit_length()

    def copy(self) -> PieceSet:
        return self.of(self._bits, self.count)

    def missing(self) -> PieceSet:
        return self.of(((1 << self.count) - 1) & ~self._bits, self.count)

    def complete(self) -> bool:
        return self._bits == (1 << self.count) - 1

    def __and__(self, other: PieceSet) -> PieceSet:
        return self.of(self._bits & other._bits, min(self.count, other.count))

    def __or__(self, other: PieceSet) -> PieceSet:
        return self.of(self._bits | other._bits, max(self.count, other.count))

    def __sub__(self, other: PieceSet) -> PieceSet:
        return self.of(self._bits & ~other._bits, self.count)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and 0 <= index < self.count and bool(self._bits >> index & 1)

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __bool__(self) -> bool:
        return self._bits != 0

    def __iter__(self) -> Iterator[PieceIndex]:
        data = self.to_bytes()
        for byte_index, byte in enumerate(data):
            while byte:
                low = byte & -byte
                yield PieceIndex(byte_index * 8 + low.bit_length() - 1)
                byte ^= low

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PieceSet) and (self._bits, self.count) == (
            other._bits,
            other.count,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PieceSet({len(self)} of {self.count})"
