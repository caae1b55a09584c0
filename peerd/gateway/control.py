"""The control API: what the command line and scripts ask of the daemon, on a unix socket.

Always: whoever can open the socket may ask anything, so its mode and group are set before anybody
can connect; a socket that a live daemon answers on is never taken away; no path that a client
named is opened: content leaves as a descriptor, on a connection of its own (docs/adr/0008).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, cast

import msgspec
import trio

from peerd.errors import PeerdError, UsageError
from peerd.gateway.http import BadRequest, ClientGone, Exchange, Limits, Request, Server, error_body
from peerd.gateway.ports import Control, GetDone, GetEvent, GetFailed, GetRequest
from peerd.gateway.unix import ControlSocket

URL_MAX_BYTES: Final = 8192
HEADERS_MAX: Final = 32
HEADER_MAX_BYTES: Final = 4096
TEXT_MAX_BYTES: Final = 128
"""As in task.TaskSpec and codec.WireUrl."""
TASK_PREFIX: Final = re.compile(r"[0-9a-f]{1,64}")
TICKET: Final = re.compile(r"[\x21-\x7e]{1,128}")

_decoder = msgspec.json.Decoder(GetRequest)

Route = Callable[[Request, Exchange, str], Awaitable[None]]


class ControlServer:
    """Serves a Control at a path. `mode` and `group` say who may connect."""

    def __init__(
        self,
        control: Control,
        path: str,
        mode: int = 0o600,
        group: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._control = control
        self._socket = ControlSocket(path, mode, group)
        self._server = Server(self.handle, limits)
        self._routes: list[tuple[str, re.Pattern[str], Route]] = [
            ("POST", re.compile(r"/v1/get()"), self._get),
            ("GET", re.compile(r"/v1/status()"), self._status),
            ("GET", re.compile(r"/v1/peers()"), self._peers),
            ("GET", re.compile(r"/v1/scheduler()"), self._scheduler),
            ("GET", re.compile(r"/v1/tasks()"), self._tasks),
            ("GET", re.compile(r"/v1/tasks/([^/]+)"), self._task),
            ("GET", re.compile(r"/v1/tasks/([^/]+)/explain"), self._explain),
            ("DELETE", re.compile(r"/v1/tasks/([^/]+)"), self._remove),
            ("GET", re.compile(r"/v1/descriptor()"), self._descriptor),
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Binds, serves, and takes the socket's name away when cancelled.

        Requests under way end with the cancellation: their clients see the connection close.
        UsageError where the path cannot be used, or another daemon answers on it.
        """
        async with self._socket.bound() as listener:
            await self._server.run(listener, task_status=task_status)

    async def handle(self, request: Request, exchange: Exchange) -> None:
        allowed = set()
        for method, pattern, route in self._routes:
            if match := pattern.fullmatch(request.path):
                if method == request.method:
                    return await route(request, exchange, match[1])
                allowed.add(method)
        if allowed:
            raise BadRequest(405, f"{request.path} takes {' or '.join(sorted(allowed))}")
        raise BadRequest(404, f"there is no {request.path} here")

    async def _status(self, _: Request, exchange: Exchange, __: str) -> None:
        await exchange.answer(200, self._control.status())

    async def _peers(self, _: Request, exchange: Exchange, __: str) -> None:
        await exchange.answer(200, {"peers": self._control.peers()})

    async def _scheduler(self, _: Request, exchange: Exchange, __: str) -> None:
        await exchange.answer(200, self._control.scheduler())

    async def _tasks(self, _: Request, exchange: Exchange, __: str) -> None:
        await exchange.answer(200, {"tasks": self._control.tasks()})

    async def _task(self, _: Request, exchange: Exchange, task: str) -> None:
        await exchange.answer(200, self._control.task(_prefix(task)))

    async def _explain(self, _: Request, exchange: Exchange, task: str) -> None:
        await exchange.answer(200, self._control.explain(_prefix(task)))

    async def _remove(self, _: Request, exchange: Exchange, task: str) -> None:
        await exchange.answer(200, await self._control.remove(_prefix(task)))

    async def _descriptor(self, request: Request, exchange: Exchange, _: str) -> None:
        ticket = request.query.get("ticket", "")
        if not TICKET.fullmatch(ticket):
            raise UsageError("a descriptor is asked for with the ?ticket=… of a finished download")
        descriptor = self._control.descriptor(ticket)
        try:
            size = {"bytes": os.fstat(descriptor).st_size}
            await exchange.answer(200, size, descriptors=[descriptor])
        finally:
            os.close(descriptor)

    async def _get(self, request: Request, exchange: Exchange, _: str) -> None:
        wish = decode_get(request.body)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, exchange, nursery.cancel_scope)
            await self._stream(wish, exchange)
            nursery.cancel_scope.cancel()

    async def _stream(self, wish: GetRequest, exchange: Exchange) -> None:
        """One line an event. Before the first, an error is the answer; after it, the last line."""
        task: str | None = None
        events = cast("AsyncGenerator[GetEvent, None]", self._control.get(wish))
        with contextlib.suppress(ClientGone):
            try:
                async with aclosing(events):
                    async for event in events:
                        task = event.task
                        await _send_line(exchange, event)
                        if isinstance(event, GetDone | GetFailed):
                            break
            except PeerdError as error:
                if not exchange.begun:
                    body = error_body(error.code, str(error))
                    return await exchange.answer(error.http_status, body)
                await _send_line(exchange, GetFailed(task, error.code, str(error)))
            await exchange.finish()


async def _send_line(exchange: Exchange, event: GetEvent) -> None:
    if not exchange.begun:
        await exchange.begin(200, "application/x-ndjson")
    await exchange.send(msgspec.json.encode(event) + b"\n")


async def _cancel_when_gone(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.gone()
    scope.cancel()


def decode_get(body: bytes) -> GetRequest:
    """The wish in a body; UsageError names what is wrong with it. What the URL, the digest and the
    headers mean is task.ask_for's to check: here they only have to be small."""
    try:
        wish = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the request's body is not what POST /v1/get takes: {error}") from error
    if len(wish.url) > URL_MAX_BYTES:
        raise UsageError(f"a URL has at most {URL_MAX_BYTES} characters")
    if len(wish.headers) > HEADERS_MAX:
        raise UsageError(f"at most {HEADERS_MAX} headers can be given")
    if any(len(name) + len(value) > HEADER_MAX_BYTES for name, value in wish.headers):
        raise UsageError(f"a header has at most {HEADER_MAX_BYTES} characters")
    if any(len(text) > TEXT_MAX_BYTES for text in (wish.digest or "", wish.tag, wish.application)):
        raise UsageError(f"digest, tag and application have at most {TEXT_MAX_BYTES} characters")
    if wish.timeout_s is not None and wish.timeout_s <= 0:
        raise UsageError("a timeout is more than 0 seconds")
    return wish


def _prefix(task: str) -> str:
    if not TASK_PREFIX.fullmatch(task):
        raise UsageError(f"{task[:80]!r} is no task id; it is up to 64 of the digits 0-9 and a-f")
    return task
