"""The ports for probes and scrapes: /healthy and /metrics, on loopback unless told otherwise.

Always: both answer GET and HEAD alone, from the state as it is at that moment; a port that is taken
is refused in words before the daemon says that it is ready.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from peerd.errors import UsageError
from peerd.gateway.health import Health, State
from peerd.gateway.http import BadRequest, Exchange, Limits, Request, Server
from peerd.gateway.metrics import CONTENT_TYPE_LATEST, Metrics

LIMITS: Final = Limits(body_max_bytes=1024, connections_max=64, idle_s=120.0)
"""Scrapers keep their connection between two scrapes, a minute apart as a rule."""
JSON: Final = "application/json"
FAILING_STATUS: Final = 503

Answer = Callable[[Exchange], Awaitable[None]]


class Watching:
    """`metrics_listen` and `health_listen` are host:port, None for no such port."""

    def __init__(
        self,
        metrics: Metrics,
        health: Callable[[], Health],
        metrics_listen: str | None,
        health_listen: str | None,
    ) -> None:
        self._metrics, self._health = metrics, health
        self._ports = [
            (metrics_listen, "--metrics-listen", "/metrics", self._answer_metrics),
            (health_listen, "--health-listen", "/healthy", self._answer_health),
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled. UsageError: an address cannot be listened on."""
        servers: list[tuple[Server, trio.SocketListener]] = []
        refused: list[str] = []
        for address, flag, path, answer in self._ports:
            if address is None:
                continue
            server = Server(_only(path, answer), LIMITS)
            try:
                servers += [(server, listener) for listener in await _listen(address, flag)]
            except UsageError as error:
                refused.append(str(error))
        if refused:  # All at once: who starts a second daemon here has to mend both.
            for _, listener in servers:
                listener.socket.close()
            raise UsageError("; ".join(refused))
        async with trio.open_nursery() as nursery:
            for server, listener in servers:
                await nursery.start(server.run, listener)
            task_status.started()
            await trio.sleep_forever()

    async def _answer_metrics(self, exchange: Exchange) -> None:
        await exchange.reply(200, CONTENT_TYPE_LATEST, self._metrics.render())

    async def _answer_health(self, exchange: Exchange) -> None:
        found = self._health()
        status = FAILING_STATUS if found.state is State.FAILING else 200
        await exchange.reply(status, JSON, msgspec.json.encode(found) + b"\n")


async def _listen(address: str, flag: str) -> list[trio.SocketListener]:
    host, _, port = address.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address}: {error.strerror or error}; choose another with {flag}, "
            f"or none with {flag} off"
        ) from error


def _only(path: str, answer: Answer) -> Callable[[Request, Exchange], Awaitable[None]]:
    async def handle(request: Request, exchange: Exchange) -> None:
        if request.path != path:
            raise BadRequest(404, f"here is {path} alone")
        if request.method not in ("GET", "HEAD"):
            raise BadRequest(405, f"{path} takes GET or HEAD")
        await answer(exchange)

    return handle
