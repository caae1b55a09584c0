"""TCP and TLS under the HTTP client: large reads, and an eye on what a server sends too much.

Always: a connection that gave more bytes than its answer's Content-Length is not used again: the
rest would be read as the next answer; nothing is sent to an address where clouds keep their
machines' credentials; failures are httpcore's, which the pool above understands.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import trio

from peerd.origin.routes import is_refused_address
from peerd.origin.tls import TlsStream

READ_MIN_BYTES = 64 * 1024
READ_MAX_BYTES = 1024 * 1024
"""Measured over loopback on an idle machine: 64 KiB a read 0.44 GB/s, 256 KiB 0.68, 1 MiB 0.96."""
HEAD_MAX_BYTES = 128 * 1024
"""Above what httpcore allows an answer's head (100 KiB): where to stop looking for its end."""


class AddressRefused(OSError):
    """The name led to an address that is not read from."""


class OriginBackend(httpcore.AsyncNetworkBackend):
    """How the pool opens connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> OriginStream:
        try:
            with trio.fail_after(_seconds(timeout)):
                stream = await trio.open_tcp_stream(host, port, local_address=local_address)
        except trio.TooSlowError as error:
            raise httpcore.ConnectTimeout("nobody answers") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        address = stream.socket.getpeername()[0]
        if is_refused_address(address):
            await stream.aclose()
            refused = AddressRefused(f"it leads to {address}")
            raise httpcore.ConnectError(str(refused)) from refused
        return OriginStream(stream)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class OriginStream(httpcore.AsyncNetworkStream):
    """One connection. `excess` after an answer with a Content-Length: it is not to be reused."""

    def __init__(self, stream: trio.SocketStream | TlsStream) -> None:
        self._stream = stream
        self._read_size_bytes = READ_MIN_BYTES
        self._answer_bytes = 0
        self._head = b""
        self._head_bytes: int | None = None
        self._spoilt = False

    def settle(self, body_bytes: int) -> None:
        """An HTTP/1.1 answer with this Content-Length was read: was it all that came?"""
        if self._head_bytes is None or self._answer_bytes != self._head_bytes + body_bytes:
            self._spoilt = True

    def spoil(self) -> None:
        """Not to be reused: nothing says where this answer ended."""
        self._spoilt = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come; more than `max_bytes`, for the parsers above take any amount."""
        size = max(max_bytes, self._read_size_bytes)
        try:
            with trio.fail_after(_seconds(timeout)):
                data = bytes(await self._stream.receive_some(size))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout("nothing came") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error
        if len(data) == size:
            self._read_size_bytes = min(2 * self._read_size_bytes, READ_MAX_BYTES)
        elif len(data) < size // 4:
            self._read_size_bytes = max(self._read_size_bytes // 2, READ_MIN_BYTES)
        self._answer_bytes += len(data)
        if self._head_bytes is None:
            self._look_for_body(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        self._answer_bytes, self._head, self._head_bytes = 0, b"", None
        try:
            with trio.fail_after(_seconds(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout("nothing was taken") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> OriginStream:
        secured = TlsStream(self._stream, ssl_context, server_hostname)
        try:
            with trio.fail_after(_seconds(timeout)):
                await secured.handshake()
        except trio.TooSlowError as error:
            await self.aclose()
            raise httpcore.ConnectTimeout("the TLS handshake took too long") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as error:
            await self.aclose()
            raise httpcore.ConnectError(f"TLS: {error}") from error
        except BaseException:
            await self.aclose()
            raise
        return OriginStream(secured)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._stream, TlsStream):
            return self._stream
        if info == "is_readable":
            return self._spoilt or self._socket().is_readable()
        if info == "socket":
            return self._socket()
        return None

    def _socket(self) -> trio.socket.SocketType:
        stream = self._stream
        while isinstance(stream, TlsStream):  # Twice, where the proxy too speaks TLS.
            stream = stream.transport
        return stream.socket

    def _look_for_body(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            self._head_bytes = end + 4
        if end >= 0 or len(self._head) > HEAD_MAX_BYTES:
            self._head = b""


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout
