"""Frames: whatever the cut of the bytes, out comes what went in, or RemoteProtocolError."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.codec import encode
from peerd.errors import RemoteProtocolError
from peerd.ids import PieceIndex, VersionId
from peerd.link import frames
from peerd.link.assembler import CARRY_BYTES, FrameAssembler
from peerd.link.frames import (
    DirectionKey,
    PieceFrame,
    PieceOrder,
    direction_keys,
    encode_attestation,
    message_frame,
    open_frame,
    parse_plaintext,
    ratcheted,
    seal_frame,
    write_piece_head,
)
from peerd.link.messages import Ping, encode_message
from peerd.units import MIB
from tests.link.helper import VERSION, attested

KEY = bytes(range(32))
PLAINTEXTS = st.lists(st.binary(min_size=1, max_size=3 * CARRY_BYTES), min_size=1, max_size=6)


def sealed(plaintext: bytes, key: DirectionKey) -> bytes:
    buffer = bytearray(len(plaintext) + frames.SEAL_BYTES)
    buffer[4 : 4 + len(plaintext)] = plaintext
    assert seal_frame(key, memoryview(buffer), len(plaintext)) == len(buffer)
    return bytes(buffer)


def stream_of(plaintexts: list[bytes]) -> bytes:
    key = DirectionKey(KEY)
    return b"".join(sealed(plaintext, key) for plaintext in plaintexts)


def fed(assembler: FrameAssembler, data: bytes, step: int) -> Iterator[tuple[bytearray, int]]:
    """What comes whole out of `data`, read at most `step` bytes at a time."""
    at = 0
    while at < len(data):
        target = assembler.target()
        part = data[at : at + min(step, len(target))]
        target[: len(part)] = part
        assembler.filled(len(part))
        at += len(part)
        while (frame := assembler.take()) is not None:
            yield frame.buffer, frame.size_bytes


def opened(data: bytes, step: int) -> list[bytes]:
    assembler, key = FrameAssembler(), DirectionKey(KEY)
    found = [
        bytes(open_frame(key, memoryview(buffer)[:size]))
        for buffer, size in fed(assembler, data, step)
    ]
    assembler.end()
    return found


@given(PLAINTEXTS, st.integers(1, 20_000))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    plaintexts: list[bytes], step: int
) -> None:
    assert opened(stream_of(plaintexts), step) == plaintexts


@settings(max_examples=10)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3))
def test_one_byte_at_a_time(plaintexts: list[bytes]) -> None:
    assert opened(stream_of(plaintexts), 1) == plaintexts


@given(PLAINTEXTS, st.data())
def test_a_stream_with_a_tail_gives_its_whole_frames_and_says_that_it_was_cut(
    plaintexts: list[bytes], data: st.DataObject
) -> None:
    whole = stream_of(plaintexts)
    last = len(plaintexts[-1]) + frames.SEAL_BYTES
    cut = whole[: -data.draw(st.integers(1, last - 1))]
    assembler, key = FrameAssembler(), DirectionKey(KEY)
    found = [
        bytes(open_frame(key, memoryview(buffer)[:size]))
        for buffer, size in fed(assembler, cut, 4096)
    ]
    assert found == plaintexts[:-1]
    with pytest.raises(RemoteProtocolError, match="within a frame"):
        assembler.end()


@given(PLAINTEXTS, st.data())
def test_any_flipped_bit_is_an_error_and_never_wrong_data(
    plaintexts: list[bytes], data: st.DataObject
) -> None:
    stream = bytearray(stream_of(plaintexts))
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << bit % 8
    assembler, key, found = FrameAssembler(), DirectionKey(KEY), []

    def read_all() -> None:
        for buffer, size in fed(assembler, bytes(stream), 4096):
            found.append(bytes(open_frame(key, memoryview(buffer)[:size])))
        assembler.end()

    with pytest.raises(RemoteProtocolError):
        read_all()
    assert found == plaintexts[: len(found)]


def test_a_frame_twice_or_out_of_its_turn_is_an_error() -> None:
    first, second = sealed(b"first", key := DirectionKey(KEY)), sealed(b"second", key)
    with pytest.raises(RemoteProtocolError):
        opened(first + first, 100)
    with pytest.raises(RemoteProtocolError):
        opened(second + first, 100)


def test_the_two_directions_have_keys_of_their_own() -> None:
    by_dialler, by_listener = direction_keys(b"d" * 32, b"l" * 32, b"h" * 32)
    assert by_dialler != by_listener
    assert direction_keys(b"l" * 32, b"d" * 32, b"h" * 32) != (by_dialler, by_listener)
    assert direction_keys(b"d" * 32, b"l" * 32, b"H" * 32)[0] != by_dialler


def test_keys_are_those_that_docs_protocol_md_describes() -> None:
    """RFC 5869 by hand, with the vector that the document gives."""

    def expand(key: bytes, info: bytes) -> bytes:
        return hmac.digest(key, info + b"\x01", hashlib.sha256)

    extracted = hmac.digest(b"h" * 32, b"d" * 32 + b"l" * 32, hashlib.sha256)
    by_dialler, by_listener = direction_keys(b"d" * 32, b"l" * 32, b"h" * 32)
    assert by_dialler == expand(extracted, b"peerd/link/1/dialler")
    assert by_listener == expand(extracted, b"peerd/link/1/listener")
    assert ratcheted(by_dialler) == expand(by_dialler, b"peerd/link/1/ratchet")
    frame = message_frame(DirectionKey(by_dialler), encode_message(Ping(7)))
    assert frame.hex() == "00000014b7bac8c116dce1d76918587edb4632d9b996336a"


def test_keys_ratchet_by_counter_and_both_sides_agree() -> None:
    sealing, opening = DirectionKey(KEY, frames_per_key=3), DirectionKey(KEY, frames_per_key=3)
    stream = [sealed(bytes((n,)), sealing) for n in range(1, 11)]
    for n, frame in enumerate(stream, start=1):
        assert open_frame(opening, memoryview(bytearray(frame))) == bytes((n,))
    later = DirectionKey(ratcheted(ratcheted(KEY)))
    later.counter = 7
    assert open_frame(later, memoryview(bytearray(stream[7]))) == bytes((8,))
    never = DirectionKey(KEY)
    never.counter = 3
    with pytest.raises(RemoteProtocolError):
        open_frame(never, memoryview(bytearray(stream[3])))


def test_a_key_ends_after_64_gib_at_the_latest() -> None:
    assert frames.FRAMES_PER_KEY * frames.DATA_MAX_BYTES <= 64 * 1024**3


@pytest.mark.parametrize("length", [0, 16, frames.PLAINTEXT_MAX_BYTES + 17, 0xFFFFFFFF])
def test_a_length_out_of_bounds_is_refused_before_memory_is_taken(length: int) -> None:
    def lend(size: int) -> bytearray:
        raise AssertionError(f"{size} bytes were taken")

    assembler = FrameAssembler(lend)
    assembler.target()[:4] = length.to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError, match="a frame of"):
        assembler.filled(4)


def test_a_large_frame_is_read_into_its_own_buffer() -> None:
    plaintext = b"x" * frames.PLAINTEXT_MAX_BYTES
    assembler = FrameAssembler()
    data = sealed(plaintext, DirectionKey(KEY)) + b"\0\0\0"
    [(buffer, size)] = fed(assembler, data, MIB)
    assert open_frame(DirectionKey(KEY), memoryview(buffer)[:size]) == plaintext
    assert len(assembler.target()) == CARRY_BYTES - 3


# --- what is in them


def piece(
    index: int = 3,
    size: int = 100,
    offset: int = 0,
    data: bytes = b"abc",
    attestation: bytes | None = None,
) -> PieceFrame:
    if attestation is None:
        attestation = encode_attestation(attested(3)) if offset == 0 else b""
    buffer = memoryview(bytearray(2 * MIB))
    at = write_piece_head(buffer, bytes.fromhex(VERSION), index, size, offset, attestation)
    buffer[at : at + len(data)] = data
    frame = parse_plaintext(buffer[: at + len(data)])
    assert isinstance(frame, PieceFrame)
    return frame


def test_a_piece_frame_round_trip() -> None:
    frame = piece(data=b"hello")
    assert (frame.version, frame.index, frame.size_bytes, frame.offset_bytes) == (
        VERSION, 3, 100, 0,
    )  # fmt: skip
    assert frame.attestation == attested(3)
    assert bytes(frame.data) == b"hello"
    assert frame.data.readonly
    assert piece(offset=5).attestation is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": b""},
        {"size": 0},
        {"size": 16 * MIB + 1},
        {"size": 2},
        {"size": 100, "offset": 98},
        {"size": 16 * MIB, "data": bytes(MIB + 1)},
        {"index": 1 << 22},
        {"index": 4},
        {"attestation": b""},
        {"offset": 1, "attestation": encode_attestation(attested(3))},
        {"attestation": b"\xc1"},
        {"attestation": encode([1, 2, 3])},
    ],
)
def test_a_piece_frame_out_of_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        piece(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("plaintext", [b"\0", b"\3abc", b"\1", b"\1\xc1", b"\2", b"\2" + bytes(46)])
def test_a_plaintext_that_is_nothing_is_refused(plaintext: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_plaintext(memoryview(plaintext))


def test_parts_follow_each_other_and_a_new_piece_may_begin_at_any_time() -> None:
    order = PieceOrder()
    order.check(piece(size=6, data=b"abc"))
    order.check(piece(size=6, offset=3, data=b"def"))
    with pytest.raises(RemoteProtocolError, match="out of its order"):
        order.check(piece(size=6, offset=3, data=b"def"))
    order.check(piece(size=6, data=b"abc"))
    order.check(piece(size=9, data=b"abc"))
    for stray in (
        piece(size=6, offset=3),
        piece(size=9, offset=4),
        piece(index=2, size=9, offset=3),
    ):
        with pytest.raises(RemoteProtocolError, match="out of its order"):
            order.check(stray)
    order.check(piece(size=9, offset=3, data=b"def"))


def test_an_attestation_of_any_peer_fits() -> None:
    longest = attested(0)
    frame = PieceFrame(VersionId(VERSION), PieceIndex(0), 1, 0, longest, memoryview(b"x"))
    assert frame.attestation is not None
    assert len(encode(frame.attestation)) + 12 <= frames.ATTESTATION_MAX_BYTES
