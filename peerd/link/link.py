"""One link: a proven connection between two peers, while it lives.

Always: four tasks share it (one seals, one writes, one reads, one opens and delivers), none waits
for another's direction; what is small is written by the one that seals it, and delivered by the one
that reads it, unless something is before it: handing it over costs more than it spares; a link that
heard nothing for `silence_max_s` while it listened, or could not get a batch rid within
`stall_max_s`, ends; it ends once, with words that say why.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from msgspec import Struct

from peerd.codec import MESSAGE_MAX_BYTES
from peerd.errors import PeerdError, PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link.buffers import BufferPool
from peerd.link.counters import Counters
from peerd.link.handshake import Introduction, discard
from peerd.link.incoming import Incoming
from peerd.link.messages import Hello, Message, Ping, Pong, Refused, encode_message
from peerd.link.outgoing import INLINE_MAX_BYTES, Batch, Offload, Outgoing, Overflow, PieceJob
from peerd.link.own_messages import (
    CircuitClose,
    CircuitCredit,
    CircuitData,
    CircuitMessage,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
)
from peerd.link.pace import Pace, RoundTrip
from peerd.link.ports import LinkHandler, PieceSource
from peerd.link.wire import Wire
from peerd.manifest import Attestation
from peerd.rate import TokenBucket

log = logging.getLogger(__name__)

_NONCES: Final = 1 << 31
PINGS_MAX: Final = 8
"""Unanswered pings remembered: those of 20 s."""


class LinkLimits(Struct, frozen=True):
    ping_every_s: float = 2.5  # Guess: 100 messages/s and 1 % of a core at 250 links
    silence_max_s: float = 10.0  # Guess: three pings lost and some
    stall_max_s: float = 30.0  # Guess: for a batch of at most 1 MiB; a disk may stall for seconds
    idle_max_s: float = 600.0  # Guess
    closing_s: float = 1.0  # Guess: to say why, and have it read
    pieces_max: int = 64  # Guess: pieces that wait in one link; callers beyond wait their turn


class Shared(Struct, frozen=True):
    """What all links of a service have in common. Buckets are for both directions' totals.

    `carry` is given the circuit messages that a link brings; RemoteProtocolError closes the link.
    """

    handler: LinkHandler
    pool: BufferPool
    upload: TokenBucket
    download: TokenBucket
    offload_out: Offload
    offload_in: Offload
    counters: Counters
    limits: LinkLimits
    carry: Callable[[PeerId, CircuitMessage], None]


class Link:
    """`relay` is through whom it goes; a direct link has none."""

    def __init__(
        self,
        wire: Wire,
        introduction: Introduction,
        shared: Shared,
        relay: PeerId | None = None,
    ) -> None:
        self.peer: PeerId = introduction.peer
        self.hello: Hello = introduction.hello
        self.dialled = introduction.dialled
        self.remote = wire.remote
        self.relay = relay
        self.opened_at = trio.current_time()
        self._used_at = self.opened_at
        self.words = ""
        self._wire = wire
        self._shared = shared
        self._assembler = introduction.assembler
        self._pace = Pace(shared.upload.rate_bytes_s)
        self._round_trip = RoundTrip()
        self._outgoing = Outgoing(
            introduction.sealing, shared.pool, self._pace, shared.upload, shared.offload_out
        )
        self._incoming = Incoming(
            self.peer,
            introduction.opening,
            shared.pool,
            shared.handler,
            shared.offload_in,
            shared.counters,
        )
        self._pieces = trio.Semaphore(shared.limits.pieces_max)
        self._scope = trio.CancelScope()
        self._listening_since: float | None = None
        self._writing_since: float | None = None
        self._handed_over = 0  # Batches that the writer was given and has not written.
        self._ping_nonce = 0
        self._pings: dict[int, float] = {}  # When those went that are not answered yet.
        self.ended = trio.Event()

    # --- for those who use it

    @property
    def up(self) -> bool:
        return not self.words

    @property
    def active_at(self) -> float:
        """When a message other than a ping, or part of a piece, last went or came."""
        return max(self._used_at, self._incoming.piece_at)

    @property
    def round_trip_s(self) -> float | None:
        return self._round_trip.seconds

    @property
    def least_round_trip_s(self) -> float | None:
        return self._round_trip.least_s

    @property
    def silent_s(self) -> float:
        """For how long we have listened and heard nothing, not even an answer to a ping."""
        since = self._listening_since
        return 0.0 if since is None else trio.current_time() - since

    @property
    def late_s(self) -> float:
        """How long the last answered ping took, or an answer has been missing for by now."""
        if self._pings:
            return trio.current_time() - next(iter(self._pings.values()))
        return self._round_trip.last_s or 0.0

    @property
    def rate_bytes_s(self) -> float | None:
        """What piece data leaves at, as it was last measured."""
        return self._pace.rate_bytes_s

    def send(self, message: Message) -> None:
        """Queue it; PeerUnreachable where the link is ending, or too much waits already."""
        self._put(self._outgoing.put_message, message)

    def send_along(self, message: Message) -> None:
        """The same, behind the circuit data that waits."""
        self._put(self._outgoing.put_circuit, message)

    def _put(self, put: Callable[[bytes], None], message: Message) -> None:
        encoded = encode_message(message)
        assert len(encoded) <= MESSAGE_MAX_BYTES, f"{type(message).__name__}: {len(encoded)} bytes"
        if not self.up:
            raise PeerUnreachable(f"the link to {self.peer} has ended: {self.words}")
        try:
            put(encoded)
        except Overflow:
            self.end("it does not read what it is sent")
            raise PeerUnreachable(f"{self.peer} does not read what it is sent") from None
        self._used_at = trio.current_time()

    async def circuit_room(self) -> None:
        """Until more circuit data may be queued, or the link ends."""
        await self._outgoing.circuit_room()

    async def send_piece(
        self,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        attestation: Attestation,
        source: PieceSource,
    ) -> None:
        """Return once the last frame is with the kernel. What `source` raises is raised here."""
        async with self._pieces:
            if not self.up:
                raise PeerUnreachable(f"the link to {self.peer} has ended: {self.words}")
            job = PieceJob(version, index, size_bytes, attestation, source)
            self._outgoing.put_piece(job)
            try:
                await job.done.wait()
            finally:
                if not job.done.is_set():
                    with trio.CancelScope(shield=True):
                        await self._outgoing.withdraw(job)
        if job.error is not None:
            raise job.error

    def close(self, code: str, words: str) -> None:
        """Send what waits and say why, for as long as `closing_s`; then end."""
        if self.up:
            self.words = words
            self._scope.deadline = trio.current_time() + self._shared.limits.closing_s
            self._outgoing.end(encode_message(Refused(code=code[:512], words=words[:512])))

    def end(self, words: str) -> None:
        """At once."""
        self.words = self.words or words
        self._scope.cancel()

    # --- its tasks

    async def run(self) -> None:
        """Until the link has ended; a cancellation ends it at once. The wire is closed then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    to_writer, batches = trio.open_memory_channel[Batch](0)
                    nursery.start_soon(self._guarded, lambda: self._seal(to_writer))
                    nursery.start_soon(self._guarded, lambda: self._write(batches))
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._guarded, self._deliver)
                    nursery.start_soon(self._watch)
        finally:
            self.words = self.words or "this peer is stopping"
            self._outgoing.abandon(f"the link to {self.peer} ended: {self.words}")
            self.ended.set()
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self._wire.aclose()

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except PeerUnreachable as error:
            self.end(str(error))
        except RemoteProtocolError as error:
            log.warning("link to %s: %s", self.peer, error)
            self.close(error.code, str(error))
        except (PeerdError, OSError) as error:  # the disk under a handler, say: not the peer's
            log.warning("link to %s: %s", self.peer, error)
            self.close(getattr(error, "code", "internal"), str(error))

    async def _seal(self, to_writer: trio.MemorySendChannel[Batch]) -> None:
        async with to_writer:
            while (batch := await self._outgoing.next_batch()) is not None:
                if not self._handed_over and batch.size_bytes <= INLINE_MAX_BYTES:
                    await self._write_batch(batch)
                else:
                    self._handed_over += 1
                    await to_writer.send(batch)

    async def _write(self, batches: trio.MemoryReceiveChannel[Batch]) -> None:
        async for batch in batches:
            await self._write_batch(batch)
            self._handed_over -= 1
        await self._wire.send_eof()  # all is said; `closing_s` is the time to read it

    async def _write_batch(self, batch: Batch) -> None:
        started_at = self._writing_since = trio.current_time()
        await self._wire.send_all(memoryview(batch.buffer)[: batch.size_bytes])
        if batch.piece_bytes:
            # Else what the kernel takes at once would count as sent, and control messages would
            # wait behind it.
            await self._wire.wait_sent()
        self._writing_since = None
        if self.relay is None:  # else the link that carries it counts
            self._shared.counters.bytes_out += batch.size_bytes
        if batch.piece_bytes:
            self._piece_batch_sent(batch, started_at)

    def _piece_batch_sent(self, batch: Batch, started_at: float) -> None:
        self._used_at = trio.current_time()
        self._pace.sent(batch.size_bytes, self._used_at - started_at)
        self._wire.allow_unsent(self._pace.unsent_bytes)
        self._shared.counters.piece_bytes_out += batch.piece_bytes
        self._shared.pool.give_back(batch.buffer)
        for job in batch.ends:
            self._outgoing.finish(job)

    async def _read(self) -> None:
        await self._guarded(self._read_frames)
        self._incoming.finish()
        if not self.up:
            await self._guarded(lambda: discard(self._wire))
            self._scope.cancel()

    async def _read_frames(self) -> None:
        receive_into, counters = self._wire.receive_into, self._shared.counters
        assembler, download = self._assembler, self._shared.download
        while self.up:
            frame = assembler.take()
            if frame is not None:
                message = await self._incoming.put(frame)
                if message is not None:
                    self._hear(message)
                continue
            self._listening_since = trio.current_time()
            self._wire.expect(assembler.missing())
            count = await receive_into(assembler.target())
            self._listening_since = None
            if not count:
                assembler.end()
                return
            assembler.filled(count)
            if self.relay is None:
                counters.bytes_in += count
            wait_s = download.take(count, trio.current_time())
            if wait_s:
                await trio.sleep(wait_s)

    async def _deliver(self) -> None:
        while (message := await self._incoming.next_message()) is not None:
            if not self.up:
                return
            self._hear(message)
        if self.up:
            self.end("it closed the connection")

    def _hear(self, message: Message) -> None:
        match message:
            case Ping(nonce=nonce):
                self._answer(Pong(nonce))
            case Pong(nonce=nonce):
                if nonce in self._pings:
                    self._round_trip.sample(trio.current_time() - self._pings[nonce])
                    self._pings = {
                        x: at for x, at in self._pings.items() if at > self._pings[nonce]
                    }
            case Refused(words=words):
                self.end(f"it closed the link: {words}")
            case Hello():
                raise RemoteProtocolError("a second Hello")
            case (
                CircuitData() | CircuitCredit() | CircuitOpen() | CircuitOffer()
                | CircuitOpened() | CircuitClose()
            ):  # fmt: skip
                self._used_at = trio.current_time()
                self._shared.carry(self.peer, message)
            case _:
                self._used_at = trio.current_time()
                self._shared.handler.message_arrived(self.peer, message)

    def _answer(self, message: Ping | Pong) -> None:
        try:
            self._outgoing.put_message(encode_message(message))
        except Overflow:
            self.end("it does not read what it is sent")

    async def _watch(self) -> None:
        limits = self._shared.limits
        while self.up:
            self._ping()
            due = trio.current_time() + limits.ping_every_s
            await trio.sleep_until(due)
            now = trio.current_time()
            if now - due >= limits.ping_every_s:
                continue  # Late by more than a ping: this process stood still, not the peer.
            listening, writing = self._listening_since, self._writing_since
            if listening is not None and now - listening > limits.silence_max_s:
                self.end(f"it was silent for {limits.silence_max_s:.0f} s")
            elif writing is not None and now - writing > limits.stall_max_s:
                self.end(f"it took nothing for {limits.stall_max_s:.0f} s")
            elif now - self.active_at > limits.idle_max_s:
                self.close("idle", f"nothing was said for {limits.idle_max_s:.0f} s")

    def _ping(self) -> None:
        self._ping_nonce = (self._ping_nonce + 1) % _NONCES
        if len(self._pings) < PINGS_MAX:
            self._pings[self._ping_nonce] = trio.current_time()
        self._answer(Ping(self._ping_nonce))
