"""Connections to origins: direct and through proxies, trusted, kept, and bounded.

Always: certificates and names are verified; HTTP/1.1 is spoken wherever the origin does, for it
costs a fraction of HTTP/2's CPU in Python and gives every reader a TCP connection of its own, and
HTTP/2 where the origin speaks nothing else, one stream to a connection (ADR-0010).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

import httpcore
import trio

from peerd.errors import OriginProtocolError, UsageError
from peerd.origin.exchange import CLOSE_MAX_S, Exchange, Lane
from peerd.origin.failures import FAILURES, SpeaksSomethingElse, address_refused, translated
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
from peerd.origin.streams import OriginBackend

IDLE_MAX_S = 30.0
"""Guess: below what servers keep an idle connection for (nginx 75 s, Go's default none)."""
H2_ORIGINS_MAX = 256
H2_IDLE_MAX = 4
"""Guess: connections kept for each origin that speaks only HTTP/2."""
logger = logging.getLogger(__name__)


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
        if (site, proxy) not in self._h2_lanes:
            try:
                return await self._exchange(route, headers, self._http1(proxy))
            except SpeaksSomethingElse:
                logger.info("%s speaks no HTTP/1.1; trying HTTP/2", label(route.url))
        try:
            exchange = await self._exchange(route, headers, self._http2(site, proxy))
        except SpeaksSomethingElse as error:
            words = "speaks neither HTTP/1.1 nor HTTP/2; check port and scheme"
            raise OriginProtocolError(f"{label(route.url)} {words}") from error
        if len(self._h2_lanes) < H2_ORIGINS_MAX:
            self._h2_lanes.setdefault((site, proxy), [])
        return exchange

    async def aclose(self) -> None:
        lanes = [*self._lanes.values()]
        for idle in self._h2_lanes.values():
            lanes += idle
        self._lanes, self._h2_lanes = {}, {}
        with trio.move_on_after(CLOSE_MAX_S, shield=True):
            for lane in lanes:
                await lane.pool.aclose()

    async def _exchange(self, route: Route, headers: Sequence[Header], lane: Lane) -> Exchange:
        response: httpcore.Response | None = None
        try:
            with trio.fail_after(self._config.connect_timeout_s + self._config.stall_timeout_s):
                response = await lane.pool.handle_async_request(self._request(route, headers))
        except FAILURES as error:
            raise translated(error, route) from error
        finally:
            if response is None:
                await lane.release(reusable=False)
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

    def _http2(self, site: Site, proxy: str | None) -> Lane:
        def take_back(lane: Lane) -> bool:
            idle = self._h2_lanes.get((site, proxy))
            if idle is None or len(idle) >= H2_IDLE_MAX:
                return False
            idle.append(lane)
            return True

        idle = self._h2_lanes.get((site, proxy))
        return idle.pop() if idle else Lane(self._pool(proxy, http2=True), take_back)

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
