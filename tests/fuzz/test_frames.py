"""Bytes of anybody's choice into everything that reads a link's bytes.

PEERD_FUZZ_EXAMPLES is the number of inputs for each test (a million in `make fuzz`); Hypothesis
draws a seed for each hundred of them.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.codec import encode
from peerd.errors import RemoteProtocolError
from peerd.link.assembler import CARRY_BYTES, FrameAssembler
from peerd.link.frames import (
    PLAINTEXT_MAX_BYTES,
    SEAL_BYTES,
    DirectionKey,
    PieceFrame,
    open_frame,
    parse_plaintext,
    seal_frame,
    write_piece_head,
)
from peerd.units import MIB
from tests.link.helper import VERSION, attested

INPUTS_PER_EXAMPLE = 100
EXAMPLES = max(1, int(os.environ.get("PEERD_FUZZ_EXAMPLES", "10000")) // INPUTS_PER_EXAMPLE)
many = settings(
    max_examples=EXAMPLES, deadline=10_000, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
KEY = b"k" * 32
ATTESTATIONS = (b"", encode(attested(3)), encode(attested(4)), b"\x95", b"\xc1")


def number(rng: random.Random) -> int:
    return rng.choice((rng.randrange(300), rng.getrandbits(32), 2 ** rng.randrange(32)))


def some_stream(rng: random.Random) -> bytes:
    """Lengths that may be right, and bytes."""
    parts = []
    for _ in range(rng.randint(1, 5)):
        near = PLAINTEXT_MAX_BYTES + rng.randint(-8, 24)
        length = rng.choice((rng.randrange(64), rng.getrandbits(32), near))
        parts += [length.to_bytes(4, "big"), rng.randbytes(rng.randrange(100))]
    return b"".join(parts)


@many
@given(st.integers(0, 2**64 - 1))
def test_a_stream_of_anything(seed: int) -> None:
    """Bounded memory, every byte in at most one frame, and nothing opens."""
    rng = random.Random(seed)
    for _ in range(INPUTS_PER_EXAMPLE):
        _assemble(some_stream(rng))


def _assemble(data: bytes) -> None:
    def lend(size: int) -> bytearray:
        assert size <= PLAINTEXT_MAX_BYTES + SEAL_BYTES + CARRY_BYTES
        return bytearray(size)

    assembler = FrameAssembler(lend)
    at = whole = 0
    try:
        while at < len(data):
            target = assembler.target()
            part = data[at : at + len(target)]
            target[: len(part)] = part
            at += len(part)
            assembler.filled(len(part))
            while (frame := assembler.take()) is not None:
                whole += frame.size_bytes
                _must_not_open(frame.buffer, frame.size_bytes)
        assembler.end()
    except RemoteProtocolError:
        pass
    assert whole <= len(data)


def _must_not_open(buffer: bytearray, size: int) -> None:
    try:
        open_frame(DirectionKey(KEY), memoryview(buffer)[:size])
    except RemoteProtocolError:
        return
    raise AssertionError("a frame that nobody sealed was opened")


def some_plaintext(rng: random.Random) -> bytes:
    """Nearly right: a type, a header whose numbers may be anything, an attestation or so."""
    if rng.random() < 0.3:
        return bytes((rng.choice((0, 1, 2, 3, 255)),)) + rng.randbytes(rng.randrange(200))
    buffer = memoryview(bytearray(2000))
    numbers = number(rng), number(rng), rng.choice((0, number(rng)))
    end = write_piece_head(buffer, bytes.fromhex(VERSION), *numbers, rng.choice(ATTESTATIONS))
    plaintext = bytearray(buffer[:end]) + rng.randbytes(rng.randrange(100))
    if rng.random() < 0.5:
        plaintext[rng.randrange(len(plaintext))] ^= 1 << rng.randrange(8)
    return bytes(plaintext)


@many
@given(st.integers(0, 2**64 - 1))
def test_a_plaintext_of_anything(seed: int) -> None:
    """Also a member may lie: what a right seal covers can still be anything."""
    rng = random.Random(seed)
    for _ in range(INPUTS_PER_EXAMPLE):
        _parse(some_plaintext(rng))


def _parse(plaintext: bytes) -> None:
    buffer = bytearray(len(plaintext) + SEAL_BYTES)
    buffer[4 : 4 + len(plaintext)] = plaintext
    seal_frame(DirectionKey(KEY), memoryview(buffer), len(plaintext))
    opened = open_frame(DirectionKey(KEY), memoryview(buffer))
    assert opened.tobytes() == plaintext
    try:
        parsed = parse_plaintext(opened)
    except RemoteProtocolError:
        return
    if isinstance(parsed, PieceFrame):
        assert 1 <= len(parsed.data) <= parsed.size_bytes - parsed.offset_bytes, plaintext.hex()
        assert parsed.size_bytes <= 16 * MIB
        assert (parsed.attestation is not None) == (parsed.offset_bytes == 0)
