"""A small HTTP/1.1 server on trio streams: h11 speaks the protocol, this file keeps it bounded.

Always: a request has at most `head_max_bytes` of head (and one receive more) and `body_max_bytes`
of body, and is there `request_s` after its first byte; an answer that the client does not take for
`send_s` ends the connection; at most `connections_max` are served at once. A bad request is
answered with 4xx and a JSON error; nothing that one client does ends the server or another's
connection.
"""

from __future__ import annotations

import array
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec
import trio

from peerd.errors import PeerdError, UsageError

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 16 * 1024
LINGER_BYTES: Final = 256 * 1024
LINGER_S: Final = 1.0
"""After a refusal: what the client still had to say is read, else a reset overtakes the answer."""


@dataclass(frozen=True)
class Limits:
    """What one client may use. Guesses, all: a person's shell never comes near them."""

    head_max_bytes: int = 16 * 1024
    body_max_bytes: int = 128 * 1024
    connections_max: int = 256
    idle_s: float = 60.0
    request_s: float = 10.0
    send_s: float = 30.0


@dataclass(frozen=True)
class Request:
    """One request, whole: its body was read."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes


class BadRequest(Exception):
    """Not HTTP, or too large, or no such thing; `status` is the answer. Only within gateway/."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientGone(Exception):
    """The client closed, or did not take its answer in time. Nobody is left to be told."""


