"""The twin in memory does on order what origins do by accident."""

from __future__ import annotations

import pytest
import trio

from peerd.errors import OriginBusy, OriginCut, OriginRefused
from peerd.origin.memory import MemoryOrigin
from peerd.task import ask_for
from tests.origin.server import CONTENT, read_all

URL = "https://origin/x"
ASK = ask_for(URL)


async def test_it_counts_what_it_gave() -> None:
    origin = MemoryOrigin({URL: CONTENT})
    await read_all(origin, ASK, first_byte=10, last_byte=19)
    await read_all(origin, ASK)
    assert origin.bytes_read == origin.bytes_by_url[URL] == len(CONTENT) + 10
    assert [(read.first_byte, read.last_byte) for read in origin.reads] == [(10, 19), (0, None)]


async def test_it_fails_cuts_and_refuses_on_order() -> None:
    origin = MemoryOrigin({URL: CONTENT})
    origin.fail_next(OriginBusy("busy"))
    with pytest.raises(OriginBusy):
        await read_all(origin, ASK)
    origin.cut_next(after_bytes=1000)
    with pytest.raises(OriginCut):
        await read_all(origin, ASK)
    assert origin.bytes_read == 1000
    origin.refused.add(URL)
    with pytest.raises(OriginRefused):
        await read_all(origin, ASK)
    origin.refused.clear()
    assert await read_all(origin, ASK) == CONTENT


async def test_it_can_be_without_ranges_length_and_validators() -> None:
    origin = MemoryOrigin({URL: CONTENT}, ranged=False, unknown_length=True, validators=False)
    async with origin.open(ASK, first_byte=5, last_byte=9) as body:
        assert not body.facts.ranged
        assert body.facts.first_byte == 0
        assert body.facts.length_bytes is None
        assert body.facts.validator is None


async def test_it_wants_a_header() -> None:
    origin = MemoryOrigin({URL: CONTENT}, required_header=("authorization", "s"))
    with pytest.raises(OriginRefused):
        await read_all(origin, ASK)
    ask = ask_for(URL, headers=[("Authorization", "s")])
    assert await read_all(origin, ask) == CONTENT


async def test_it_takes_its_time_on_a_jumping_clock(autojump_clock: trio.testing.MockClock) -> None:
    origin = MemoryOrigin({URL: CONTENT}, delay_s=5.0, rate_bytes_s=1000.0)
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read_all, origin, ASK)
    assert trio.current_time() - before == pytest.approx(5.0 + len(CONTENT) / 1000.0)
    assert origin.open_bodies_max == 3
    assert origin.open_bodies == 0
