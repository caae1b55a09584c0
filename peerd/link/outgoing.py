"""What a link has to send, and the sealed batches that it becomes.

Always: control messages go before bulk, which is piece data and circuit data, a batch of each in
turn; each kind goes in the order it was given; frames are numbered in the order they are written;
messages that wait are bounded, in number and size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Protocol, TypeVar

import trio
from msgspec import Struct

from peerd.errors import PeerdError, PeerUnreachable
from peerd.ids import PieceIndex, VersionId
from peerd.link.buffers import BufferPool
from peerd.link.frames import (
    LENGTH_BYTES,
    PIECE_HEAD_MAX_BYTES,
    SEAL_BYTES,
    DirectionKey,
    encode_attestation,
    message_frame,
    seal_frame,
    write_piece_head,
)
from peerd.link.pace import Pace
from peerd.link.ports import PieceSource
from peerd.manifest import Attestation
from peerd.rate import TokenBucket
from peerd.units import KIB, MIB

CONTROL_MAX: Final = 1024
CONTROL_MAX_BYTES: Final = 4 * MIB
"""Guess: a keeper's burst to one peer is some dozens; whoever reads slower than this is lost."""
CONTROL_BATCH_BYTES: Final = 64 * KIB
"""Sealed on the event loop: 30 µs."""
CIRCUIT_BATCH_BYTES: Final = 64 * KIB
"""At least one message: with it at most 128 KiB, sealed on the event loop as well."""
CIRCUIT_ROOM_BYTES: Final = 256 * KIB
"""Beyond so much an end of a circuit waits before it adds more: what is queued here delays the
control messages of the relayed link, not those of this one. A relay's part is bounded by the
windows."""
CIRCUIT_MAX: Final = 1 << 17
"""Twice what 64 circuits' windows allow in the smallest messages: more is not by the rules."""
INLINE_MAX_BYTES: Final = 128 * KIB
"""Of piece data that was read ahead, sealed on the event loop: 40 µs, half of what a hop costs."""
AHEAD_BYTES: Final = 256 * KIB
"""Read in one hop of a piece that goes in smaller frames; a piece of usual size whole."""
BATCH_FRAMES_MAX: Final = 16
"""Small pieces share a hop to a worker thread (50–100 µs) and a write."""

Result = TypeVar("Result")


class Offload(Protocol):
    """Runs blocking work elsewhere and waits for it, also when cancelled."""

    def __call__(self, work: Callable[[], Result]) -> Awaitable[Result]: ...


class Overflow(Exception):
    """The other side does not read what it is sent."""


class PieceJob:
    """One piece on its way out. `done` is set at the end, with `error` if it failed."""

    def __init__(
        self,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        attestation: Attestation,
        source: PieceSource,
    ) -> None:
        self.version = bytes.fromhex(version)
        self.index = index
        self.size_bytes = size_bytes
        self.attestation = encode_attestation(attestation)
        self.source = source
        self.offset_bytes = 0
        self.ahead = memoryview(b"")
        self.error: PeerdError | OSError | None = None
        self.done = trio.Event()
        self.in_hand: trio.Event | None = None

    @property
    def sealed(self) -> bool:
        return self.offset_bytes == self.size_bytes

    def read_into(self, buffer: memoryview) -> None:
        """The next bytes of the piece; blocking where they were not read ahead."""
        size = len(buffer)
        if size > len(self.ahead) and size < AHEAD_BYTES:
            ahead = memoryview(bytearray(min(AHEAD_BYTES, self.size_bytes - self.offset_bytes)))
            self.source.read_into(self.offset_bytes, ahead)
            self.ahead = ahead
        if size <= len(self.ahead):
            buffer[:] = self.ahead[:size]
            self.ahead = self.ahead[size:]
        else:
            self.source.read_into(self.offset_bytes, buffer)
            self.ahead = memoryview(b"")
        self.offset_bytes += size


