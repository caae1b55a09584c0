"""Reading from the origin under a lease: resolve, read an extent, read a stream, audit.

Always: nothing is read without a lease, nor after its deadline unless it was renewed; a piece is
attested only by who read it, after it is in the journal.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import blake3
import msgspec
import trio

from peerd.errors import NoSpace, OriginChanged, OriginCut, OriginRefused, PeerdError, StoreDamaged
from peerd.ids import PieceIndex, TaskId
from peerd.link.messages import (
    Ended,
    LeaseInfo,
    LeaseKind,
    LeaseReport,
    Message,
    Outcome,
    Resolved,
)
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PIECE_LENGTH_MIN_BYTES
from peerd.swarm.extents import runs_of, telling, version_read
from peerd.swarm.ports import OriginBody, OriginFacts, StoredVersion
from peerd.swarm.read_turns import ReadTurns
from peerd.swarm.surroundings import Surroundings
from peerd.task import Ask

log = logging.getLogger(__name__)

WRITES_MAX: Final = 4
"""Pieces of one lease being written and journalled while the next is read."""
RENEW_MIN_S: Final = 0.1
"""A keeper that grants shorter leases than this is not asked more often."""
REPORT_MAX: Final = 256
"""Attestations in one report (messages.LeaseReport)."""


class Reader(Protocol):
    """What a read needs from the download it serves."""

    task: TaskId
    ask: Ask
    read_turns: ReadTurns

    def tell_keeper(self, message: Message) -> bool: ...
    def term(self) -> int: ...
    def origin_bytes(self, count: int) -> None: ...
    def piece_read(self, stored: StoredVersion, index: PieceIndex) -> None: ...
    async def open_version(self, info: VersionInfo) -> StoredVersion: ...
    async def length_known(self, stored: StoredVersion, info: VersionInfo) -> None: ...
    async def confirmed(self, info: VersionInfo) -> None: ...
    def not_confirmed(self, error: PeerdError) -> None: ...
    def fail(self, error: PeerdError) -> None: ...


@dataclass
class LeasedRead:
    """One lease being used. `run` returns when the lease is over, however it ended.

    `known`: the group's version, if a RESOLVE may take the origin's "not modified" for an answer.
    """

    reader: Reader
    near: Surroundings
    info: LeaseInfo
    stored: StoredVersion | None
    indices: tuple[int, ...]
    known: VersionInfo | None = None
    _made: list[Attestation] = field(default_factory=list)
    _read_bytes: int = 0
    _outcome: tuple[Outcome, str, str] = (Outcome.RETURNED, "", "")
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self) -> None:
        """Until it is read, it failed, or the deadline came: then the lease is given back.

        What is journalled by then stays attested. Cancelled: nothing is said any more.
        """
        self.renewed(self.info)
        with self._scope:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._renew)
                    await self._read()
                    nursery.cancel_scope.cancel()
            except* PeerdError as group:
                self._failed(telling(group))
        self._report(*self._outcome)

    def renewed(self, info: LeaseInfo) -> None:
        """The keeper gives more time, or calls the lease a STREAM from here on."""
        self.info = info
        self._scope.deadline = trio.current_time() + info.expires_in_s

    def revoke(self) -> None:
        """The keeper wants it back."""
        self._scope.cancel()

    def standing(self) -> LeaseInfo:
        """The lease with the time that is left, as a new keeper has to hear of it."""
        left_s = max(0.0, self._scope.deadline - trio.current_time())
        return msgspec.structs.replace(self.info, expires_in_s=left_s)

    async def _read(self) -> None:
        if self._beyond_the_end():
            log.warning("lease %d is for pieces that do not exist", self.info.lease)
            return
        match self.info.kind:
            case LeaseKind.RESOLVE:
                await self._resolve()
            case LeaseKind.READ:
                await self._extent()
            case LeaseKind.STREAM:
                await self._stream()
            case LeaseKind.AUDIT:
                await self._audit()
        self._outcome = (Outcome.DONE, "", "")

    def _beyond_the_end(self) -> bool:
        """The keeper knows another length, or lies."""
        count = self.stored.info.piece_count if self.stored else None
        if self.info.kind is LeaseKind.RESOLVE or count is None:
            return False
        if self.info.kind is LeaseKind.READ:
            return max(self.indices, default=-1) >= count
        if self.info.kind is LeaseKind.AUDIT:
            return self.info.first + self.info.count > count
        return self.info.first >= count > 0

    # --- the four kinds

    async def _resolve(self) -> None:
        """A ranged GET for the first 256 KiB; a larger piece 0 takes a second one."""
        last, known = PIECE_LENGTH_MIN_BYTES - 1, self.known
        unless = known.validator if known is not None else None
        async with self.near.origin.open(self.reader.ask, last_byte=last, unless=unless) as body:
            if body.facts.not_modified and known is not None:
                await self.reader.open_version(known.verified())
                await self._unchanged(known)
                return
            digest = self.reader.ask.spec.digest
            info = version_read(self.reader.task, digest, body.facts, self.near.key)
            held = self.stored.info if self.stored else None
            if held is not None and held.version == info.version and held.ranged == info.ranged:
                await self._unchanged(held)
                return
            stored = self.stored = await self.reader.open_version(info)
            self.reader.tell_keeper(
                Resolved(self.reader.task, self.reader.term(), self.info.lease, info, False)
            )
            await self.reader.confirmed(info)
            in_part = body.facts.ranged
            if not info.ranged and not in_part:
                await self._stream_from(stored, body, 0)
            elif info.ranged and info.piece_length_bytes <= PIECE_LENGTH_MIN_BYTES:
                await self._pieces_from(stored, body, 0, 1)
        if not info.ranged and in_part:
            # What ends here is the range that was asked for, not the content.
            await self._stream()
        if info.ranged and info.piece_length_bytes > PIECE_LENGTH_MIN_BYTES:
            await self._ranged(stored, 0, 1)

    async def _unchanged(self, known: VersionInfo) -> None:
        await self.reader.confirmed(known)
        self.reader.tell_keeper(
            Resolved(self.reader.task, self.reader.term(), self.info.lease, known, True)
        )

    async def _extent(self) -> None:
        """Runs of pieces that are still wanted, a ranged GET each."""
        assert self.stored is not None, "a READ lease without a version"
        async with self.reader.read_turns.turn() as over:
            runs = runs_of(self.indices)
            for number, (first, count) in enumerate(runs, 1):
                last = number == len(runs)
                await self._ranged(self.stored, first, count, over if last else None)

    async def _ranged(
        self, stored: StoredVersion, first: int, count: int, then: Callable[[], None] | None = None
    ) -> None:
        info = stored.info
        start = info.span(first)[0]
        offset, size = info.span(first + count - 1)
        if offset + size == start:
            return
        async with self._range(info, start, offset + size - 1) as body:
            await self._pieces_from(stored, body, first, count, then)

    @asynccontextmanager
    async def _range(
        self, info: VersionInfo, first_byte: int, last_byte: int
    ) -> AsyncIterator[OriginBody]:
        """Exactly these bytes, for pieces are cut by their place: OriginChanged where the origin
        sends all of it instead."""
        async with self.near.origin.open(
            self.reader.ask, first_byte=first_byte, last_byte=last_byte, expect=_facts(info)
        ) as body:
            if body.facts.first_byte != first_byte:
                raise OriginChanged("the origin does not answer ranges any more; try again")
            yield body

    async def _stream(self) -> None:
        """One response from the first piece that nobody holds; unranged origins start at byte 0."""
        assert self.stored is not None, "a STREAM lease without a version"
        info = self.stored.info
        start = info.span(self.info.first)[0] if info.ranged else 0
        async with self.near.origin.open(
            self.reader.ask, first_byte=start, expect=_facts(info)
        ) as body:
            await self._stream_from(self.stored, body, body.facts.first_byte)

    async def _stream_from(self, stored: StoredVersion, body: OriginBody, start: int) -> None:
        info = stored.info
        count = info.piece_count
        first = start // info.piece_length_bytes
        wanted = None if count is None else count - first
        read = await self._pieces_from(stored, body, first, wanted)
        if info.length_bytes is None:
            await self._end(stored, start + read)

    async def _end(self, stored: StoredVersion, length: int) -> None:
        known = stored.info
        ended = VersionInfo(
            known.task, known.version, length, known.piece_length_bytes, known.validator,
            known.ranged, known.digest, known.attester, known.signature,
        ).signed(self.near.key)  # fmt: skip
        await self.reader.length_known(stored, ended)
        self.reader.tell_keeper(Ended(self.reader.task, self.reader.term(), ended))

    async def _audit(self) -> None:
        """Read again what another attested; the bytes are not kept, the digest is said."""
        assert self.stored is not None, "an AUDIT lease without a version"
        info = self.stored.info
        for index in range(self.info.first, self.info.first + self.info.count):
            offset, size = info.span(index)
            async with self._range(info, offset, offset + size - 1) as body:
                hasher = blake3.blake3()
                async for part in self._parts(body):
                    hasher.update(part)
            digest = hasher.digest()
            self._made.append(
                Attestation.made(self.near.key, info.version, PieceIndex(index), digest)
            )

    # --- pieces out of a body

    async def _pieces_from(
        self, stored: StoredVersion, body: OriginBody, first: int, count: int | None,
        then: Callable[[], None] | None = None,
    ) -> int:  # fmt: skip
        """Cuts the body into pieces and holds those that are not held. Returns its bytes.

        `then` is called when all has come, while the last of it may still be written.
        """
        info, index, total = stored.info, first, 0
        limiter = trio.CapacityLimiter(WRITES_MAX)
        parts: list[memoryview] = []
        have = 0
        size = info.span(index)[1] if count != 0 and info.length_bytes != 0 else 0
        async with trio.open_nursery() as writers, aclosing(self._parts(body)) as received:
            async for part in received:
                view = memoryview(part)
                total += len(view)
                while len(view) >= size - have > 0:
                    cut = size - have
                    parts.append(view[:cut])
                    view, have = view[cut:], 0
                    await self._start_write(writers, limiter, stored, index, parts)
                    parts, index = [], index + 1
                    if count is not None and index >= first + count:
                        size = 0
                        break
                    size = info.span(index)[1]
                if len(view) and size:
                    parts.append(view)
                    have += len(view)
                if not size:
                    break
            if then is not None:
                then()
            if have and info.length_bytes is not None:
                raise OriginCut(f"the origin ended in the middle of piece {index}; try again")
            if parts:
                await self._start_write(writers, limiter, stored, index, parts)
        return total

    async def _parts(self, body: OriginBody) -> AsyncGenerator[bytes, None]:
        while part := await body.read():
            self._read_bytes += len(part)
            self.reader.origin_bytes(len(part))
            yield part

    async def _start_write(
        self,
        writers: trio.Nursery,
        limiter: trio.CapacityLimiter,
        stored: StoredVersion,
        index: int,
        parts: list[memoryview],
    ) -> None:
        """At most WRITES_MAX at once: the origin waits when the disk is slow."""
        token = object()
        await limiter.acquire_on_behalf_of(token)
        release = lambda: limiter.release_on_behalf_of(token)  # noqa: E731
        writers.start_soon(self._write, stored, PieceIndex(index), parts, release)

    async def _write(
        self,
        stored: StoredVersion,
        index: PieceIndex,
        parts: list[memoryview],
        release: Callable[[], None],
    ) -> None:
        try:
            if index in stored.held:
                return
            made = await self.near.offload(self._hash_and_write, stored, index, parts)
            await stored.acknowledge(index, made)
            if index not in stored.held:
                return
            self._made.append(made)
            self.reader.piece_read(stored, index)
        finally:
            release()

    def _hash_and_write(
        self, stored: StoredVersion, index: PieceIndex, parts: list[memoryview]
    ) -> Attestation:
        hasher = blake3.blake3()
        for part in parts:
            hasher.update(part)
        try:
            stored.write(index, parts)
        except ValueError as error:
            raise OriginChanged(f"the content became shorter while it was read: {error}") from error
        except OSError as error:
            raise StoreDamaged(f"piece {index} cannot be written: {error}") from error
        return Attestation.made(self.near.key, stored.info.version, index, hasher.digest())

    # --- the lease

    async def _renew(self) -> None:
        """Asks for more time as long as bytes come; else the read ends with the lease.

        Until the first byte the origin's own limits hold (retries and Retry-After are bounded).
        """
        seen = 0
        while True:
            await trio.sleep(max(RENEW_MIN_S, self.info.expires_in_s / 3))
            if self._read_bytes > seen or self._read_bytes == 0:
                self._report(Outcome.PROGRESS, "", "")
            seen = self._read_bytes

    def _report(self, outcome: Outcome, code: str, words: str) -> None:
        """Says how the lease stands and hands over what was attested since the last time."""
        while True:
            batch = tuple(self._made[:REPORT_MAX])
            last = len(batch) == len(self._made)
            self.reader.tell_keeper(
                LeaseReport(
                    self.reader.task,
                    self.reader.term(),
                    self.info.lease,
                    outcome if last else Outcome.PROGRESS,
                    batch,
                    code,
                    words[:512],
                )
            )
            del self._made[: len(batch)]
            if last:
                return

    def _failed(self, error: PeerdError) -> None:
        log.info("lease %d (%s): %s: %s", self.info.lease, self.info.kind.name, error.code, error)
        if isinstance(error, (NoSpace, StoreDamaged)):
            self._outcome = (Outcome.FAILED, error.code, str(error))
            self.reader.fail(error)
            return
        if self.info.kind is LeaseKind.RESOLVE and self.stored is not None:
            self.reader.not_confirmed(error)
        refused = isinstance(error, OriginRefused)
        self._outcome = (Outcome.REFUSED if refused else Outcome.FAILED, error.code, str(error))


def _facts(info: VersionInfo) -> OriginFacts:
    return OriginFacts(info.length_bytes, info.validator, info.ranged, 0)
