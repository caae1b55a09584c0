"""Cutting content into pieces, and sets of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.pieces import (
    PIECE_LENGTH_MAX_BYTES,
    PIECE_LENGTH_MIN_BYTES,
    PieceSet,
    extent_pieces,
    piece_count,
    piece_length_for,
    piece_span,
)
from peerd.units import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, 256 * KIB),
        (64 * MIB, 256 * KIB),
        (512 * MIB, 512 * KIB),
        (512 * MIB - 1, 256 * KIB),
        (GIB, MIB),
        (10 * GIB, 8 * MIB),
        (100 * GIB, 16 * MIB),
        (None, MIB),
    ],
)
def test_piece_length_gives_about_a_thousand_pieces(length: int | None, expected: int) -> None:
    assert piece_length_for(length) == expected


@given(st.integers(0, 1 << 45))
def test_piece_lengths_are_powers_of_two_within_bounds(length: int) -> None:
    piece = piece_length_for(length)
    assert PIECE_LENGTH_MIN_BYTES <= piece <= PIECE_LENGTH_MAX_BYTES
    assert piece & (piece - 1) == 0


@given(st.integers(1, 1 << 22), st.integers(1, 1 << 16))
def test_spans_cover_the_content_exactly(length: int, piece: int) -> None:
    count = piece_count(length, piece)
    if count > 300:
        return
    end = 0
    for index in range(count):
        offset, size = piece_span(index, length, piece)
        assert offset == end
        assert size > 0
        end += size
    assert end == length
    with pytest.raises(ValueError, match="no piece"):
        piece_span(count, length, piece)


def test_an_extent_is_a_quarter_percent_and_at_least_one_piece() -> None:
    assert [extent_pieces(n) for n in (1, 256, 1024, 65536)] == [1, 1, 2, 163]


@given(st.integers(1, 70), st.sets(st.integers(0, 69)), st.sets(st.integers(0, 69)))
def test_a_piece_set_is_a_set(count: int, left: set[int], right: set[int]) -> None:
    left, right = ({i for i in s if i < count} for s in (left, right))
    one, two = PieceSet(count, left), PieceSet(count, right)
    assert list(one) == sorted(left)
    assert set(one & two) == left & right
    assert set(one | two) == left | right
    assert set(one - two) == left - right
    assert set(one.missing()) == set(range(count)) - left
    assert one.complete() == (len(left) == count)
    assert PieceSet.from_bytes(one.to_bytes(), count) == one


@given(st.binary(max_size=12), st.integers(0, 80))
def test_a_bitmap_that_does_not_fit_is_refused(data: bytes, count: int) -> None:
    try:
        pieces = PieceSet.from_bytes(data, count)
    except ValueError:
        return
    assert len(data) == (count + 7) // 8
    assert all(index < count for index in pieces)


def test_a_set_can_be_cut_and_grown() -> None:
    pieces = PieceSet(8, [1, 7])
    pieces.cut(4)
    assert (list(pieces), pieces.count, pieces.end()) == ([1], 4, 2)
    pieces.grow(9)
    pieces.add(8)
    assert 8 in pieces
    pieces.discard(100)
    with pytest.raises(ValueError, match="no piece 9"):
        pieces.add(9)
