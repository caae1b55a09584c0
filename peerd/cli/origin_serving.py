"""The serving half of the origin to try peerd with: HTTP/1.1 by hand, with faults on order.

Always: what it says it sent, it gave to the kernel; nothing is counted before. Standard library
alone; a thread for each connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from peerd.rate import TokenBucket

HEAD_MAX_BYTES = 64 * 1024
SLICE_BYTES = 256 * 1024
"""At most so much is sent between two looks at rate, cut and count."""
SEND_BUFFER_BYTES = 512 * 1024
"""Bounds what the kernel took from us and the client never read: it counts as sent."""
STATS_PATH = "/.stats"


@dataclass(frozen=True)
class Faults:
    """What is wrong with this origin; the flags of the same names say what each does."""

    no_range: bool = False
    require_header: tuple[str, str] | None = None
    chunked: bool = False
    no_validator: bool = False
    rate: int | None = None
    cut_after: int | None = None
    cut_times: int | None = None
    stall_after: int | None = None
    stall_times: int | None = None
    status_first: tuple[int, int] | None = None
    retry_after: str | None = None
    change_after: int | None = None
    connection_delay: float = 0.0


@dataclass
class Stats:
    """What was asked for and sent, by all connections. Hold `lock` to change it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    body_bytes: int = 0
    requests: int = 0
    ranged: int = 0
    connections: int = 0
    cuts: int = 0
    stalls: int = 0
    refused_first: int = 0
    bytes_by_path: Counter[str] = field(default_factory=Counter)
    requests_by_path: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    def as_json(self) -> bytes:
        with self.lock:
            paths = {
                path: {"requests": count, "body_bytes": self.bytes_by_path[path]}
                for path, count in self.requests_by_path.items()
            }
            return json.dumps(
                {
                    "body_bytes": self.body_bytes,
                    "requests": self.requests,
                    "ranged": self.ranged,
                    "connections": self.connections,
                    "cuts": self.cuts,
                    "stalls": self.stalls,
                    "statuses": {str(status): count for status, count in self.statuses.items()},
                    "by_path": paths,
                }
            ).encode()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Content:
    """An open file and what names its version."""

    descriptor: int
    size_bytes: int
    etag: str


class Library(Protocol):
    """What there is to serve."""

    changed: bool

    def open(self, path: str) -> Content | None:
        """None: there is nothing by that name. The caller closes the descriptor."""
        ...


