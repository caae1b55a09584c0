"""The one file that speaks to sockets: connections as links want them, over TCP or in memory.

Always: what goes wrong outside comes inward as PeerUnreachable, in words; a Wire is read by one
task and written by one task.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from peerd.errors import PeerUnreachable, RemoteProtocolError
from peerd.units import KIB

UNSENT_MAX_BYTES: Final = 512 * KIB
"""Unsent bytes the kernel takes: enough to keep a fast link busy while the next batch is on its
way, little enough that a control message does not wait behind megabytes (measured: 16 KiB, which
is trio's, costs a wake-up each 16 KiB)."""
UNSENT_MIN_BYTES: Final = 32 * KIB
"""… and as little as this where the link is slow."""
EXPECTED_MIN_BYTES: Final = 8 * KIB
EXPECTED_MAX_BYTES: Final = 64 * KIB
"""A reader sleeps until so much of a frame is there: a wake-up costs 0.1 ms of Python. At 7 KB/s
this still comes within the silence that ends a link (10 s)."""
AT_ONCE_MAX: Final = 4
"""Reads and writes in a row that found something to do at once, before others get their turn."""
BACKLOG: Final = 512
ACCEPT_PAUSE_S: Final = 0.1
"""After accept() said that there is no descriptor left: trio.serve_listeners does the same."""
_NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


class DialRefused(PeerUnreachable):
    """The machine at that address answers; nobody listens there."""

    def __init__(self) -> None:
        super().__init__("refused the connection")


class Wire(Protocol):
    """A connection: bytes both ways. `stream` is for the handshake; nobody else uses it then."""

    remote: str
    stream: trio.abc.HalfCloseableStream

    async def receive_into(self, view: memoryview) -> int:
        """How many bytes came, 0 at the end; PeerUnreachable if the connection broke."""
        ...

    def allow_unsent(self, size_bytes: int) -> None:
        """How much the other side's slowness may leave waiting here (a hint, within limits)."""
        ...

    def expect(self, size_bytes: int) -> None:
        """So many bytes are on their way: no need to wake for each packet of them (a hint)."""
        ...

    async def send_all(self, view: memoryview) -> None: ...

    async def wait_sent(self) -> None:
        """Until no more than that waits here."""
        ...

    async def send_eof(self) -> None: ...
    async def aclose(self) -> None: ...


class Listener(Protocol):
    """`address` is the host:port that is listened on."""

    address: str

    async def accept(self) -> Wire: ...
    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Makes wires. Twin: tests/link/memory_transport."""

    async def dial(self, address: str) -> Wire:
        """PeerUnreachable (DialRefused: nobody listens there); the caller limits the time."""
        ...

    async def listen(self, address: str) -> Sequence[Listener]:
        """OSError as the system says it."""
        ...


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[v6]:port"; ValueError if it is neither."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not int(port) < 1 << 16 or not host:
        raise ValueError(f"{address!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: write an IPv6 address in brackets")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class TcpWire:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream: trio.abc.HalfCloseableStream = stream
        self._stream = stream
        self._at_once = 0
        self.remote = _remote_host(stream)
        # SocketStream has set TCP_NODELAY. Buffer sizes stay the kernel's: setting one ends its
        # tuning, and what it tunes to is larger than an unprivileged process may ask for.
        self._unsent_bytes = 0
        self._expected_bytes = 1
        self.allow_unsent(UNSENT_MAX_BYTES)

    def allow_unsent(self, size_bytes: int) -> None:
        size_bytes = max(UNSENT_MIN_BYTES, min(UNSENT_MAX_BYTES, size_bytes))
        if abs(size_bytes - self._unsent_bytes) * 4 < self._unsent_bytes:
            return  # Not worth a system call.
        self._unsent_bytes = size_bytes
        with contextlib.suppress(OSError):  # not every system has it
            self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size_bytes)

    def expect(self, size_bytes: int) -> None:
        size_bytes = min(size_bytes, EXPECTED_MAX_BYTES) if size_bytes > EXPECTED_MIN_BYTES else 1
        if size_bytes != self._expected_bytes:
            self._expected_bytes = size_bytes
            with contextlib.suppress(OSError):
                self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    async def wait_sent(self) -> None:
        try:
            await trio.lowlevel.wait_writable(self._stream.socket)
        except (OSError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error

    # trio's own methods do the same as these two, but pass the event loop each time, which costs as
    # much as all else that a small frame needs.

    async def receive_into(self, view: memoryview) -> int:
        connection = self._stream.socket
        try:
            while True:
                try:
                    count = os.readv(connection.fileno(), (view,))
                    break
                except BlockingIOError:
                    self._at_once = 0
                    await trio.lowlevel.wait_readable(connection)
            await self._give_turns()
        except (OSError, trio.ClosedResourceError) as error:
            raise PeerUnreachable(f"the connection broke: {error}") from error
        return count

    async def send_all(self, view: memoryview) -> None:
        connection = self._stream.socket
        try:
            while view:
                try:
                    view = view[os.write(connection.fileno(), view) :]
                except BlockingIOError:
                    self._at_once = 0
                    await trio.lowlevel.wait_writable(connection)
            await self._give_turns()
        except (OSError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error

    async def _give_turns(self) -> None:
        self._at_once += 1
        if self._at_once > AT_ONCE_MAX:
            self._at_once = 0
            await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class TcpListener:
    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        host, port = listener.socket.getsockname()[:2]
        self.address = join_address(host, port)

    async def accept(self) -> Wire:
        while True:
            try:
                return TcpWire(await self._listener.accept())
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                await trio.sleep(ACCEPT_PAUSE_S)

    async def aclose(self) -> None:
        await self._listener.aclose()


class TcpTransport:
    async def dial(self, address: str) -> Wire:
        try:
            host, port = split_address(address)
            return TcpWire(await trio.open_tcp_stream(host, port))
        except (OSError, ValueError) as error:
            if _refused(error):
                raise DialRefused from error
            raise PeerUnreachable(str(error) or type(error).__name__) from error

    async def listen(self, address: str) -> Sequence[Listener]:
        host, port = split_address(address)
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        return [TcpListener(each) for each in listeners]


class LimitedStream(trio.abc.HalfCloseableStream):
    """What the handshake reads from: at most so many bytes, whoever is at the other end."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, receive_max_bytes: int) -> None:
        self._stream = stream
        self._left = receive_max_bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._left <= 0:
            raise RemoteProtocolError("too many bytes before the peer was proven")
        wanted = self._left if max_bytes is None else min(max_bytes, self._left)
        data = bytes(await self._stream.receive_some(wanted))
        self._left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _remote_host(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # already gone: the first read will say so
        return "?"


def _refused(error: OSError | ValueError) -> bool:
    causes = getattr(error.__cause__, "exceptions", ())
    return any(isinstance(each, ConnectionRefusedError) for each in (error, *causes))
