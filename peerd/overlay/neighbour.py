"""One gossip stream: hello, then payloads each way, until one side is gone.

Always: frames go out in the order of `send`; at most QUEUE_MAX payloads and QUEUE_MAX_BYTES wait;
a neighbour from which nothing came for `silence_max_s` is dead, though TCP may not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from msgspec import Struct

from peerd.errors import PeerdError, PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId
from peerd.overlay import hello as wire
from peerd.overlay.hello import Claim, Duplicate, Kind
from peerd.overlay.secure import remote_errors
from peerd.rate import TokenBucket
from peerd.units import MIB

QUEUE_MAX = 64
QUEUE_MAX_BYTES = MIB
"""Some 6 s of gossip at the 10 messages/s of design.md, section 5: past that it is too slow."""
READ_BYTES_S = MIB
"""What one neighbour may send: ten messages of 64 KiB a second, and half as much again."""
READ_BURST_BYTES = 4 * MIB
FRAME_COST_BYTES = 4096
"""Each frame counts as this much more: 0.7 ms of CPU. So at most some 250 small ones a second."""


class Timing(Struct, frozen=True):
    """How soon a dead neighbour is noticed, against what that costs when nothing happens.

    Three beats may be late or lost with a stopped process before it counts as dead; a beat costs
    some 1 ms at each end, so 12 neighbours 0.5 % of a core.
    """

    beat_s: float = 5.0
    silence_max_s: float = 15.0
    hello_s: float = 5.0


class FrameStream:
    """Frames on a libp2p stream. PeerUnreachable: it ended; RemoteProtocolError: nonsense."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        try:
            with remote_errors("the stream broke"):
                await self._stream.write(data)
        except RemoteProtocolError as error:
            raise PeerUnreachable(str(error)) from error

    async def receive(self) -> tuple[Kind, bytes]:
        kind, length = wire.parse_header(await self._exactly(wire.HEADER_BYTES))
        return kind, await self._exactly(length)

    async def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            try:
                with remote_errors("the stream ended"):
                    part = await self._stream.read(n - len(data))
            except RemoteProtocolError as error:
                raise PeerUnreachable(str(error)) from error
            if not part:
                raise PeerUnreachable("the stream ended")
            data += part
        return data


class Neighbour:
    """A peer whose hello was accepted, as was ours. `run` it until it ends."""

    def __init__(self, peer: PeerId, frames: FrameStream, claim: Claim, timing: Timing) -> None:
        self.peer, self.claim = peer, claim
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.why = ""
        self._frames, self._timing = frames, timing
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._news = trio.Event()
        self._bucket = TokenBucket(READ_BYTES_S, READ_BURST_BYTES)

    def send(self, payload: bytes) -> None:
        """Queues it; drops this neighbour if the queue is full."""
        if len(payload) > wire.PAYLOAD_MAX_BYTES:
            raise ValueError(f"a payload of {len(payload)} bytes; {wire.PAYLOAD_MAX_BYTES} may be")
        if len(self._queue) >= QUEUE_MAX or self._queued_bytes + len(payload) > QUEUE_MAX_BYTES:
            self.drop("it does not take what is sent to it")
            return
        self._queue.append(payload)
        self._queued_bytes += len(payload)
        self._news.set()

    def drop(self, why: str) -> None:
        """Ends it soon; `neighbour_down` follows."""
        self.why = self.why or why
        self.scope.cancel()

    async def run(self, arrived: Callable[[PeerId, bytes], None]) -> None:
        """Returns when it ended; `why` says why."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_error, self._write)
                nursery.start_soon(self._until_error, self._read, arrived)

    async def _until_error(self, job: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await job(*args)
        except (PeerdError, Duplicate) as error:
            self.drop(str(error))

    async def _write(self) -> None:
        while True:
            with trio.move_on_after(self._timing.beat_s):
                while not self._queue:
                    self._news = trio.Event()
                    await self._news.wait()
            if not self._queue:
                await self._frames.send(wire.frame(Kind.BEAT))
                continue
            payload = self._queue.popleft()
            self._queued_bytes -= len(payload)
            await self._frames.send(wire.frame(Kind.PAYLOAD, payload))

    async def _read(self, arrived: Callable[[PeerId, bytes], None]) -> None:
        while True:
            with trio.move_on_after(self._timing.silence_max_s) as limit:
                kind, body = await self._frames.receive()
            if limit.cancelled_caught:
                raise PeerUnreachable(f"nothing came for {self._timing.silence_max_s:.0f} s")
            match kind:
                case Kind.PAYLOAD:
                    arrived(self.peer, body)
                case Kind.REFUSED:
                    raise wire.refusal(body)
                case Kind.BEAT:
                    pass
                case _:
                    raise RemoteProtocolError(f"{kind.name} in the middle of a stream")
            # Not reading is the back pressure: the window closes, then the remote's queue fills.
            await trio.sleep(self._bucket.take(FRAME_COST_BYTES + len(body), trio.current_time()))
