"""Sealed frames that came, opened and handed on in the order of the wire.

Always: a message is delivered after the parts of pieces that came before it, and before those that
came after; no more than INBOX_MAX_BYTES of whole frames wait, then reading stops; the event loop
opens and hashes what is small, and never waits for a disk.
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
INLINE_MAX_BYTES: Final = 128 * KIB
"""Opened, and hashed unless its piece ends there and is written, on the event loop: some 80 µs,
what a hop to a thread costs both of them (8 peers in the lab at 50 Mbit/s, all of the processors
busy: 0.88 of the processor time, with the same at the sender)."""


class _Waiting(Struct, frozen=True):
    """A frame that is not handled yet, opened or not, and the buffer that it stands in."""

    item: SealedFrame | PieceFrame
    frame: SealedFrame


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
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._under_way = False
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._finished = False
        self.piece_at = trio.current_time()

    async def put(self, frame: SealedFrame) -> Message | None:
        """A message where nothing before it is under way: it spares two changes of task.

        Else it, or what the frame has, comes through `next_message`. Waits while too much waits:
        this is the back pressure.
        """
        item: SealedFrame | PieceFrame = frame
        if frame.size_bytes <= INLINE_MAX_BYTES and not self._waiting and not self._under_way:
            parsed = self._open(frame)
            if not isinstance(parsed, PieceFrame):
                self._pool.give_back(frame.buffer)
                return parsed
            if not parsed.ends_piece:
                await self._deliver([self._chunk(parsed)])
                self._pool.give_back(frame.buffer)
                return None
            item = parsed
        while self._waiting_bytes >= INBOX_MAX_BYTES:
            self._room = trio.Event()
            await self._room.wait()
        self._waiting.append(_Waiting(item, frame))
        self._waiting_bytes += frame.size_bytes
        self._arrived.set()
        return None

    def finish(self) -> None:
        """Nothing more will come."""
        self._finished = True
        self._arrived.set()

    async def next_message(self) -> Message | None:
        """The next message, what came before it has been delivered; None at the end."""
        while True:
            while not self._waiting:
                if self._finished:
                    return None
                self._arrived = trio.Event()
                await self._arrived.wait()
            self._under_way = True
            message = await self._open_next()
            self._under_way = False
            if message is not None:
                return message

    async def _open_next(self) -> Message | None:
        """Everything that waits, up to the next message; in one hop unless it is only a message."""
        first = self._waiting[0]
        if isinstance(first.item, SealedFrame) and first.frame.size_bytes <= INLINE_MAX_BYTES:
            parsed = self._open(first.frame)
            if not isinstance(parsed, PieceFrame):
                self._taken()
                return parsed
            self._waiting[0] = _Waiting(parsed, first.frame)
        run = [each.item for each in self._waiting]
        results, message = await self._offload(lambda: self._open_run(run))
        for _ in range(len(results) + (message is not None)):
            self._taken()
        await self._deliver(results)
        return message

    def _open_run(self, run: list[SealedFrame | PieceFrame]) -> tuple[list[_Done], Message | None]:
        """In a worker thread."""
        results: list[_Done] = []
        for item in run:
            parsed = self._open(item) if isinstance(item, SealedFrame) else item
            if not isinstance(parsed, PieceFrame):
                return results, parsed
            results.append(self._chunk(parsed))
        return results, None

    def _open(self, frame: SealedFrame) -> Message | PieceFrame:
        view = memoryview(frame.buffer)[: frame.size_bytes]
        return parse_plaintext(open_frame(self._key, view))

    def _chunk(self, part: PieceFrame) -> _Done:
        """Where it ends its piece, in a worker thread: then the piece is written."""
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

    def _taken(self) -> None:
        frame = self._waiting.popleft().frame
        self._waiting_bytes -= frame.size_bytes
        self._pool.give_back(frame.buffer)
        self._room.set()
