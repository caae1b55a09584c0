"""Twin of TcpTransport: connections in this process, so that the clock may jump.

A connection holds what was sent, at most `room_bytes` of it and a write more; it can be cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair

from peerd.errors import PeerUnreachable
from peerd.link.wire import DialRefused, Listener, Wire

MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class Flow:
    """Bytes of one direction that were written and not read."""

    def __init__(self, room_bytes: float) -> None:
        self._room_bytes = room_bytes
        self._held_bytes = 0
        self._read = trio.Event()

    async def room(self) -> None:
        while self._held_bytes > self._room_bytes:
            await self._read.wait()

    def change(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._read.set()
        self._read = trio.Event()


class MemoryWire:
    def __init__(
        self, network: MemoryNetwork, stream: MemoryStream, remote: str, out: Flow, back: Flow
    ) -> None:
        self._network = network
        self._out, self._back = out, back
        self.remote = remote
        self.stream: trio.abc.HalfCloseableStream = stream
        self._stream = stream

    async def receive_into(self, view: memoryview) -> int:
        try:
            data = await self._stream.receive_some(len(view))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error
        if self._network.holds_s:
            await trio.sleep(self._network.holds_s)
        view[: len(data)] = data
        self._back.change(-len(data))
        return len(data)

    def allow_unsent(self, size_bytes: int) -> None:
        """`room_bytes` says it."""

    def expect(self, size_bytes: int) -> None:
        """It costs nothing to wake here."""

    async def wait_sent(self) -> None:
        await self._out.room()

    async def send_all(self, view: memoryview) -> None:
        await self._out.room()
        self._out.change(len(view))
        try:
            await self._stream.send_all(bytes(view))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error

    async def send_eof(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerUnreachable("the connection broke") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class MemoryListener:
    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self.address = address
        self._network = network
        self.knock, self._calls = trio.open_memory_channel[Wire](1000)

    async def accept(self) -> Wire:
        return await self._calls.receive()

    async def aclose(self) -> None:
        self._network.listeners.pop(self.address, None)
        self._calls.close()


class MemoryNetwork:
    """A Transport that all peers of a test share. `delay_s` is how long a dial takes, `holds_s` how
    long whatever is sent is on its way."""

    def __init__(self, room_bytes: float = float("inf")) -> None:
        self._room_bytes = room_bytes
        self.listeners: dict[str, MemoryListener] = {}
        self.delay_s = self.holds_s = 0.0
        self.wires: list[tuple[MemoryWire, MemoryWire]] = []

    async def dial(self, address: str) -> Wire:
        await trio.sleep(self.delay_s)
        listener = self.listeners.get(address)
        if listener is None:
            raise DialRefused
        near, far = memory_stream_pair()
        there, back = Flow(self._room_bytes), Flow(self._room_bytes)
        pair = (
            MemoryWire(self, near, address, there, back),
            MemoryWire(self, far, "somewhere", back, there),
        )
        self.wires.append(pair)
        await listener.knock.send(pair[1])
        return pair[0]

    async def listen(self, address: str) -> Sequence[Listener]:
        listener = self.listeners[address] = MemoryListener(self, address)
        return [listener]

    async def cut_all(self) -> None:
        """Every connection ends at once, as if both ends' hosts had lost power."""
        for pair in self.wires:
            for wire in pair:
                await trio.aclose_forcefully(wire.stream)
        self.wires.clear()
