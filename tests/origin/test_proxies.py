"""Through a proxy: CONNECT for https, absolute URLs for http, credentials, and its refusals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from peerd.errors import OriginRefused, OriginUnreachable, UsageError
from peerd.origin.service import OriginReader
from peerd.origin.settings import OriginConfig
from peerd.task import ask_for
from tests.origin.scripted import Received, answer, scripted
from tests.origin.server import CONTENT, QUICK, read_all
from tests.origin.test_tls import Authority


class Tunnel:
    """A proxy that connects everybody to one local port, whatever name was asked for."""

    def __init__(self, to_port: int, credentials: str | None = None) -> None:
        self.to_port = to_port
        self.port = 0
        self.requests: list[Received] = []
        self._credentials = credentials

    async def serve(self, client: trio.abc.HalfCloseableStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await client.receive_some(65536)
            if not data:
                return
            head += data
        request = Received(head)
        self.requests.append(request)
        if self._credentials is not None:
            wanted = "Basic " + base64.b64encode(self._credentials.encode()).decode()
            if request.headers.get("proxy-authorization") != wanted:
                await client.send_all(answer(407))
                return
        server = await trio.open_tcp_stream("localhost", self.to_port)
        async with server, trio.open_nursery() as nursery:
            if request.line.startswith("CONNECT "):
                await client.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                await server.send_all(head)
            nursery.start_soon(_copy, client, server)
            await _copy(server, client)
            nursery.cancel_scope.cancel()


async def _copy(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
    try:
        while data := await source.receive_some(65536):
            await target.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # Either end may leave.


@asynccontextmanager
async def tunnel(to_port: int, credentials: str | None = None) -> AsyncIterator[Tunnel]:
    proxy = Tunnel(to_port, credentials)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, proxy.serve, 0)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()


def through(proxy: Tunnel, config: OriginConfig = QUICK, user: str = "") -> OriginConfig:
    url = f"http://{user}localhost:{proxy.port}"
    return msgspec.structs.replace(config, http_proxy=url, https_proxy=url)


async def test_http_goes_as_an_absolute_url() -> None:
    async with scripted(lambda _: answer(200, b"hello")) as server:
        async with tunnel(server.port) as proxy, OriginReader(through(proxy)) as reader:
            assert await read_all(reader, ask_for("http://origin.example/x?y=z")) == b"hello"
        assert proxy.requests[0].line == "GET http://origin.example/x?y=z HTTP/1.1"
        assert proxy.requests[0].headers["host"] == "origin.example"


async def test_https_goes_through_a_tunnel_and_is_verified_at_its_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "origin.example")
    ask = ask_for("https://origin.example/x", headers=[("Authorization", "secret")])
    async with (
        scripted(lambda _: answer(200, CONTENT), authority.server) as server,
        tunnel(server.port) as proxy,
    ):
        async with OriginReader(through(proxy, authority.config)) as reader:
            assert await read_all(reader, ask) == CONTENT
            assert await read_all(reader, ask) == CONTENT
        assert len(proxy.requests) == 1
        assert proxy.requests[0].line == "CONNECT origin.example:443 HTTP/1.1"
        assert "authorization" not in proxy.requests[0].headers
        async with OriginReader(through(proxy)) as reader:
            with pytest.raises(OriginUnreachable, match="is not trusted"):
                await read_all(reader, ask)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_credentials(scheme: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "origin.example")
    tls = authority.server if scheme == "https" else None
    ask = ask_for(f"{scheme}://origin.example/x")
    async with (
        scripted(lambda _: answer(200, b"hello"), tls) as server,
        tunnel(server.port, "us%er:pass") as proxy,
    ):
        async with OriginReader(through(proxy, authority.config, user="us%25er:pass@")) as reader:
            assert await read_all(reader, ask) == b"hello"
        async with OriginReader(through(proxy, authority.config)) as reader:
            with pytest.raises(OriginRefused, match="proxy"):
                await read_all(reader, ask)


async def test_loopback_and_no_proxy_go_directly() -> None:
    async with scripted(lambda _: answer(200, b"hello")) as server:
        async with tunnel(server.port) as proxy, OriginReader(through(proxy)) as reader:
            assert await read_all(reader, ask_for(server.url)) == b"hello"
        assert not proxy.requests


async def test_a_proxy_that_is_not_there() -> None:
    async with tunnel(1) as gone:
        config = through(gone)
    async with OriginReader(config) as reader:
        with pytest.raises(OriginUnreachable):
            await read_all(reader, ask_for("http://origin.example/x"))


@pytest.mark.parametrize("proxy", ["socks5://p:1", "p:3128", "http://", "http://p:x"])
def test_a_proxy_that_cannot_be_used_is_refused_before_any_read(proxy: str) -> None:
    with pytest.raises(UsageError, match="proxy"):
        OriginReader(OriginConfig(https_proxy=proxy))
