"""Origins that contradict themselves or each other: no wrong byte, and a plain sentence."""

from __future__ import annotations

import msgspec
import pytest
import trio

from peerd.errors import (
    OriginChanged,
    OriginCut,
    OriginProtocolError,
    OriginUnreachable,
    UsageError,
)
from peerd.origin.answer import Want
from peerd.origin.facts import OriginFacts
from peerd.origin.service import OriginReader
from peerd.task import ask_for
from tests.origin.scripted import CLOSE, Received, answer, scripted
from tests.origin.server import QUICK, read_all

GARBAGE = b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
WRONG_PARTS = {
    "no Content-Range": answer(206, b"x" * 10),
    "another start": answer(206, b"x" * 10, content_range="bytes 11-20/100"),
    "another end": answer(206, b"x" * 11, content_range="bytes 10-20/100"),
    "too short": answer(206, b"x" * 9, content_range="bytes 10-18/100"),
    "another unit": answer(206, b"x" * 10, content_range="lines 10-19/100"),
    "two ranges": answer(206, b"x" * 10, content_type="multipart/byteranges; boundary=b"),
    "another length": answer(206, b"x" * 12, content_range="bytes 10-19/100"),
    "an end past the total": answer(206, b"x" * 10, content_range="bytes 10-19/15"),
    "unsatisfied for no reason": answer(416, content_range="bytes */100"),
    "no content": answer(204),
    "not modified, unasked": answer(304),
    "transformed": answer(203, b"x" * 10),
    "a length that is none": answer(200, b"", content_length=1 << 60),
}


@pytest.mark.parametrize("wrong", WRONG_PARTS.values(), ids=WRONG_PARTS)
async def test_an_answer_that_does_not_fit_is_refused(wrong: bytes) -> None:
    async with scripted(lambda _: wrong) as server, OriginReader(QUICK) as reader:
        with trio.fail_after(3), pytest.raises(OriginProtocolError):
            await read_all(reader, ask_for(server.url), first_byte=10, last_byte=19)
        assert reader.bytes_read == 0


async def test_a_chunked_range_longer_than_it_said_gives_not_one_byte_more() -> None:
    lie = (
        b"HTTP/1.1 206 Words\r\ntransfer-encoding: chunked\r\ncontent-range: bytes 0-9/100\r\n\r\n"
        b"8\r\n01234567\r\n8\r\n89abcdef\r\n0\r\n\r\n"
    )
    async with scripted(lambda _: lie) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginProtocolError, match="more bytes"):
            await read_all(reader, ask_for(server.url), last_byte=9)
        assert reader.bytes_read == 8


async def test_bytes_after_the_body_are_not_taken_for_the_next_answer() -> None:
    """The excess is a whole valid answer: were the connection used again, it would be believed."""
    smuggled = answer(200, b"wrong")

    def script(request: Received) -> bytes:
        return answer(200, b"right") + (smuggled if len(server.requests) == 1 else b"")

    async with scripted(script) as server, OriginReader(QUICK) as reader:
        for _ in range(3):
            assert await read_all(reader, ask_for(server.url)) == b"right"
        assert server.connections == 2


async def test_a_short_range_is_a_cut() -> None:
    lie = answer(
        206, b"x" * 9, content_range="bytes 0-9/100", content_length=10, connection="close"
    )
    async with scripted(lambda _: lie) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginCut):
            await read_all(reader, ask_for(server.url), last_byte=9)


async def test_a_resumed_part_must_be_what_is_missing() -> None:
    def script(request: Received) -> bytes:
        more = {"etag": '"v"', "connection": "close"}
        if len(server.requests) == 1:
            return answer(206, b"01234", content_range="bytes 0-9/10", content_length=10, **more)
        assert request.headers["range"] == "bytes=5-9"
        assert request.headers["if-range"] == request.headers["if-match"] == '"v"'
        return answer(206, b"34567", content_range="bytes 3-7/10", **more)

    async with scripted(script) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginProtocolError):
            await read_all(reader, ask_for(server.url), last_byte=9)


async def test_a_server_that_ignores_if_range_is_caught_by_its_validator() -> None:
    new = answer(206, b"0123456789", content_range="bytes 0-9/10", etag='"new"')
    old = OriginFacts(10, '"old"', True, 0)
    async with scripted(lambda _: new) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginChanged):
            await read_all(reader, ask_for(server.url), last_byte=9, expect=old)