Handler = Callable[["Request", "Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request's answer: `answer` at once, or `begin`, `send` … and `finish`."""

    stream: trio.abc.Stream
    wire: h11.Connection
    limits: Limits
    begun: bool = field(default=False, init=False)
    last: bool = field(default=False, init=False)
    head_only: bool = field(default=False, init=False)

    async def answer(self, status: int, value: Any, *, descriptors: Sequence[int] = ()) -> None:
        """A whole JSON answer. Descriptors travel beside its first byte (unix sockets only)."""
        body = msgspec.json.encode(value) + b"\n"
        await self.reply(status, "application/json", body, descriptors=descriptors)

    async def reply(
        self, status: int, content_type: str, body: bytes, *, descriptors: Sequence[int] = ()
    ) -> None:
        """A whole answer of any kind; to a HEAD its headers alone."""
        size = ("Content-Length", str(len(body)))
        head = self._head(status, [("Content-Type", content_type), size])
        sent = b"" if self.head_only else self._event(h11.Data(data=body))
        await self._transmit(head + sent + self._event(h11.EndOfMessage()), descriptors)

    async def begin(self, status: int, content_type: str) -> None:
        """An answer of unknown length."""
        await self._transmit(self._head(status, [("Content-Type", content_type)]))

    async def send(self, data: bytes) -> None:
        if not self.head_only:
            await self._transmit(self._event(h11.Data(data=data)))

    async def finish(self) -> None:
        await self._transmit(self._event(h11.EndOfMessage()))

    async def gone(self) -> None:
        """Returns when the client has closed. What it says meanwhile is dropped, so this exchange
        becomes the connection's last, and `Connection: close` tells it."""
        self.last = True
        try:
            while await self.stream.receive_some(RECEIVE_BYTES):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _head(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        self.begun = True
        reason = HTTPStatus(status).phrase
        if self.last:
            headers = [*headers, ("Connection", "close")]
        event = h11.Response(status_code=status, headers=headers, reason=reason.encode())
        return self._event(event)

    def _event(self, event: h11.Event) -> bytes:
        try:
            return self.wire.send(event) or b""
        except h11.LocalProtocolError as error:
            # The request left the connection in a state in which this cannot be said any more.
            raise ClientGone from error

    async def _transmit(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        try:
            with trio.fail_after(self.limits.send_s):
                if descriptors:
                    data = data[await _send_descriptors(self.stream, data, descriptors) :]
                if data:
                    await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise ClientGone from error
        except trio.TooSlowError as error:
            raise ClientGone from error


async def _send_descriptors(
    stream: trio.abc.Stream, data: bytes, descriptors: Sequence[int]
) -> int:
    """Bytes of `data` that went with them."""
    if not isinstance(stream, trio.SocketStream):
        raise UsageError("descriptors pass only on the control socket")
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())
    return await stream.socket.sendmsg([data], [rights])


class Server:
    """Serves one handler on a listener, until cancelled; open connections end with it."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self._handler = handler
        self._limits = limits or Limits()
        self._open = 0

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.serve, [listener])
            task_status.started()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, to its end; closes it. Raises nothing but a cancellation."""
        wire = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_max_bytes)
        self._open += 1
        try:
            if self._open > self._limits.connections_max:
                refusal = BadRequest(503, "too many connections to this daemon; try again")
                await self._refuse(Exchange(stream, wire, self._limits), refusal)
                return
            while await self._exchange(Exchange(stream, wire, self._limits)):
                wire.start_next_cycle()
        except ClientGone:
            pass
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _exchange(self, exchange: Exchange) -> bool:
        """One request and its answer; whether the connection may carry another."""
        wire = exchange.wire
        try:
            request = await self._read_request(exchange)
            if request is None:
                return False
            await self._handle(request, exchange)
        except BadRequest as refusal:
            await self._refuse(exchange, refusal)
            return False
        return wire.our_state is h11.DONE and wire.their_state is h11.DONE

    async def _handle(self, request: Request, exchange: Exchange) -> None:
        try:
            await self._handler(request, exchange)
        except (BadRequest, ClientGone):
            raise
        except PeerdError as error:
            await exchange.answer(error.http_status, error_body(error.code, str(error)))
        except Exception:  # A handler's bug ends its request, not the daemon.
            log.exception("%s %s failed", request.method, request.path)
            if not exchange.begun:
                words = "the daemon failed on this request; its log says why"
                await exchange.answer(500, error_body(PeerdError.code, words))

    async def _refuse(self, exchange: Exchange, refusal: BadRequest) -> None:
        """The answer to what cannot be served; the connection ends with it."""
        exchange.last = True
        if exchange.wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await exchange.answer(refusal.status, error_body(UsageError.code, str(refusal)))
            if isinstance(exchange.stream, trio.abc.HalfCloseableStream):
                await _linger(exchange.stream)

    async def _read_request(self, exchange: Exchange) -> Request | None:
        """None where the client closed, or said nothing for too long, between requests."""
        reader = _Reader(exchange, exchange.stream, exchange.wire, self._limits)
        try:
            return await reader.request()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint or 400, str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone from error


@dataclass
class _Reader:
    """Reads one request, within the limits of size and time."""

    exchange: Exchange
    stream: trio.abc.Stream
    wire: h11.Connection
    limits: Limits
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    _begun: bool = field(default=False, init=False)

    async def request(self) -> Request | None:
        request = None
        with trio.move_on_after(self.limits.idle_s) as self._scope:
            if self.wire.trailing_data[0]:
                self._hurry()
            request = await self._whole()
        if self._scope.cancelled_caught and self._begun:
            raise BadRequest(408, f"the request was not there after {self.limits.request_s:.0f} s")
        return request

    async def _whole(self) -> Request | None:
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        self.exchange.head_only = head.method == b"HEAD"
        if head.method == b"CONNECT":
            raise BadRequest(501, "there are no tunnels here")
        return _request(head, await self._body())

    async def _body(self) -> bytes:
        body = bytearray()
        if self.wire.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self.stream.send_all(self.wire.send(go_on) or b"")
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > self.limits.body_max_bytes:
                raise BadRequest(413, f"a body has at most {self.limits.body_max_bytes} bytes")
        if not isinstance(event, h11.EndOfMessage):
            raise ClientGone
        return bytes(body)

    async def _event(self) -> Any:
        while (event := self.wire.next_event()) is h11.NEED_DATA:
            data = await self.stream.receive_some(RECEIVE_BYTES)
            self.wire.receive_data(bytes(data))
            if data:
                self._hurry()
        return event

    def _hurry(self) -> None:
        """A request has begun: from here `request_s` runs, whatever trickles in."""
        self._begun = True
        if self._scope.deadline > trio.current_time() + self.limits.request_s:
            self._scope.deadline = trio.current_time() + self.limits.request_s


def _request(head: h11.Request, body: bytes) -> Request:
    try:
        target = head.target.decode("ascii")
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=16)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise BadRequest(400, f"the request's target makes no sense: {error}") from error
    return Request(head.method.decode("ascii"), path, dict(pairs), body)


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}


async def _linger(stream: trio.abc.HalfCloseableStream) -> None:
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_S), contextlib.suppress(trio.BrokenResourceError):
        await stream.send_eof()
        while left > 0 and (data := await stream.receive_some(RECEIVE_BYTES)):
            left -= len(data)
