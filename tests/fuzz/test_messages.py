"""Bytes of anybody's choice into the decoder of link messages.

PEERD_FUZZ_EXAMPLES is the number of inputs for each test (a million in `make fuzz`); Hypothesis
draws a seed for each hundred of them.
"""

from __future__ import annotations

import os
import random
import resource

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.errors import RemoteProtocolError
from peerd.link.messages import decode_message, encode_message
from tests.link.samples import SAMPLES

INPUTS_PER_EXAMPLE = 100
EXAMPLES = max(1, int(os.environ.get("PEERD_FUZZ_EXAMPLES", "20000")) // INPUTS_PER_EXAMPLE)
many = settings(
    max_examples=EXAMPLES, deadline=5000, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
MEMORY_MAX_KIB = 256 * 1024
CORPUS = [encode_message(sample) for sample in SAMPLES]
TELLING = bytes.fromhex("808f909fa0bfc0c1c2c4c6c9cacbcccfd0d3d9dbdcdddedfff")
"""Bytes that begin something in msgpack."""


def mutated(rng: random.Random) -> bytes:
    """A right message with one to eight things wrong with it."""
    data = bytearray(rng.choice(CORPUS))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice(TELLING)
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                data[at:at] = rng.randbytes(rng.randint(1, 9))
            case 4:
                data[at:at] = bytes((rng.choice(TELLING),)) + rng.randbytes(4)
            case 5:
                other = rng.choice(CORPUS)
                data[at:] = other[rng.randrange(len(other)) :]
            case _:
                data[at : at + 8] = (2 ** rng.randrange(64)).to_bytes(8, "big")
    return bytes(data)


@many
@given(st.integers(0, 2**64 - 1))
def test_a_message_with_something_wrong_is_a_message_or_an_error(seed: int) -> None:
    rng = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(INPUTS_PER_EXAMPLE):
        _decodes_or_refuses(mutated(rng))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_MAX_KIB


@many
@given(st.integers(0, 2**64 - 1))
def test_random_bytes_are_an_error(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(INPUTS_PER_EXAMPLE):
        _decodes_or_refuses(rng.randbytes(rng.randint(0, 200)))


@settings(max_examples=min(EXAMPLES, 1000), deadline=5000, database=None)
@given(st.integers(1, 250_000))
def test_depth_is_no_crash(depth: int) -> None:
    _decodes_or_refuses(b"\x91" * depth)
    _decodes_or_refuses(b"\x81\x01" * (depth // 2))


def _decodes_or_refuses(data: bytes) -> None:
    try:
        message = decode_message(data)
    except RemoteProtocolError:
        return
    encoded = encode_message(message)
    assert encode_message(decode_message(encoded)) == encoded, data.hex()