async def test_an_origin_that_has_another_version_is_asked_not_to_send_it() -> None:
    date = "Mon, 23 Nov 2026 08:00:00 GMT"
    for validator, header in (('"old"', "if-match"), (date, "if-unmodified-since")):
        async with scripted(lambda _: answer(412)) as server, OriginReader(QUICK) as reader:
            expect = OriginFacts(10, validator, True, 0)
            with pytest.raises(OriginChanged):
                await read_all(reader, ask_for(server.url), last_byte=9, expect=expect)
            assert server.requests[0].headers[header] == validator


async def test_a_condition_that_was_not_made_did_not_fail() -> None:
    async with scripted(lambda _: answer(412)) as server, OriginReader(QUICK) as reader:
        for expect in (None, OriginFacts(10, None, True, 0)):
            with pytest.raises(OriginProtocolError, match="412"):
                await read_all(reader, ask_for(server.url), last_byte=9, expect=expect)


async def test_a_weak_validator_is_none() -> None:
    weak = answer(200, b"x", etag='W/"v"')
    async with (
        scripted(lambda _: weak) as server,
        OriginReader(QUICK) as reader,
        reader.open(ask_for(server.url)) as body,
    ):
        assert body.facts.validator is None


async def test_a_range_refused_at_byte_0_is_asked_for_without_one() -> None:
    def script(request: Received) -> bytes:
        return answer(416) if "range" in request.headers else answer(200)

    async with (
        scripted(script) as server,
        OriginReader(QUICK) as reader,
        reader.open(ask_for(server.url), last_byte=262_143) as body,
    ):
        assert body.facts.length_bytes == 0
        assert await body.read() == b""


async def test_an_encoding_that_nobody_asked_for_is_content() -> None:
    packed = answer(200, b"\x1f\x8bxyz", content_encoding="gzip")
    async with scripted(lambda _: packed) as server, OriginReader(QUICK) as reader:
        assert await read_all(reader, ask_for(server.url)) == b"\x1f\x8bxyz"


async def test_what_is_no_http_is_said_to_be_none() -> None:
    async with scripted(lambda _: GARBAGE) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginProtocolError, match="no HTTP"):
            await read_all(reader, ask_for(server.url))


async def test_a_head_without_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000
    async with scripted(lambda _: endless) as server, OriginReader(QUICK) as reader:
        with trio.fail_after(5), pytest.raises(OriginProtocolError):
            await read_all(reader, ask_for(server.url))


async def test_a_connection_closed_without_an_answer_is_tried_again() -> None:
    def script(request: Received) -> bytes:
        return CLOSE if len(server.requests) < 3 else answer(200, b"hello")

    async with scripted(script) as server, OriginReader(QUICK) as reader:
        assert await read_all(reader, ask_for(server.url)) == b"hello"
    async with scripted(lambda _: CLOSE) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginUnreachable, match="without an answer"):
            await read_all(reader, ask_for(server.url))


async def test_silence_is_not_waited_for_without_end() -> None:
    impatient = msgspec.structs.replace(QUICK, stall_timeout_s=0.02)
    async with scripted(lambda _: b"") as server, OriginReader(impatient) as reader:
        with pytest.raises(OriginUnreachable, match="does not answer"):
            await read_all(reader, ask_for(server.url))
        assert len(server.requests) == 1 + impatient.retries_max // 2


async def test_a_header_that_cannot_be_sent_is_the_users_to_mend() -> None:
    async with scripted(lambda _: answer(200, b"x")) as server, OriginReader(QUICK) as reader:
        with pytest.raises(UsageError, match="header"):
            await read_all(reader, ask_for(server.url, headers=[("X-Key", "a\x00b")]))
        assert not server.requests


async def test_a_million_tiny_chunks_leave_others_their_turn() -> None:
    tiny = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with (
        scripted(lambda _: tiny) as server,
        OriginReader(QUICK) as reader,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(other)
        async with reader.open(ask_for(server.url)) as body:
            for _ in range(2_000):
                assert await body.read() == b"x"
        nursery.cancel_scope.cancel()
    assert turns >= 2_000


def test_a_question_whether_it_changed_pins_no_version() -> None:
    want = Want(last_byte=9, expect=OriginFacts(10, '"v"', True, 0), unless='"v"')
    assert dict(want.headers()) == {"range": "bytes=0-9", "if-none-match": '"v"'}
    assert want.pinned is None
