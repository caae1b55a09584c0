"""A TCP connection as libp2p wants to see it, with a bound on what a stranger may send.

Always: a read returns exactly the bytes asked for (fewer only at the end), takes no byte more from
the socket, and asks the kernel for at most READ_MAX_BYTES at once; until `trust` is called all
reads together stay within the budget.
"""

from __future__ import annotations

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError

from peerd.errors import RemoteProtocolError

READ_MAX_BYTES = 65535 + 2
"""The largest Noise message with its length; nothing legitimate is read in larger parts."""


class BoundedStream(ReadWriteCloser):  # type: ignore[misc] # libp2p's classes are Any to mypy
    """libp2p reads multistream lengths without a limit (a varint may say 2^63) and gives up after
    100 partial reads of one message; both end here."""

    def __init__(self, stream: trio.abc.Stream, budget_bytes: int | None) -> None:
        self._stream = stream
        self._budget_bytes = budget_bytes

    def trust(self, budget_bytes: int | None = None) -> None:
        """From now on this many bytes more (None: no bound)."""
        self._budget_bytes = budget_bytes

    async def read(self, n: int | None = None) -> bytes:
        wanted = READ_MAX_BYTES if n is None else min(n, READ_MAX_BYTES)
        if self._budget_bytes is not None:
            if (n or 0) > self._budget_bytes or self._budget_bytes == 0:
                raise RemoteProtocolError("more bytes than a handshake needs before it was over")
            wanted = min(wanted, self._budget_bytes)
        parts: list[bytes] = []
        while wanted > 0:
            part = await self._receive(wanted)
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
            if self._budget_bytes is not None:
                self._budget_bytes -= len(part)
            if n is None:
                break
        return b"".join(parts)

    async def _receive(self, n: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(n))
        except trio.ClosedResourceError:
            return b""
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError(f"connection reset: {error}", transport="tcp") from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"connection closed: {error}", transport="tcp") from error

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        """None once the socket is closed, or where there is none."""
        if not isinstance(self._stream, trio.SocketStream):
            return None
        try:
            name = self._stream.socket.getpeername()
        except OSError:
            return None
        return str(name[0]), int(name[1])
