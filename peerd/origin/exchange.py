"""One answer to one request: its head, and its body as the origin sends it.

Always: an answer that was not read to its end closes its connection, and is never drained, but for
a short body that nobody wanted; after one whose end only the origin knows (chunked, or more bytes
than it said), the connection is not used again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import httpcore
import trio

from peerd.origin.failures import FAILURES
from peerd.origin.ranges import parse_length
from peerd.origin.streams import OriginStream

DRAIN_MAX_BYTES = 64 * 1024
"""A redirect's or an error's body up to this is read, so that its connection can be used again."""
END_WAIT_S = 1.0
"""Guess: how long the end of an answer may take, once all its bytes are there."""
SMALL_BYTES = 4096
"""Parts below this may come a million at a time, out of one read: others must get their turn."""
CLOSE_MAX_S = 2.0
"""Closing waits for nobody; this is for what we did not think of."""


class Lane:
    """The pool an exchange runs on. Those of HTTP/2 carry one stream each, and are given back."""

    def __init__(
        self,
        pool: httpcore.AsyncConnectionPool,
        take_back: Callable[[Lane], bool] | None = None,
    ) -> None:
        self.pool = pool
        self._take_back = take_back

    async def release(self, *, reusable: bool) -> None:
        if self._take_back is not None and not (reusable and self._take_back(self)):
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
            if len(part) < SMALL_BYTES:
                await trio.lowlevel.checkpoint()
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
            await self._lane.release(reusable=self._ended)
            await self._unwind()

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
                await trio.lowlevel.checkpoint()
        except FAILURES:
            pass


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name; what stands twice is joined, so that no parser takes the first alone."""
    found: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name = name_bytes.decode("latin-1").lower()
        value = value_bytes.decode("utf-8", "replace").strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