class Batch(Struct, frozen=True):
    """Sealed frames that stand at the start of `buffer`; `ends` are the pieces that end in it."""

    buffer: bytearray
    size_bytes: int
    piece_bytes: int
    ends: tuple[PieceJob, ...]


class Outgoing:
    def __init__(
        self,
        key: DirectionKey,
        pool: BufferPool,
        pace: Pace,
        limit: TokenBucket,
        offload: Offload,
    ) -> None:
        self._key = key
        self._pool = pool
        self._pace = pace
        self._limit = limit
        self._offload = offload
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._pieces: deque[PieceJob] = deque()
        self._circuits: deque[bytes] = deque()
        self._circuit_bytes = 0
        self._circuit_room = trio.Event()
        self._circuits_next = False
        self._bulk_due_at: float | None = None
        self._unfinished: set[PieceJob] = set()
        self._ending = False
        self._wake = trio.Event()

    def put_message(self, encoded: bytes) -> None:
        """Overflow where too many wait already."""
        waiting_bytes = self._control_bytes + len(encoded)
        if len(self._control) >= CONTROL_MAX or waiting_bytes > CONTROL_MAX_BYTES:
            raise Overflow
        self._control.append(encoded)
        self._control_bytes = waiting_bytes
        self._wake.set()

    def put_circuit(self, encoded: bytes) -> None:
        """Circuit data, or what must not overtake it. Overflow where far too many wait."""
        if len(self._circuits) >= CIRCUIT_MAX:
            raise Overflow
        self._circuits.append(encoded)
        self._circuit_bytes += len(encoded)
        self._wake.set()

    async def circuit_room(self) -> None:
        """Until little enough circuit data waits here, or nothing will be sent any more."""
        while self._circuit_bytes >= CIRCUIT_ROOM_BYTES and not self._ending:
            await self._circuit_room.wait()

    def _tell_circuits(self) -> None:
        """All who wait, for each circuit through this link has a writer of its own."""
        self._circuit_room.set()
        self._circuit_room = trio.Event()

    def put_piece(self, job: PieceJob) -> None:
        self._pieces.append(job)
        self._unfinished.add(job)
        self._wake.set()

    async def withdraw(self, job: PieceJob) -> None:
        """The piece is not wanted any more; its source is not used after this returns."""
        while job.in_hand is not None:
            await job.in_hand.wait()
        self._unfinished.discard(job)
        if job in self._pieces:
            self._pieces.remove(job)

    def finish(self, job: PieceJob, error: PeerdError | OSError | None = None) -> None:
        """It is with the kernel, or never will be."""
        self._unfinished.discard(job)
        job.error = job.error or error
        job.done.set()

    def end(self, last: bytes | None) -> None:
        """Send the control messages that wait, then `last`, and nothing more."""
        if not self._ending:
            self._ending = True
            if last is not None:
                self._control.append(last)
            self._wake.set()
            self._tell_circuits()

    def abandon(self, words: str) -> None:
        """Nothing will be sent any more: tell those who wait."""
        self._ending = True
        self._control.clear()
        self._circuits.clear()
        self._tell_circuits()
        self._pieces.clear()
        for job in list(self._unfinished):
            self.finish(job, PeerUnreachable(words))

    async def next_batch(self) -> Batch | None:
        """What is to be written next; None when all is said."""
        while True:
            if self._control:
                return self._control_batch()
            if self._ending:
                return None
            due_at = self._bulk_due(trio.current_time())
            if due_at <= trio.current_time():
                self._bulk_due_at = None
                batch = self._circuit_batch() if self._circuits_next else await self._piece_batch()
                if batch is not None:
                    return batch
                continue
            self._wake = trio.Event()
            if due_at == inf:  # As mostly: a deadline of its own costs as much as the waiting.
                await self._wake.wait()
                continue
            with trio.move_on_at(due_at):
                await self._wake.wait()

    def _bulk_due(self, now: float) -> float:
        """When the next bulk may go. Its bytes are taken from the limit once, when first asked."""
        if not self._pieces and not self._circuits:
            return inf
        if self._bulk_due_at is None:
            last = self._circuits_next
            self._circuits_next = bool(self._circuits) and not (last and self._pieces)
            room = sum(size for _, size in self._plan())
            if self._circuits_next:
                room = min(self._circuit_bytes, CIRCUIT_BATCH_BYTES)
            self._bulk_due_at = now + self._limit.take(room, now)
        elif not self._circuits_next and not self._pieces:  # withdrawn: its turn is circuits' now
            self._circuits_next = True
        return self._bulk_due_at

    def _control_batch(self) -> Batch:
        buffer = bytearray()
        while self._control and len(buffer) < CONTROL_BATCH_BYTES:
            encoded = self._control.popleft()
            self._control_bytes -= len(encoded)
            buffer += message_frame(self._key, encoded)
        self._limit.take(len(buffer), trio.current_time())  # pieces pay for it, later
        return Batch(buffer, len(buffer), 0, ())

    def _circuit_batch(self) -> Batch:
        buffer = bytearray()
        while self._circuits and len(buffer) < CIRCUIT_BATCH_BYTES:
            encoded = self._circuits.popleft()
            self._circuit_bytes -= len(encoded)
            buffer += message_frame(self._key, encoded)
        self._tell_circuits()
        return Batch(buffer, len(buffer), 0, ())

    async def _piece_batch(self) -> Batch | None:
        parts = self._plan()
        room = sum(size for _, size in parts)
        overhead = len(parts) * (PIECE_HEAD_MAX_BYTES + SEAL_BYTES)
        buffer = self._pool.lend(room + overhead)
        if room <= INLINE_MAX_BYTES and all(size <= len(job.ahead) for job, size in parts):
            size = _seal_parts(self._key, buffer, parts)
        else:
            size = await self._seal_elsewhere(buffer, parts)
        ends = tuple(job for job, _ in parts if job.sealed and job.error is None)
        self._clear_out(parts)
        if size == 0:
            self._pool.give_back(buffer)
            return None
        return Batch(buffer, size, room, ends)

    async def _seal_elsewhere(self, buffer: bytearray, parts: list[tuple[PieceJob, int]]) -> int:
        in_hand = trio.Event()
        for job, _ in parts:
            job.in_hand = in_hand
        try:
            return await self._offload(lambda: _seal_parts(self._key, buffer, parts))
        finally:
            in_hand.set()
            for job, _ in parts:
                job.in_hand = None

    def _plan(self) -> list[tuple[PieceJob, int]]:
        """One part of the first piece, and after it as many whole ones as there is room for."""
        room = self._pace.frame_bytes
        parts: list[tuple[PieceJob, int]] = []
        for job in self._pieces:
            rest = job.size_bytes - job.offset_bytes
            size = min(rest, room)
            if parts and size < rest:
                break
            parts.append((job, size))
            room -= size
            if room <= 0 or len(parts) >= BATCH_FRAMES_MAX:
                break
        return parts

    def _clear_out(self, parts: list[tuple[PieceJob, int]]) -> None:
        for job, _ in parts:
            if job.sealed or job.error is not None:
                self._pieces.remove(job)
            if job.error is not None:
                self.finish(job)


def _seal_parts(key: DirectionKey, buffer: bytearray, parts: list[tuple[PieceJob, int]]) -> int:
    """Read and seal each part, in a worker thread unless all of it was read ahead; what cannot be
    read takes no number."""
    with memoryview(buffer) as whole:
        at = 0
        for job, size in parts:
            attestation = job.attestation if job.offset_bytes == 0 else b""
            body = whole[at + LENGTH_BYTES :]
            start = write_piece_head(
                body, job.version, job.index, job.size_bytes, job.offset_bytes, attestation
            )
            try:
                job.read_into(body[start : start + size])
            except (OSError, PeerdError) as error:
                job.error = error
                continue
            at += seal_frame(key, whole[at:], start + size)
        return at