class OriginServer:
    """A thread for each connection. `port` is known once it is made."""

    def __init__(self, library: Library, faults: Faults, host: str, port: int) -> None:
        self.library = library
        self.faults = faults
        self.stats = Stats()
        self.bucket = TokenBucket(faults.rate, burst_bytes=64 * 1024)
        self._listener = socket.create_server((host, port), backlog=1024)
        self.host, self.port = host, int(self._listener.getsockname()[1])

    def serve_forever(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # Closed.
            with self.stats.lock:
                self.stats.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(self.faults.connection_delay)
        try:
            with connection:
                Conversation(self, connection).run()
        except (OSError, ValueError):
            pass  # The client went away, or sent what is no HTTP: it knows why.


class Conversation:
    """One connection's requests, one after the other."""

    def __init__(self, server: OriginServer, connection: socket.socket) -> None:
        self._server = server
        self._faults = server.faults
        self._connection = connection
        self._buffer = b""
        self._room = select.poll()
        self._room.register(connection, select.POLLOUT)

    def run(self) -> None:
        while (request := self._receive()) is not None:
            if not self._answer(request):
                return

    def _receive(self) -> Request | None:
        while b"\r\n\r\n" not in self._buffer:
            data = self._connection.recv(HEAD_MAX_BYTES)
            self._buffer += data
            # A TLS client would wait for us to speak TLS, and we for the end of its request.
            if not data or len(self._buffer) > HEAD_MAX_BYTES or not self._buffer[:1].isalpha():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        path = target.partition("://")[2].partition("/")[2] if "://" in target else target[1:]
        return Request(method, "/" + path.partition("?")[0], headers)

    def _answer(self, request: Request) -> bool:
        """Whether the connection may go on."""
        if request.path == STATS_PATH:
            body = self._server.stats.as_json()
            head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            self._connection.sendall(_head(200, head) + body)
            return True
        status = self._refusal(request)
        if status is not None:
            return self._refuse(request, status)
        content = self._server.library.open(request.path)
        if content is None:
            return self._refuse(request, 404)
        try:
            return self._send(request, content)
        finally:
            os.close(content.descriptor)

    def _refusal(self, request: Request) -> int | None:
        if request.method not in ("GET", "HEAD"):
            return 405
        required = self._faults.require_header
        if required is not None and request.headers.get(required[0]) != required[1]:
            return 401
        if self._faults.status_first is not None:
            count, status = self._faults.status_first
            with self._server.stats.lock:
                if self._server.stats.refused_first < count:
                    self._server.stats.refused_first += 1
                    return status
        return None

    def _refuse(self, request: Request, status: int, **headers: str) -> bool:
        self._count_request(request, status)
        if self._faults.retry_after is not None and status in (429, 503):
            headers["Retry-After"] = self._faults.retry_after
        self._connection.sendall(_head(status, headers | {"Content-Length": "0"}))
        return True

    def _send(self, request: Request, content: Content) -> bool:
        headers = {"Content-Type": "application/octet-stream"}
        if not self._faults.no_validator:
            headers["ETag"] = content.etag
            if request.headers.get("if-none-match") == content.etag:
                self._count_request(request, 304)
                self._connection.sendall(_head(304, headers))
                return True
            if request.headers.get("if-match", content.etag) not in (content.etag, "*"):
                return self._refuse(request, 412, ETag=content.etag)
        status, first, last = 200, 0, content.size_bytes - 1
        if not self._faults.no_range:
            headers["Accept-Ranges"] = "bytes"
            span = self._span(request, content)
            if span == ():
                return self._refuse(
                    request, 416, **{"Content-Range": f"bytes */{content.size_bytes}"}
                )
            if span:
                status, (first, last) = 206, span
                headers["Content-Range"] = f"bytes {first}-{last}/{content.size_bytes}"
        if self._faults.chunked:
            headers["Transfer-Encoding"] = "chunked"
            if status == 206:
                headers["Content-Range"] = f"bytes {first}-{last}/*"
        else:
            headers["Content-Length"] = str(last - first + 1)
        self._count_request(request, status)
        self._connection.sendall(_head(status, headers))
        if request.method == "HEAD":
            return True
        self._connection.setblocking(False)
        try:
            return self._send_body(request.path, content, first, last)
        finally:
            self._connection.setblocking(True)

    def _span(self, request: Request, content: Content) -> tuple[int, int] | tuple[()] | None:
        """The range to send; () where there is none in the content, None: all of it."""
        asked = request.headers.get("range", "").removeprefix("bytes=")
        if_range = request.headers.get("if-range")
        if not asked or "," in asked or (if_range is not None and if_range != content.etag):
            return None
        first_text, _, last_text = asked.partition("-")
        end = content.size_bytes - 1
        if not first_text:
            suffix = int(last_text)
            first, last = max(0, content.size_bytes - suffix), end
        else:
            first, last = int(first_text), min(int(last_text or end), end)
        return (first, last) if first <= last else ()

    def _send_body(self, path: str, content: Content, first: int, last: int) -> bool:
        position, faults = first, self._faults
        while position <= last:
            sent = position - first
            size = min(SLICE_BYTES, last - position + 1)
            for limit, times, word in (
                (faults.cut_after, faults.cut_times, "cuts"),
                (faults.stall_after, faults.stall_times, "stalls"),
            ):
                if limit is None:
                    continue
                if sent < limit:
                    size = min(size, limit - sent)
                elif self._one_more(word, times):
                    return self._wait_for_the_end() if word == "stalls" else False
            if faults.rate is not None:
                size = min(size, max(4096, faults.rate // 50))
                time.sleep(self._take(size))
            position += self._send_slice(path, content.descriptor, position, size)
        if faults.chunked:
            self._give_all(None, b"0\r\n\r\n")
        return True

    def _send_slice(self, path: str, descriptor: int, position: int, size: int) -> int:
        socket_number = self._connection.fileno()
        if not self._faults.chunked:
            return self._give(path, lambda: os.sendfile(socket_number, descriptor, position, size))
        data = os.pread(descriptor, size, position)
        self._give_all(None, b"%x\r\n" % len(data))
        self._give_all(path, data)
        self._give_all(None, b"\r\n")
        return len(data)

    def _give_all(self, path: str | None, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._give(path, partial(self._connection.send, rest)) :]

    def _give(self, path: str | None, send: Callable[[], int]) -> int:
        """What the kernel took at once of a body (of framing, if there is no path).

        It is taken and counted under one lock: nobody can have received what is not counted yet.
        """
        stats, after = self._server.stats, self._faults.change_after
        while True:
            with stats.lock, contextlib.suppress(BlockingIOError):
                sent = send()
                if path is not None:
                    stats.body_bytes += sent
                    stats.bytes_by_path[path] += sent
                    if after is not None and stats.body_bytes >= after:
                        self._server.library.changed = True
                if sent == 0:
                    raise OSError("the file became shorter")
                return sent
            self._room.poll()

    def _take(self, size: int) -> float:
        with self._server.stats.lock:
            return self._server.bucket.take(size, time.monotonic())

    def _one_more(self, word: str, times: int | None) -> bool:
        stats = self._server.stats
        with stats.lock:
            done = int(getattr(stats, word))
            if times is not None and done >= times:
                return False
            setattr(stats, word, done + 1)
            return True

    def _wait_for_the_end(self) -> bool:
        self._connection.setblocking(True)
        while self._connection.recv(4096):
            pass
        return False

    def _count_request(self, request: Request, status: int) -> None:
        stats = self._server.stats
        with stats.lock:
            stats.requests += 1
            stats.ranged += "range" in request.headers
            stats.requests_by_path[request.path] += 1
            stats.statuses[status] += 1


def _head(status: int, headers: dict[str, str]) -> bytes:
    headers = {"Server": "peerd-origin", "Date": _date(), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1")


def _date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
