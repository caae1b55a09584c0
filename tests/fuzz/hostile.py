"""Hostile inputs by the million: a seed from Hypothesis for each hundred, the rest from one rng.

PEERD_FUZZ_EXAMPLES is the number of inputs for each test; `make fuzz` gives a million. A failing
run prints its seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import repeat
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

INPUTS_PER_EXAMPLE = 100
EXAMPLES = max(1, int(os.environ.get("PEERD_FUZZ_EXAMPLES", "10000")) // INPUTS_PER_EXAMPLE)
many = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
seeds = st.integers(0, 2**64 - 1)
ODD = "\r\n\t\0 :;,=/?#@[]%&+\u00a0\u0130\u2100é٣aZ0\ud800"


def inputs(seed: int) -> Iterator[Random]:
    """The same rng, once for each input of an example."""
    return repeat(Random(seed), INPUTS_PER_EXAMPLE)


def odd_text(rng: Random, length_max: int = 30) -> str:
    """Text of what parsers trip over, or of anything."""
    length = rng.randrange(length_max + 1)
    if rng.random() < 0.5:
        return "".join(rng.choices(ODD, k=length))
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) for _ in range(length)
    )


def number(rng: Random) -> int:
    """Small, round, or anywhere in what msgpack carries."""
    return rng.choice(
        (
            rng.randrange(300),
            2 ** rng.randrange(64) - rng.randrange(2),
            rng.getrandbits(64),
            -rng.getrandbits(rng.randrange(1, 64)),
        )
    )


def damaged(rng: Random, originals: Sequence[bytes]) -> bytes:
    """A right value with some bytes changed, taken out, put in, or cut off."""
    data = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0 | 1 | 2:
                data[at : at + 1] = rng.randbytes(1)
            case 3 | 4:
                del data[at : at + rng.randint(1, 8)]
            case 5 | 6:
                data[at:at] = rng.randbytes(rng.randrange(9))
            case _:
                del data[at:]
    return bytes(data)


def tree(rng: Random, leaves: Sequence[Any], depth: int = 3) -> Any:
    """Anything that msgpack can say: right leaves in wrong places among others."""
    kind = rng.randrange(10 if depth else 7)
    if kind >= 7:
        return [tree(rng, leaves, depth - 1) for _ in range(rng.randrange(12))]
    match kind:
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return number(rng)
        case 2:
            return rng.choice((rng.random(), rng.uniform(-1e300, 1e300), float("nan"), -0.0))
        case 3:
            return odd_text(rng).encode(errors="ignore").decode()
        case 4:
            return rng.randbytes(rng.randrange(80))
        case _:
            return rng.choice(leaves)


def hostile(rng: Random, originals: Sequence[bytes], leaves: Sequence[Any]) -> bytes:
    """Noise, a right value that was damaged, or right msgpack of the wrong things."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(300))
    if kind == 1:
        return msgspec.msgpack.encode(tree(rng, leaves))
    return damaged(rng, originals)
