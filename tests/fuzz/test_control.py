"""Fuzz: whatever bytes come to the control socket, the server answers or closes, and goes on.

PEERD_FUZZ_EXAMPLES says how many inputs each test gets; `make fuzz` gives a million. The inputs
are well-formed requests, damaged by a generator with a seed; a failure prints the input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import h11
import pytest
import trio
import trio.testing

from peerd.errors import UsageError
from peerd.gateway.control import ControlServer, decode_get
from peerd.gateway.http import Exchange, Handler, Limits, Request, Server
from peerd.gateway.ports import GetRequest
from tests.gateway.fake_control import FakeControl

EXAMPLES = int(os.environ.get("PEERD_FUZZ_EXAMPLES", "2000"))
SEED = int(os.environ.get("PEERD_FUZZ_SEED", "1"))
BATCH = 100
LIMITS = Limits(head_max_bytes=1024, body_max_bytes=2048, idle_s=1, request_s=1)

WISH = (
    b'{"url":"http://h/x","digest":null,"headers":[["A","b"]],"tag":"t","application":"",'
    b'"timeout_s":1.5}'
)
POST = b"POST /v1/get HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(WISH), WISH)
REQUESTS = [
    POST,
    POST + POST,
    b"POST /v1/get HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\n" + WISH[:6] + b"\r\n%x\r\n" % (len(WISH) - 6) + WISH[6:] + b"\r\n0\r\n\r\n",
    b"POST /v1/get HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /v1/status HTTP/1.1\r\nHost: h\r\n\r\n" * 3,
    b"GET /v1/tasks/2f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"DELETE /v1/tasks/ffff HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET /v1/descriptor?ticket=x%20y&a=b HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\n\r\n",
    b"HEAD /v1/peers HTTP/1.0\r\n\r\n",
]
TOKENS = [
    b"\r\n", b"\n", b" ", b":", b"\x00", b"\xff", b"%", b"%00", b"..", b"[", b"{", b'"', b"\\ud800",
    b"Content-Length: 99999999\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"ffffffffffffffff\r\n", b"CONNECT", b"HEAD", b"HTTP/1.0", b"HTTP/9.9", b"http://[/", b"*",
    b"1e999", b"x" * 1500,
]  # fmt: skip


def damaged(rng: Random, corpus: list[bytes]) -> bytes:
    """One of the corpus after a few cuts, doublings, flips and insertions."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([1, 2, 8, 40]))
        match rng.randrange(4):
            case 0:
                del data[start:end]
            case 1:
                data[start:start] = data[start:end]
            case 2:
                data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
            case _:
                data[start:start] = rng.choice(TOKENS)
    return bytes(data)


def batches(corpus: list[bytes], count: int = EXAMPLES) -> Iterator[tuple[Random, list[bytes]]]:
    for number in range(-(-count // BATCH)):
        rng = Random(SEED * 1_000_003 + number)
        yield rng, [damaged(rng, corpus) for _ in range(BATCH)]


async def converse(server: Server, parts: list[bytes]) -> bytes:
    """What the server sends to who sends `parts` and then says no more."""
    said = b""
    ours, theirs = trio.testing.memory_stream_pair()

    async def send() -> None:
        try:
            for part in parts:
                await ours.send_all(part)
            await ours.send_eof()
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, theirs)
        nursery.start_soon(send)
        async for data in ours:
            said += data
    return said


def run(
    handler: Handler, inputs: list[list[bytes]], each: Callable[[list[bytes], bytes], None]
) -> None:
    """All conversations, one after the other, with one server; nothing waits for a real clock."""

    async def all_of_them() -> None:
        server = Server(handler, LIMITS)
        for parts in inputs:
            each(parts, await converse(server, parts))

    trio.run(all_of_them, clock=trio.testing.MockClock(autojump_threshold=0))


def test_any_bytes_end_in_answers_or_a_closed_connection() -> None:
    control = ControlServer(FakeControl({"http://h/x": b"x"}), "/unused", limits=LIMITS)
    statuses = set()

    def look(parts: list[bytes], said: bytes) -> None:
        if said:
            status = first_status(said)
            assert status != 500, f"a handler failed on {parts!r}"
            statuses.add(status)

    for _, inputs in batches(REQUESTS):
        run(control.handle, [[data] for data in inputs], look)
    assert {200, 400, 404, 405} <= statuses  # The inputs do reach all of it.


def first_status(said: bytes) -> int:
    """Of the first answer that is not 100 Continue; h11 checks that it is HTTP."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(said)
    event = reader.next_event()
    while isinstance(event, h11.InformationalResponse):
        event = reader.next_event()
    return event.status_code if isinstance(event, h11.Response) else 100


def test_how_the_bytes_are_cut_changes_nothing() -> None:
    """A handler sees the same requests whole and in small pieces.

    Not where a limit is passed: whole, one receive more may be in before the head is too large.
    A fifth of the inputs: what may crash, the test above has seen.
    """
    requests: list[Request] = []

    async def note(request: Request, exchange: Exchange) -> None:
        requests.append(request)
        await exchange.answer(200, {})

    for rng, inputs in batches(REQUESTS, EXAMPLES // 5):
        step = rng.randrange(1, 40)
        seen: list[list[Request]] = []

        def collect(_: Any, __: bytes, seen: list[list[Request]] = seen) -> None:
            seen.append(requests[:])
            requests.clear()

        wholes = [[data[:1000]] for data in inputs[: BATCH // 2]]
        cuts = [[whole[i : i + step] for i in range(0, len(whole), step)] for (whole,) in wholes]
        run(note, wholes + cuts, collect)
        for whole, uncut, cut in zip(wholes, seen, seen[len(wholes) :], strict=False):
            assert uncut == cut, f"{whole!r} in steps of {step}"


def test_a_body_is_a_wish_within_bounds_or_refused() -> None:
    accepted = 0
    for _, bodies in batches([WISH, WISH, b'{"url":"\\ud83d\\ude00"}', b"[[[[]]]]"]):
        for body in bodies:
            try:
                wish = decode_get(body)
            except UsageError:
                continue
            accepted += 1
            assert isinstance(wish, GetRequest), body
            assert len(wish.url) <= 8192, body
            assert wish.timeout_s is None or 0 < wish.timeout_s < float("inf"), body
            assert all(isinstance(text, str) for pair in wish.headers for text in pair), body
    assert accepted > EXAMPLES // 10


@pytest.mark.parametrize(
    "body",
    [
        b'{"headers":' + b"[" * 100_000,
        b'{"url":"\\ud800"}',
        b'{"url":"x","timeout_s":1e999}',
        b'{"url":"x","timeout_s":NaN}',
        b'{"url":"' + b"x" * 9000 + b'"}',
        json.dumps({"url": "x", "headers": [["a", "b"]] * 1000}).encode(),
    ],
)
def test_what_breaks_other_decoders_is_refused(body: bytes) -> None:
    with pytest.raises(UsageError):
        decode_get(body)
