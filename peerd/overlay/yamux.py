"""libp2p's yamux with the behaviour we need: credit by events, bounded buffers.

Always: a writer without credit sleeps until credit or the end comes; a reader gives credit back by
half windows; one connection buffers at most BUFFERED_MAX_BYTES that nobody has read.
"""

from __future__ import annotations

from typing import Any

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux as library

from peerd.units import KIB, MIB

StockStream: Any = library.YamuxStream
StockYamux: Any = library.Yamux

FRAME_MAX_BYTES = 256 * KIB
"""A whole default window; libp2p's own implementations send 64 KiB at most."""
BUFFERED_MAX_BYTES = MIB
"""Four windows: one gossip stream and gossipsub's, with room."""
STREAMS_MAX = 64
"""A neighbour needs three: gossip, and gossipsub each way. Guess, with room for retries."""


class EventStream(StockStream):  # type: ignore[misc] # libp2p's classes are Any to mypy
    """A stream whose writer waits for an event instead of polling.

    Stock: polls every 10 ms while the window is closed, is killed after 5 s without credit (a peer
    stopped for 6 s would lose what was queued for it), and sends a window update for each read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._news = trio.Event()
        self._send_window = 0
        self._closed = False
        self._consumed_bytes = 0
        super().__init__(*args, **kwargs)

    @property
    def send_window(self) -> int:
        return self._send_window

    @send_window.setter
    def send_window(self, value: int) -> None:
        self._send_window = value
        if value > 0:
            self._tell()

    @property
    def closed(self) -> bool:
        return self._closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self._closed = value
        if value:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def write(self, data: bytes) -> None:
        sent = 0
        while sent < len(data):
            while self.send_window <= 0 and not (self.closed or self.send_closed):
                await self._news.wait()
            if self.closed or self.send_closed:
                raise MuxedStreamError("the stream is closed")
            part = data[sent : sent + min(self.send_window, library.MAX_MESSAGE_SIZE - 12)]
            self.send_window -= len(part)
            header = library.struct.pack(
                library.YAMUX_HEADER_FORMAT, 0, library.TYPE_DATA, 0, self.stream_id, len(part)
            )
            sent += len(part)
            await self.conn._write_frame(header + part)

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        """Half-window updates, and a window that does not grow: our messages are ≤ 64 KiB."""
        self._consumed_bytes += bytes_read
        if self._consumed_bytes >= library.DEFAULT_WINDOW_SIZE // 2:
            credit, self._consumed_bytes = self._consumed_bytes, 0
            self.recv_window += credit
            await self.send_window_update(credit)


class BoundedYamux(StockYamux):  # type: ignore[misc] # libp2p's classes are Any to mypy
    """A connection that a remote cannot make grow: stock only warns when a window is exceeded."""

    async def _read_data_body(self, length: int) -> bytes:
        buffered = sum(len(buffer) for buffer in self.stream_buffers.values())
        if length > FRAME_MAX_BYTES or buffered + length > BUFFERED_MAX_BYTES:
            # The one exception on which libp2p closes the connection and nothing else.
            raise trio.TooSlowError("the remote ignores its windows")
        return bytes(await super()._read_data_body(length))

    async def _measure_rtt_loop(self) -> None:
        """Nothing here needs the round-trip time: windows do not grow by it, beats tell life."""


def install() -> None:
    """libp2p creates streams by this name, in two places of one 1,700-line class."""
    library.YamuxStream = EventStream
