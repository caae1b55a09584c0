"""One end of a circuit as a Wire: a link runs over it as over a TCP connection.

Always: bytes come in the order they were sent, or PeerUnreachable says in words why no more come;
what waits to be read is at most a window, for the sender has no more credit.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from peerd.errors import PeerUnreachable
from peerd.ids import PeerId
from peerd.link.circuits import MESSAGE_MIN_COST_BYTES, LegId, cost_bytes
from peerd.link.own_messages import CIRCUIT_DATA_MAX_BYTES


class Carrier(Protocol):
    """What a wire needs of the links that carry it."""

    def room_bytes(self, leg: LegId) -> int: ...
    def send(self, leg: LegId, data: bytes) -> None: ...
    def took(self, leg: LegId, cost: int) -> None: ...
    def close(self, leg: LegId, words: str) -> None: ...
    async def queue_room(self, relay: PeerId) -> None: ...


class CircuitWire:
    def __init__(self, leg: LegId, carrier: Carrier) -> None:
        self.relay = leg.peer
        self.remote = f"via {leg.peer}"
        self.stream: trio.abc.HalfCloseableStream = CircuitStream(self)
        self._leg = leg
        self._carrier = carrier
        self._inbox: deque[bytes] = deque()
        self._read_bytes = 0  # of the first in the inbox
        self._ended = False
        self._opened = False
        self._words: str | None = None  # why it was closed
        self._news = trio.Event()

    # --- for the carrier

    def opened(self) -> None:
        self._opened = True
        self._tell()

    def arrived(self, data: bytes) -> None:
        if data:
            self._inbox.append(data)
        else:
            self._ended = True
        self._tell()

    def room(self) -> None:
        self._tell()

    def closed(self, words: str) -> None:
        if self._words is None:
            self._words = words
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- for the link

    async def until_open(self) -> None:
        """PeerUnreachable where the relay, or the peer, does not want it."""
        while not self._opened:
            self._check_open()
            await self._news.wait()

    async def receive_into(self, view: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self._ended:
                return 0
            self._check_open()
            await self._news.wait()
        data = self._inbox[0]
        part = memoryview(data)[self._read_bytes : self._read_bytes + len(view)]
        view[: len(part)] = part
        self._read_bytes += len(part)
        if self._read_bytes == len(data):
            self._inbox.popleft()
            self._read_bytes = 0
            self._carrier.took(self._leg, cost_bytes(data))
        return len(part)

    async def send_all(self, view: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        sent = 0
        while sent < len(view):
            room = min(await self._room(), CIRCUIT_DATA_MAX_BYTES)
            data = bytes(view[sent : sent + room])
            self._carrier.send(self._leg, data)
            sent += len(data)

    def allow_unsent(self, size_bytes: int) -> None:
        """The circuit's window bounds it already."""

    def expect(self, size_bytes: int) -> None:
        """It comes in whole messages anyway."""

    async def wait_sent(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await self._room()
        self._carrier.send(self._leg, b"")

    async def aclose(self) -> None:
        self._carrier.close(self._leg, "the other end closed it")
        self.closed("this end closed it")
        await trio.lowlevel.checkpoint()

    async def _room(self) -> int:
        """What may be sent now: at least one message's least cost."""
        await self._carrier.queue_room(self.relay)
        while True:
            self._check_open()
            room = self._carrier.room_bytes(self._leg)
            if room >= MESSAGE_MIN_COST_BYTES:
                return room
            await self._news.wait()

    def _check_open(self) -> None:
        if self._words is not None:
            raise PeerUnreachable(f"the circuit through {self.relay} ended: {self._words}")


class CircuitStream(trio.abc.HalfCloseableStream):
    """For the handshake."""

    def __init__(self, wire: CircuitWire) -> None:
        self._wire = wire

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        buffer = bytearray(max_bytes or CIRCUIT_DATA_MAX_BYTES)
        try:
            count = await self._wire.receive_into(memoryview(buffer))
        except PeerUnreachable as error:
            raise trio.BrokenResourceError(str(error)) from error
        return bytes(buffer[:count])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._wire.send_all(memoryview(data))
        except PeerUnreachable as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def send_eof(self) -> None:
        try:
            await self._wire.send_eof()
        except PeerUnreachable as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._wire.aclose()
