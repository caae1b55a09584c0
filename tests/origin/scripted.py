"""A server that answers each request with exactly the bytes that a test wrote down."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio


class Received:
    """One request's line and headers (lower case)."""

    def __init__(self, head: bytes) -> None:
        line, *rest = head.decode("latin-1").split("\r\n")
        self.line = line
        self.target = line.split(" ")[1]
        pairs = (header.partition(":") for header in rest)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}


CLOSE = b"connection: close"
"""In an answer, or alone for no answer at all: the connection is closed after it."""
Script = Callable[[Received], bytes]


class Scripted:
    """What it was asked. `url` is its root."""

    def __init__(self, script: Script, scheme: str) -> None:
        self.script = script
        self.scheme = scheme
        self.port = 0
        self.requests: list[Received] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                request = Received(head)
                self.requests.append(request)
                answer = self.script(request)
                if answer != CLOSE:
                    await stream.send_all(answer)
                if CLOSE in answer:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client left, as some tests want it to.
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    server = Scripted(script, "http" if tls is None else "https")
    async with trio.open_nursery() as nursery:
        listeners: Any
        if tls is None:
            listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
            server.port = listeners[0].socket.getsockname()[1]
        else:
            plain = await trio.open_tcp_listeners(0, host="localhost")
            server.port = plain[0].socket.getsockname()[1]
            listeners = [trio.SSLListener(one, tls, https_compatible=True) for one in plain[:1]]
            nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


def answer(status: int, body: bytes = b"", **headers: str | int) -> bytes:
    """An answer with a right Content-Length, unless `headers` say another (None leaves it out)."""
    said = {"content-length": len(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items() if value is not None)
    return f"HTTP/1.1 {status} Words\r\n{lines}\r\n".encode("latin-1") + body
