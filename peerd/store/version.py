"""One version on disk: its file, its pieces, and what of them is acknowledged.

Always: bytes of a held piece are never written over; a piece is held in memory only after its row
was committed, and is given up in memory before its row is; a suspect piece is neither read nor
handed out. Reads and writes open the file anew each time (about 5 µs): there is no descriptor to
run out of, and none to outlive a removal.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3
import trio

from peerd.errors import NoSpace, PeerdError, StoreDamaged
from peerd.ids import PieceIndex
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PieceSet
from peerd.store import rows
from peerd.store.attested import Attested
from peerd.store.files import File, FileLayer, no_space
from peerd.store.journal import Entry, Journal
from peerd.store.layout import GROW_STEP_BYTES
from peerd.store.room import Room
from peerd.store.states import PieceStates, check_successor, tells_more
from peerd.store.writes import Writes
from peerd.units import MIB

log = logging.getLogger(__name__)

HASH_BUFFER_BYTES: Final = 1 * MIB


@dataclass(frozen=True)
class Shared:
    """What all versions of a store have in common."""

    files: FileLayer
    journal: Journal
    attested: Attested
    room: Room


class DiskVersion:
    """Made by DiskStore. Implements swarm.ports.StoredVersion."""

    def __init__(
        self, shared: Shared, path: Path, row: rows.VersionRow, states: PieceStates
    ) -> None:
        self._shared, self.path, self.number = shared, path, row.number
        self.states = states
        self.used, self.validated_at_wall_s = row.used, row.validated_at_wall_s
        self._complete = row.complete
        self._writes = Writes(lambda index: index in states.held)
        self._steps: set[int] = set()
        self._acknowledging: dict[int, trio.Event] = {}
        self._checking = trio.Lock()
        self.removed = False
        self.dirty = False

    @property
    def info(self) -> VersionInfo:
        return self.states.info

    @property
    def held(self) -> PieceSet:
        return self.states.held.copy()

    @property
    def held_bytes(self) -> int:
        return self.states.held_bytes()

    @property
    def suspect(self) -> PieceSet:
        """Held pieces that a power loss may have damaged and nobody checked since (a copy)."""
        return self.states.suspect.copy()

    @property
    def complete(self) -> bool:
        return self._complete

    # --- writing

    def write(self, index: PieceIndex, parts: Sequence[memoryview]) -> None:
        """Blocking. What is held already stays as it is. NoSpace; ValueError for a wrong size."""
        size = sum(len(part) for part in parts)
        if not self.states.fits(index, size):
            raise ValueError(f"piece {index} of {size} bytes has no place in {self.info}")
        offset = index * self.info.piece_length_bytes
        if not self._writes.begin(index, size):
            return
        done = False
        try:
            self.dirty = True
            with self._shared.files.open(self.path, "w") as file:
                self._make_room(file, offset, size)
                file.write_at(parts, offset)
            done = True
        except OSError as error:
            full = no_space(error, self.path.parent)
            if full is None:
                raise
            raise full from error
        finally:
            self._writes.end(index, done=done)

    def _make_room(self, file: File, offset: int, size: int) -> None:
        """Content of unknown length takes disk as it grows."""
        if self.info.length_bytes is not None:
            return
        room = self._shared.room
        steps = range(offset // GROW_STEP_BYTES, (offset + size - 1) // GROW_STEP_BYTES + 1)
        for step in set(steps) - self._steps:
            try:
                room.take(file, step * GROW_STEP_BYTES, GROW_STEP_BYTES, GROW_STEP_BYTES)
                self._steps.add(step)
            except NoSpace:
                room.take(file, offset, size, size)

    def has_room_up_to(self, size_bytes: int) -> None:
        """After a restart: the file has that size already."""
        self._steps.update(range(size_bytes // GROW_STEP_BYTES))

    # --- the commit point

    async def acknowledge(self, index: PieceIndex, attestation: Attestation) -> None:
        """Journals a written piece. Held already: the first one stays.

        Afterwards it is not held where it was dropped meanwhile, or where another wrote other
        bytes over it before it was acknowledged. Cancelled: it may be held or not.
        """
        assert (attestation.version, attestation.index) == (self.info.version, index)
        while (other := self._acknowledging.get(index)) is not None:
            await other.wait()
        if self.removed or index in self.states.held:
            return
        self._acknowledging[index] = trio.Event()
        entry = None
        try:
            size = await self._settled_size(index, attestation)
            if size is not None:
                entry = await self._submit(index, size, attestation)
        finally:
            if entry is None:
                self._acknowledged(index, held=False)
        if entry is not None:
            await entry.wait()

    async def _submit(self, index: PieceIndex, size: int, made: Attestation) -> Entry:
        journal = self._shared.journal

        def then(error: PeerdError | None) -> None:
            if error is None:
                self.states.hold(index, size)
                self._shared.attested.remember(self.number, made)
            self._acknowledged(index, held=error is None)

        statement = rows.piece_held(self.number, size, made, journal.era)
        return await journal.submit([statement], then, urgent=False)

    def _acknowledged(self, index: int, *, held: bool) -> None:
        self._writes.thaw(index, acknowledged=held)
        self._acknowledging.pop(index).set()

    async def _settled_size(self, index: PieceIndex, made: Attestation) -> int | None:
        """The size of the written piece, if its bytes are those that `made` attests."""
        frozen = self._writes.freeze(index)
        if frozen is None:
            log.info("piece %d of %s was dropped before it was acknowledged", index, self)
            return None
        size, contested = frozen
        if contested:
            await trio.to_thread.run_sync(self._writes.wait, index)
            digest = await trio.to_thread.run_sync(self._digest, index, size)
            if digest != made.digest:
                log.warning("piece %d of %s was written over with other bytes", index, self)
                return None
        return size if self.states.fits(index, size) else None

    async def _acknowledgements_over(self) -> None:
        while self._acknowledging:
            await next(iter(self._acknowledging.values())).wait()

    # --- reading

    def attestation(self, index: PieceIndex) -> Attestation | None:
        """Of a held piece."""
        if index not in self.states.held:
            return None
        return self._shared.attested.get(self.number, self.info.version, index)

    def read_into(self, index: PieceIndex, offset_bytes: int, buffer: memoryview) -> None:
        """Blocking: from a held piece; OSError if it cannot, or if the piece is suspect."""
        if index not in self.states.held or index in self.states.suspect:
            raise OSError(errno.ENODATA, f"piece {index} of {self} is not held, or not checked yet")
        if offset_bytes < 0 or offset_bytes + len(buffer) > self.states.size_of(index):
            raise OSError(errno.EINVAL, f"piece {index} of {self} ends before that")
        start = index * self.info.piece_length_bytes
        with self._shared.files.open(self.path, "r") as file:
            file.read_at(buffer, start + offset_bytes)

    def descriptor(self) -> int:
        """A new read-only descriptor of the whole; the caller closes it. It outlives `remove`.

        StoreDamaged while pieces are suspect: `prove` first.
        """
        if not self._complete:
            raise ValueError(f"{self} is not complete")
        if self.states.suspect:
            raise StoreDamaged(f"{self} was not checked since a power loss; get it again")
        return self._shared.files.descriptor(self.path)

    async def check(self, index: PieceIndex) -> bool:
        """Whether a held piece may be used; a suspect one is hashed first. False: not held."""
        if index in self.states.held:
            await self._shared.attested.fetch(self.number, self.info.version, index)
        if index in self.states.suspect:
            async with self._checking:
                await self._check_suspect(index)
        return index in self.states.held

    async def prove(self) -> None:
        """Checks whatever is suspect, for those who use the whole; nothing to do otherwise."""
        for index in self.suspect:
            await self.check(index)

    async def _check_suspect(self, index: PieceIndex) -> None:
        made = self.attestation(index)
        if index not in self.states.suspect or made is None:
            return
        size = self.states.size_of(index)
        try:
            right = await trio.to_thread.run_sync(self._digest, index, size) == made.digest
        except OSError as error:
            log.warning("piece %d of %s cannot be read: %s", index, self, error)
            right = False
        if not right:
            log.warning("piece %d of %s was damaged; it is fetched again", index, self)
            await self._drop([index])
        elif index in self.states.suspect:
            await self._proven(index)

    async def _proven(self, index: int) -> None:
        """Not waited for: lost, it is only checked once more."""
        era = self._shared.journal.era
        self.states.prove(index)
        statements = [rows.piece_proven(self.number, index, era)]
        if not self.states.suspect:
            statements.append(rows.version_proven(self.number, era))
        await self._shared.journal.submit(statements, urgent=False)

    def _digest(self, index: int, size: int) -> bytes:
        """Blocking: BLAKE3 of a piece as it lies in the file."""
        hasher = blake3.blake3()
        buffer = memoryview(bytearray(min(size, HASH_BUFFER_BYTES)))
        start = index * self.info.piece_length_bytes
        with self._shared.files.open(self.path, "r") as file:
            for offset in range(0, size, HASH_BUFFER_BYTES):
                part = buffer[: min(len(buffer), size - offset)]
                file.read_at(part, start + offset)
                hasher.update(part)
        return hasher.digest()

    # --- changes of mind

    async def drop(self, indices: Sequence[PieceIndex]) -> None:
        """These pieces are held no more, from the call on; returns when the journal says so."""
        async with self._checking:
            await self._drop(indices)

    async def _drop(self, indices: Sequence[PieceIndex]) -> None:
        for index in indices:
            while (event := self._acknowledging.get(index)) is not None:
                await event.wait()
        self._writes.forget(indices)
        gone = self.states.drop(indices)
        if not gone:
            return
        self._complete = False
        self._shared.attested.forget(self.number, gone)
        statements = rows.pieces_gone(self.number, gone)
        with trio.CancelScope(shield=True):
            await self._shared.journal.commit(
                *statements, rows.version_complete(self.number, complete=False)
            )

    async def set_info(self, info: VersionInfo) -> None:
        """The same version, vouched for anew: what does not fit its new length is dropped.

        Told without a length by one who does not know it yet, the known one stays.

        RemoteProtocolError if it is another content; NoSpace if there is no room for its length.
        """
        check_successor(self.info, info, complete=self._complete)
        if info.length_bytes is None and self.info.length_bytes is not None:
            return
        async with self._checking:
            if tells_more(self.info, info):
                await trio.to_thread.run_sync(self._take, info)
            await self._acknowledgements_over()
            check_successor(self.info, info, complete=self._complete)
            gone = self.states.reshape(info)
            self._shared.attested.forget(self.number, gone)
            with trio.CancelScope(shield=True):
                await self._shared.journal.commit(
                    rows.version_told(self.number, info), *rows.pieces_gone(self.number, gone)
                )

    def _take(self, info: VersionInfo) -> None:
        """Blocking: the disk that the whole of it needs, and no more."""
        length = info.length_bytes
        if length is None:
            return
        with self._shared.files.open(self.path, "w") as file:
            needed = max(0, length - file.sizes()[1])
            self._shared.room.take(file, 0, length, needed)
            file.truncate(length)
        self._shared.room.promise(self.path, length)

    async def finish(self) -> None:
        """Complete, once the journal says so; ValueError if a piece is missing."""
        length = self.info.length_bytes
        if length is None or not self.states.held.complete():
            raise ValueError(f"{self} is not complete: {self.states.held}")
        await trio.to_thread.run_sync(self._cut, length)

        def then(error: PeerdError | None) -> None:
            self._complete = error is None and self.states.held.complete()

        statement = rows.version_complete(self.number, complete=True)
        entry = await self._shared.journal.submit([statement], then)
        self._shared.room.settle(self.path)
        await entry.wait()

    def _cut(self, length: int) -> None:
        """Blocking: a late write of a piece that was beyond the end may have made it longer."""
        with self._shared.files.open(self.path, "w") as file:
            if file.sizes()[0] != length:
                file.truncate(length)
                self.dirty = True

    async def retire(self, *more: rows.Statement) -> None:
        """Removed: nothing is held, nothing is written any more, its disk is free.

        The file goes first: a full disk must not keep the journal from saying so.
        """
        self.removed = True
        self._writes.close()
        async with self._checking:
            await self._acknowledgements_over()
            self.states.drop(list(self.states.held))
            self._complete = False
            await trio.to_thread.run_sync(self._unlink)
            self._shared.room.settle(self.path)
            await self._shared.journal.commit(*rows.version_gone(self.number), *more)

    def _unlink(self) -> None:
        try:
            self._shared.files.unlink(self.path)
        except FileNotFoundError:
            log.warning("%s was gone already", self.path)

    def sync(self) -> None:
        """Blocking: what was written is on disk."""
        with self._shared.files.open(self.path, "r") as file:
            file.sync()

    def __str__(self) -> str:
        return f"version {self.info.version[:12]}"
