"""One HTTP exchange: through the right pool, its failures in our words.

Always: an exchange that was not read to its end closes its connection, never drains it; HTTP/1.1
is spoken wherever the origin does, for it costs a fraction of HTTP/2's CPU in Python and gives
every reader a TCP connection of its own, and HTTP/2 where the origin speaks nothing else, one
stream to a connection (ADR-0010).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

import httpcore
import trio

from peerd.errors import OriginProtocolError, UsageError
from peerd.origin.failures import FAILURES, SpeaksSomethingElse, address_refused, translated
from peerd.origin.ranges import parse_length
from peerd.origin.routes import (
    DEFAULT_PORTS,
    Header,
    Route,
    Site,
    is_refused_address,
    label,
    proxy_for,
)
from peerd.origin.settings import OriginConfig
from peerd.origin.streams import OriginBackend, OriginStream

IDLE_MAX_S = 30.0
"""Guess: below what servers keep an idle connection for (nginx 75 s, Go's default none)."""
H2_ORIGINS_MAX = 256
H2_IDLE_MAX = 4
"""Guess: connections kept for each origin that speaks only HTTP/2."""
DRAIN_MAX_BYTES = 64 * 1024
"""A redirect's or an error's body up to this is read, so that its connection can be used again."""
END_WAIT_S = 1.0
"""Guess: how long the end of an answer may take, once all its bytes are there."""
CLOSE_MAX_S = 2.0
"""Closing waits for nobody; this is for what we did not think of."""
logger = logging.getLogger(__name__)


class Lane:
    """The pool an exchange runs on; one of HTTP/2 carries one stream, and waits in `home`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, home: list[Lane] | None = None) -> None:
        self.pool = pool
        self._home = home

    async def release(self, *, reusable: bool) -> None:
        if self._home is None:
            return
        if reusable and len(self._home) < H2_IDLE_MAX:
            self._home.append(self)
        else:
            await self.pool.aclose()


class Exchange:
    """An answer whose head was read. `read` gives its body as the origin sent it."""

    def __init__(self, response: httpcore.Response, lane: Lane) -> None:
        self.status = response.status
        self.headers = _headers(response.headers)
        self._response = response
        self._lane = lane
        self._parts: AsyncIterator[bytes] | None = None
        self._ended = False
        self._http1 = response.extensions.get("http_version") != b"HTTP/2"

    @property
    def framed_bytes(self) -> int | None:
        """The Content-Length that ends this answer on the wire; None where something else does."""
        if self.status in (204, 304):
            return 0
        if not self._http1 or "transfer-encoding" in self.headers:
            return None
        return parse_length(self.headers.get("content-length", ""))

    async def read(self) -> bytes:
        """Some bytes, b"" at the end; one of FAILURES where it breaks off."""
        if self._ended:
            return b""
        if self._parts is None:
            assert not isinstance(self._response.stream, bytes)
            self._parts = aiter(self._response.stream)  # type: ignore[arg-type]
        async for part in self._parts:
            if part:
                return part
        self._ended = True
        stream = self._response.extensions.get("network_stream")
        if isinstance(stream, OriginStream) and self._http1:
            framed = self.framed_bytes
            stream.spoil() if framed is None else stream.settle(framed)
        return b""

    async def aclose(self) -> None:
        """The connection goes back to its pool if the body was read to the end; else it closes."""
        with trio.move_on_after(CLOSE_MAX_S, shield=True):
            await self._response.aclose()
            await self._unwind()
            await self._lane.release(reusable=self._ended)

    async def finish(self) -> None:
        """All bytes are there: lets the answer end, for the sake of the connection, and closes."""
        try:
            with trio.move_on_after(END_WAIT_S):
                await self.read()
        except FAILURES:
            pass  # The bytes are there all the same.
        finally:
            await self.aclose()

    async def drain(self) -> None:
        """Reads a short body to its end, for the sake of the connection, and closes."""
        try:
            size = self.framed_bytes
            if size is not None and size <= DRAIN_MAX_BYTES:
                with trio.move_on_after(END_WAIT_S):
                    while await self.read():
                        pass
        except FAILURES:
            pass  # Nobody wanted that body.
        finally:
            await self.aclose()

    async def _unwind(self) -> None:
        """Lets httpcore's generators run into the closed connection: left alone, the garbage
        collector would end them, with a warning from trio for each."""
        if self._parts is None or self._ended:
            return
        try:
            async for _ in self._parts:
                pass
        except FAILURES:
            pass


class Connections:
    """All connections to origins, kept for the next exchange; `aclose` ends them."""

    def __init__(self, config: OriginConfig) -> None:
        check_proxy(config.http_proxy)
        check_proxy(config.https_proxy)
        self._config = config
        self._trust = _trust(config.ca_file)
        self._lanes: dict[str | None, Lane] = {}
        self._h2_lanes: dict[tuple[Site, str | None], list[Lane]] = {}

    async def get(self, route: Route, headers: Sequence[Header]) -> Exchange:
        """One GET, until its answer's head is there; Transient, or the error to raise."""
        site, config = route.site, self._config
        if is_refused_address(site.host):
            raise address_refused(route)
        proxy = proxy_for(
            site,
            http_proxy=config.http_proxy,
            https_proxy=config.https_proxy,
            no_proxy=config.no_proxy,
        )
        idle = self._h2_lanes.get((site, proxy))
        if idle is None:
            try:
                return await self._exchange(route, headers, self._http1(proxy))
            except SpeaksSomethingElse:
                logger.info("%s speaks no HTTP/1.1; trying HTTP/2", label(route.url))
                idle = []
        try:
            lane = idle.pop() if idle else Lane(self._pool(proxy, http2=True), idle)
            exchange = await self._exchange(route, headers, lane)
        except SpeaksSomethingElse as error:
            words = "speaks neither HTTP/1.1 nor HTTP/2; check port and scheme"
            raise OriginProtocolError(f"{label(route.url)} {words}") from error
        if len(self._h2_lanes) < H2_ORIGINS_MAX:
            self._h2_lanes.setdefault((site, proxy), idle)
        return exchange

    async def aclose(self) -> None:
        lanes = [
            *self._lanes.values(),
            *(lane for idle in self._h2_lanes.values() for lane in idle),
        ]
        self._lanes, self._h2_lanes = {}, {}
        with trio.move_on_after(CLOSE_MAX_S, shield=True):
            for lane in lanes:
                await lane.pool.aclose()

    async def _exchange(self, route: Route, headers: Sequence[Header], lane: Lane) -> Exchange:
        try:
            with trio.fail_after(self._config.connect_timeout_s + self._config.stall_timeout_s):
                response = await lane.pool.handle_async_request(self._request(route, headers))
        except FAILURES as error:
            await lane.release(reusable=False)
            raise translated(error, route) from error
        except BaseException:
            await lane.release(reusable=False)
            raise
        return Exchange(response, lane)

    def _request(self, route: Route, headers: Sequence[Header]) -> httpcore.Request:
        site, config = route.site, self._config
        place = f"[{site.host}]" if ":" in site.host else site.host
        port = None if site.port == DEFAULT_PORTS[site.scheme] else site.port
        place = place if port is None else f"{place}:{port}"
        sent = {"host": place, "accept": "*/*", "user-agent": config.user_agent}
        sent |= dict(route.headers) | dict(headers) | {"accept-encoding": "identity"}
        stall_s = config.stall_timeout_s
        return httpcore.Request(
            b"GET",
            httpcore.URL(
                scheme=site.scheme.encode(),
                host=site.host.encode(),
                port=port,
                target=route.target.encode(),
            ),
            headers=[(name.encode(), value.encode()) for name, value in sent.items()],
            extensions={
                "timeout": {"connect": config.connect_timeout_s, "read": stall_s, "write": stall_s}
            },
        )

    def _http1(self, proxy: str | None) -> Lane:
        if proxy not in self._lanes:
            self._lanes[proxy] = Lane(self._pool(proxy, http2=False))
        return self._lanes[proxy]

    def _pool(self, proxy: str | None, *, http2: bool) -> httpcore.AsyncConnectionPool:
        # httpcore writes the protocols it offers into the context: each pool needs its own.
        return httpcore.AsyncConnectionPool(
            ssl_context=self._trust(),
            proxy=None if proxy is None else _proxy(proxy, self._trust),
            max_connections=self._config.connections_max,
            keepalive_expiry=IDLE_MAX_S,
            http1=True,
            http2=http2,
            network_backend=OriginBackend(),
        )


def check_proxy(proxy: str | None) -> None:
    """UsageError unless peerd can use that proxy."""
    if not proxy:
        return
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in DEFAULT_PORTS and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("a proxy is written as http://host:port or https://host:port")


def _proxy(proxy: str, trust: Callable[[], ssl.SSLContext]) -> httpcore.Proxy:
    parts = urlsplit(proxy)
    auth = None
    if parts.username is not None:
        auth = (unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or ""))
    url = httpcore.URL(
        scheme=parts.scheme.encode(),
        host=(parts.hostname or "").encode(),
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        target=b"/",
    )
    return httpcore.Proxy(url, auth=auth, ssl_context=trust() if parts.scheme == "https" else None)


def _trust(ca_file: str | None) -> Callable[[], ssl.SSLContext]:
    """Makes contexts that verify certificates and names; UsageError if the file cannot be used."""

    def made() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ca_file)
        # Python's default takes a connection that was cut for one that ended (see tls.py).
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    if ca_file is not None:
        try:
            made()
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"the CA file {ca_file} cannot be used: {error}") from error
    return made


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name; what stands twice is joined, so that no parser takes the first alone."""
    found: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name = name_bytes.decode("latin-1").lower()
        value = value_bytes.decode("utf-8", "replace").strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
