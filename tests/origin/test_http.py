"""Content over HTTP, from a real server on loopback with every fault it has."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
import trio

from peerd.errors import (
    OriginBusy,
    OriginChanged,
    OriginCut,
    OriginNotFound,
    OriginRefused,
    OriginUnreachable,
)
from peerd.origin.service import OriginReader
from peerd.task import Ask, ask_for
from tests.origin.server import CONTENT, QUICK, SIZE_BYTES, read_all, rest_of, running

DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


async def test_a_range_says_length_validator_and_that_ranges_work() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader, reader.open(origin.ask(), last_byte=999) as body:
            assert body.facts.length_bytes == SIZE_BYTES
            assert body.facts.validator == f'"{DIGEST[7:]}"'
            assert body.facts.ranged
            assert body.facts.first_byte == 0
            assert await rest_of(body) == CONTENT[:1000]
            assert reader.bytes_read == body.bytes_read == origin.stats.body_bytes == 1000


async def test_the_tail_may_be_shorter_than_asked_for() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader:
            wanted = {"first_byte": SIZE_BYTES - 5, "last_byte": SIZE_BYTES + 1000}
            assert await read_all(reader, origin.ask(), **wanted) == CONTENT[-5:]


async def test_connections_are_used_again_from_range_to_range() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader:
            for first in range(0, SIZE_BYTES, 10_000):
                part = await read_all(
                    reader, origin.ask(), first_byte=first, last_byte=first + 9_999
                )
                assert part == CONTENT[first : first + 10_000]
        assert origin.stats.connections == 1


async def test_an_origin_without_ranges_answers_with_everything() -> None:
    with running(no_range=True) as origin:
        async with (
            OriginReader(QUICK) as reader,
            reader.open(origin.ask(), first_byte=7, last_byte=9) as body,
        ):
            assert not body.facts.ranged
            assert body.facts.first_byte == 0
            assert await rest_of(body) == CONTENT


async def test_content_of_unknown_length_ends_where_it_ends() -> None:
    with running(chunked=True, no_range=True) as origin:
        async with OriginReader(QUICK) as reader, reader.open(origin.ask()) as body:
            assert body.facts.length_bytes is None
            assert await rest_of(body) == CONTENT


async def test_empty_content_is_no_range_and_no_error() -> None:
    with running(size_bytes=0) as origin:
        async with OriginReader(QUICK) as reader:
            for last_byte in (None, 262_143):
                async with reader.open(origin.ask(), last_byte=last_byte) as body:
                    assert body.facts.length_bytes == 0
                    assert await rest_of(body) == b""


async def test_what_is_unchanged_is_not_sent_again() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader:
            async with reader.open(origin.ask(), last_byte=0) as body:
                facts = body.facts
            async with reader.open(origin.ask(), unless=facts.validator) as body:
                assert body.facts.not_modified
                assert await rest_of(body) == b""
            async with reader.open(origin.ask(), unless='"another"') as body:
                assert not body.facts.not_modified


async def test_an_expected_version_is_read_on() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader:
            async with reader.open(origin.ask(), last_byte=9) as body:
                facts = body.facts
            part = await read_all(reader, origin.ask(), first_byte=10, last_byte=19, expect=facts)
            assert part == CONTENT[10:20]


@pytest.mark.parametrize("kind", [{}, {"no_range": True}])
async def test_changed_content_is_not_taken_for_the_old(kind: dict[str, bool]) -> None:
    with running(change_after=1, **kind) as origin:
        async with OriginReader(QUICK) as reader:
            async with reader.open(origin.ask(), last_byte=9) as body:
                facts = body.facts
                await rest_of(body)
            with pytest.raises(OriginChanged):
                await read_all(reader, origin.ask(), first_byte=10, last_byte=19, expect=facts)
            with pytest.raises(OriginChanged):
                await read_all(reader, origin.ask(), expect=facts)


async def test_without_a_validator_the_length_must_fit() -> None:
    with running(no_validator=True) as origin:
        async with OriginReader(QUICK) as reader:
            async with reader.open(origin.ask(), last_byte=9) as body:
                facts = body.facts
            assert facts.validator is None
            assert len(await read_all(reader, origin.ask(), last_byte=9, expect=facts)) == 10
            other = msgspec.structs.replace(facts, length_bytes=SIZE_BYTES - 1)
            with pytest.raises(OriginChanged):
                await read_all(reader, origin.ask(), last_byte=9, expect=other)


async def test_a_cut_body_is_resumed_and_right() -> None:
    with running(cut_after=70_000) as origin:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, origin.ask()) == CONTENT
            part = await read_all(reader, origin.ask(), first_byte=100, last_byte=200_000)
            assert part == CONTENT[100:200_001]
        assert origin.stats.cuts >= 6


async def test_a_body_that_stops_is_resumed_too() -> None:
    with running(stall_after=100_000, stall_times=1) as origin:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, origin.ask()) == CONTENT


async def test_a_body_that_is_silent_is_resumed_long_before_the_origin_counts_as_down() -> None:
    """Under the same lease: what was received is not thrown away."""
    config = msgspec.structs.replace(QUICK, stall_timeout_s=30.0, resume_after_s=0.05)
    with running(stall_after=100_000, stall_times=2) as origin, trio.fail_after(10):
        async with OriginReader(config) as reader, reader.open(origin.ask()) as body:
            assert await rest_of(body) == CONTENT
            assert body.bytes_read == SIZE_BYTES


async def test_cuts_without_progress_end_the_read() -> None:
    with running(cut_after=10) as origin:
        async with OriginReader(QUICK) as reader, reader.open(origin.ask()) as body:
            with pytest.raises(OriginCut, match="again and again"):
                await rest_of(body)
            assert body.bytes_read == 60
        assert origin.stats.cuts == 6


async def test_silence_without_end_is_told_as_such() -> None:
    config = msgspec.structs.replace(QUICK, stall_timeout_s=0.05)
    with running(stall_after=1000) as origin:
        async with OriginReader(config) as reader:
            with pytest.raises(OriginUnreachable, match="stopped sending"):
                await read_all(reader, origin.ask())


@pytest.mark.parametrize(
    "kind", [{"no_range": True}, {"no_validator": True}, {"chunked": True, "no_range": True}]
)
async def test_a_cut_is_told_where_nothing_could_prove_the_rest(kind: dict[str, bool]) -> None:
    with running(cut_after=100_000, **kind) as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginCut, match="cannot resume"):
                await read_all(reader, origin.ask())


async def test_a_known_digest_and_length_allow_to_resume_without_a_validator() -> None:
    with running(cut_after=100_000, no_validator=True) as origin:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, origin.ask(digest=DIGEST)) == CONTENT


async def test_unknown_length_with_a_validator_is_resumed_to_its_end() -> None:
    with running(cut_after=100_000, chunked=True) as origin:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, origin.ask()) == CONTENT


async def test_a_cut_body_that_changed_meanwhile_is_never_mixed() -> None:
    with running(cut_after=100_000, cut_times=1, change_after=50_000) as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginChanged):
                await read_all(reader, origin.ask())


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_origin_is_asked_again(status: int) -> None:
    with running(status_first=(3, status), retry_after="0") as origin:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, origin.ask()) == CONTENT
        assert origin.stats.statuses == {status: 3, 200: 1}
        assert origin.stats.connections == 1


async def test_an_origin_that_stays_busy_is_left_alone() -> None:
    with running(status_first=(1000, 503)) as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginBusy, match="503") as caught:
                await read_all(reader, origin.ask())
            assert caught.value.retry_after_s is None
        assert origin.stats.requests == 1 + QUICK.retries_max


async def test_a_long_retry_after_is_handed_on_at_once() -> None:
    with running(status_first=(1000, 429), retry_after="3600") as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginBusy) as caught:
                await read_all(reader, origin.ask())
            assert caught.value.retry_after_s == 3600.0
        assert origin.stats.requests == 1


async def test_what_is_not_there_and_what_is_refused() -> None:
    with running(require_header=("authorization", "Bearer right")) as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginRefused, match="401"):
                await read_all(reader, origin.ask())
            header = [("Authorization", "Bearer right")]
            assert await read_all(reader, origin.ask(headers=header)) == CONTENT
            missing = ask_for(origin.url + "x?signature=secret", headers=header)
            with pytest.raises(OriginNotFound) as caught:
                await read_all(reader, missing)
            assert "secret" not in str(caught.value)


async def test_nobody_listens() -> None:
    with running() as origin:
        gone = origin.ask()
    async with OriginReader(QUICK) as reader:
        with pytest.raises(OriginUnreachable, match="refused"):
            await read_all(reader, gone)


async def test_a_name_that_nobody_has() -> None:
    async with OriginReader(QUICK) as reader:
        with pytest.raises(OriginUnreachable, match="no machine is known"):
            await read_all(reader, ask_for("http://nobody.invalid/x"))


async def test_a_body_left_early_costs_its_connection_and_no_time() -> None:
    with running(size_bytes=64 << 20) as origin:
        async with OriginReader(QUICK) as reader:
            with trio.fail_after(2):
                async with reader.open(origin.ask()) as body:
                    assert await body.read()
            assert len(await read_all(reader, origin.ask(), last_byte=9)) == 10
        assert origin.stats.connections == 2
        assert origin.stats.body_bytes < 16 << 20


async def test_a_cancelled_read_leaves_the_reader_usable() -> None:
    with running(stall_after=1000, stall_times=1) as origin:
        async with OriginReader(QUICK) as reader:
            with trio.move_on_after(0.1):
                await read_all(reader, origin.ask())
            assert await read_all(reader, origin.ask()) == CONTENT


async def test_no_more_bodies_are_open_than_allowed() -> None:
    config = msgspec.structs.replace(QUICK, connections_max=2)
    with running() as origin:
        async with OriginReader(config) as reader, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(read_all, reader, origin.ask())
        assert origin.stats.connections == 2
        assert origin.stats.body_bytes == 10 * SIZE_BYTES


async def test_a_task_from_elsewhere_cannot_set_our_own_headers() -> None:
    with running() as origin:
        ask = origin.ask()
        spec = msgspec.structs.replace(ask.spec, headers=(("Range", "bytes=5-6"), ("X-A", "b")))
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, Ask(spec)) == CONTENT
        assert origin.stats.ranged == 0
