"""The HTTP server on in-memory streams: what one client may do, and what it may not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from peerd.errors import NoSpace
from peerd.gateway.http import Exchange, Limits, Request, Server

Client = trio.abc.HalfCloseableStream


async def echo(request: Request, exchange: Exchange) -> None:
    match request.path:
        case "/full":
            raise NoSpace("the disk is full")
        case "/bug":
            raise KeyError("bug")
        case "/stream":
            await exchange.begin(200, "text/plain")
            for number in range(3):
                await exchange.send(f"{number}\n".encode())
            await exchange.finish()
        case _:
            said = {"path": request.path, "query": request.query, "body": request.body.decode()}
            await exchange.answer(200, said)


@asynccontextmanager
async def serving(limits: Limits | None = None) -> AsyncIterator[Callable[[], Client]]:
    """Yields what dials one more connection to the same server."""
    server = Server(echo, limits)
    async with trio.open_nursery() as nursery:

        def dial() -> Client:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve, theirs)
            return ours

        yield dial
        nursery.cancel_scope.cancel()


async def everything(client: Client) -> bytes:
    data = b""
    async for part in client:
        data += part
    return data


async def said(client: Client, request: bytes) -> tuple[int, Any]:
    """Status and JSON of the only answer on a connection."""
    await client.send_all(request)
    head, _, body = (await everything(client)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def test_a_request_in_pieces_is_one_request(autojump_clock: trio.testing.MockClock) -> None:
    request = b"POST /a%20b?x=1 HTTP/1.0\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    async with serving() as dial:
        client = dial()
        for index in range(len(request) - 1):
            await client.send_all(request[index : index + 1])
        status, answer = await said(client, request[-1:])
    assert status == 200
    assert answer == {"path": "/a b", "query": {"x": "1"}, "body": "abc"}


async def test_one_connection_carries_many_requests() -> None:
    async with serving() as dial:
        client = dial()
        request = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
        last = b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        await client.send_all(request + request + last)
        answers = await everything(client)
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.index(b'"/a"') < answers.index(b'"/b"')


async def test_a_stream_is_chunked_and_for_http_1_0_ends_with_the_connection() -> None:
    async with serving() as dial:
        new, old = dial(), dial()
        await new.send_all(b"GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        await old.send_all(b"GET /stream HTTP/1.0\r\n\r\n")
        chunked, plain = await everything(new), await everything(old)
    assert chunked.endswith(b"2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n")
    assert plain.endswith(b"\r\n\r\n0\n1\n2\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.0\r\n\r\n", 400),
        (b"GET /?" + b"a&" * 20 + b" HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nX: " + b"x" * 40000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.0\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, 413),
        (b"GET /full HTTP/1.0\r\n\r\n", 507),
        (b"GET /bug HTTP/1.0\r\n\r\n", 500),
    ],
)
async def test_what_cannot_be_served_is_answered_in_words(
    request_bytes: bytes, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(Limits(head_max_bytes=2048, body_max_bytes=1024)) as dial:
        found, answer = await said(dial(), request_bytes)
        assert found == status
        assert answer["error"]["message"]
        assert (await said(dial(), b"GET /still HTTP/1.0\r\n\r\n"))[0] == 200


async def test_a_request_that_trickles_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(Limits(idle_s=60, request_s=10)) as dial:
        client = dial()
        began = trio.current_time()
        with trio.move_on_after(30):
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"h" * 100:
                try:
                    await client.send_all(bytes([byte]))
                except trio.BrokenResourceError:
                    break
                await trio.sleep(1)
        assert b"408" in await everything(client)
        assert trio.current_time() - began < 15


async def test_a_silent_connection_is_closed_without_a_word(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(Limits(idle_s=60)) as dial:
        client, began = dial(), trio.current_time()
        assert await everything(client) == b""
        assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_too_many_connections_are_refused_and_the_rest_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(Limits(connections_max=2)) as dial:
        kept = [dial(), dial()]
        await trio.testing.wait_all_tasks_blocked()
        status, _ = await said(dial(), b"GET / HTTP/1.0\r\n\r\n")
        assert status == 503
        assert (await said(kept[0], b"GET / HTTP/1.0\r\n\r\n"))[0] == 200


async def test_head_is_answered_without_a_body() -> None:
    async with serving() as dial:
        client = dial()
        await client.send_all(b"HEAD /a HTTP/1.0\r\n\r\n")
        head, _, body = (await everything(client)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""
