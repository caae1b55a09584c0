"""Sealed frames that came, opened and handed on in the order of the wire.

Always: a message is delivered after the parts of pieces that came before it, and before those that
came after; no more than INBOX_MAX_BYTES of whole frames wait, then reading stops.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio
from msgspec import Struct

from peerd.ids import PeerId
from peerd.link.assembler import SealedFrame
from peerd.link.buffers import BufferPool
from peerd.link.counters import Counters
from peerd.link.frames import DirectionKey, PieceFrame, PieceOrder, open_frame, parse_plaintext
from peerd.link.messages import Message
from peerd.link.outgoing import Offload
from peerd.link.ports import LinkHandler
from peerd.units import KIB, MIB

INBOX_MAX_BYTES: Final = MIB
INLINE_MAX_BYTES: Final = 4 * KIB
"""Opened and decoded on the event loop: some 10 µs; larger frames are worth a hop to a thread."""


class _Done(Struct, frozen=True):
    outcome: object
    size_bytes: int


class Incoming:
    """Parts of pieces go to the handler, messages to whoever asks for the next one."""

    def __init__(
        self,
        peer: PeerId,
        key: DirectionKey,
        pool: BufferPool,
        handler: LinkHandler,
        offload: Offload,
        counters: Counters,
    ) -> None:
        self._peer = peer
        self._key = key
        self._pool = pool
        self._handler = handler
        self._offload = offload
        self._counters = counters
        self._order = PieceOrder()
        self._frames: deque[SealedFrame] = deque()
        self._frames_bytes = 0
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._finished = False
        self.piece_at = trio.current_time()

    async def put(self, frame: SealedFrame) -> None:
        """Waits while too much is waiting: this is the back pressure."""
        while self._frames_bytes >= INBOX_MAX_BYTES:
            self._room = trio.Event()
            await self._room.wait()
        self._frames.append(frame)
        self._frames_bytes += frame.size_bytes
        self._arrived.set()

    def finish(self) -> None:
        """Nothing more will come."""
        self._finished = True
        self._arrived.set()

    async def next_message(self) -> Message | None:
        """The next message, what came before it has been delivered; None at the end."""
        while True:
            while not self._frames:
                if self._finished:
                    return None
                self._arrived = trio.Event()
                await self._arrived.wait()
            if self._frames[0].size_bytes <= INLINE_MAX_BYTES:
                message = await self._open_small()
            else:
                message = await self._open_large()
            if message is not None:
                return message

    async def _open_small(self) -> Message | None:
        frame = self._next()
        view = memoryview(frame.buffer)[: frame.size_bytes]
        parsed = parse_plaintext(open_frame(self._key, view))
        if not isinstance(parsed, PieceFrame):
            return parsed
        await self._deliver([await self._offload(lambda: self._chunk(parsed))])
        return None

    async def _open_large(self) -> Message | None:
        """Everything that waits, in one hop, up to the next message."""
        run = list(self._frames)
        opened, results, message = await self._offload(lambda: self._open_run(run))
        for _ in range(opened):
            self._pool.give_back(self._next().buffer)
        await self._deliver(results)
        return message

    def _open_run(self, run: list[SealedFrame]) -> tuple[int, list[_Done], Message | None]:
        """In a worker thread."""
        results: list[_Done] = []
        for count, frame in enumerate(run, start=1):
            view = memoryview(frame.buffer)[: frame.size_bytes]
            parsed = parse_plaintext(open_frame(self._key, view))
            if not isinstance(parsed, PieceFrame):
                return count, results, parsed
            results.append(self._chunk(parsed))
        return len(run), results, None

    def _chunk(self, part: PieceFrame) -> _Done:
        """In a worker thread."""
        self._order.check(part)
        outcome = self._handler.chunk_arrived(
            self._peer,
            part.version,
            part.index,
            part.size_bytes,
            part.offset_bytes,
            part.attestation,
            part.data,
        )
        return _Done(outcome, len(part.data))

    async def _deliver(self, results: list[_Done]) -> None:
        for done in results:
            self._counters.piece_bytes_in += done.size_bytes
            self.piece_at = trio.current_time()
            if done.outcome is not None:
                await self._handler.chunk_done(self._peer, done.outcome)

    def _next(self) -> SealedFrame:
        frame = self._frames.popleft()
        self._frames_bytes -= frame.size_bytes
        self._room.set()
        return frame
