"""The store in memory: the twin of disk.py, for tests and the simulator. Same promises, no disk.

Always: what disk.py does with a file and a row, this does with a dict; both pass
tests/conformance/test_store.py.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping, Sequence

import blake3
import trio

from peerd.errors import NoSpace, RemoteProtocolError, StoreDamaged
from peerd.ids import PieceIndex, TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PieceSet
from peerd.store.states import PieceStates, check_successor, tells_more
from peerd.task import Ask, TaskSpec
from peerd.units import format_size


class MemoryVersion:
    """Made by MemoryStore. Implements swarm.ports.StoredVersion."""

    def __init__(self, store: MemoryStore, info: VersionInfo, used: int) -> None:
        self._store, self.states, self.used = store, PieceStates(info), used
        self.validated_at_wall_s = 0.0
        self.account = b""
        self._bytes: dict[int, bytearray] = {}
        self._contested: set[int] = set()
        self._made: dict[int, Attestation] = {}
        self._complete = False
        self.removed = False
        self._writing = threading.Lock()

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
        return self.states.suspect.copy()

    @property
    def complete(self) -> bool:
        return self._complete

    def write(self, index: PieceIndex, parts: Sequence[memoryview]) -> None:
        data = bytearray().join(parts)
        if not self.states.fits(index, len(data)):
            raise ValueError(f"piece {index} of {len(data)} bytes has no place in {self.info}")
        with self._writing:
            if self.removed:
                raise FileNotFoundError("the version was removed")
            if index in self.states.held:
                return
            if self.info.length_bytes is None and index not in self._bytes:
                self._store.take(len(data))
            if index in self._bytes:
                self._contested.add(index)
            self._bytes[index] = data

    async def acknowledge(self, index: PieceIndex, attestation: Attestation) -> None:
        assert (attestation.version, attestation.index) == (self.info.version, index)
        await trio.lowlevel.checkpoint()
        data = self._bytes.get(index)
        if data is None or index in self.states.held or not self.states.fits(index, len(data)):
            return
        if index in self._contested and blake3.blake3(data).digest() != attestation.digest:
            return
        self._contested.discard(index)
        self.states.hold(index, len(data))
        self._made[index] = attestation

    def attestation(self, index: PieceIndex) -> Attestation | None:
        return self._made.get(index)

    async def check(self, index: PieceIndex) -> bool:
        await trio.lowlevel.checkpoint()
        if index in self.states.suspect:
            if blake3.blake3(self._bytes[index]).digest() == self._made[index].digest:
                self.states.prove(index)
            else:
                self._forget([index])
        return index in self.states.held

    async def prove(self) -> None:
        for index in self.suspect:
            await self.check(index)

    def read_into(self, index: PieceIndex, offset_bytes: int, buffer: memoryview) -> None:
        if index not in self.states.held or index in self.states.suspect:
            raise OSError(errno.ENODATA, f"piece {index} is not held, or not checked yet")
        if offset_bytes < 0 or offset_bytes + len(buffer) > self.states.size_of(index):
            raise OSError(errno.EINVAL, f"piece {index} ends before that")
        buffer[:] = self._bytes[index][offset_bytes : offset_bytes + len(buffer)]

    async def drop(self, indices: Sequence[PieceIndex]) -> None:
        self._forget(indices)
        await trio.lowlevel.checkpoint()

    def _forget(self, indices: Sequence[PieceIndex]) -> None:
        gone = self.states.drop(indices)
        if gone:
            self._complete = False
        for index in indices:
            self._made.pop(index, None)
            self._bytes.pop(index, None)
            self._contested.discard(index)

    async def set_info(self, info: VersionInfo) -> None:
        await trio.lowlevel.checkpoint()
        check_successor(self.info, info, complete=self._complete)
        if info.length_bytes is None and self.info.length_bytes is not None:
            return
        if tells_more(self.info, info):
            before = self.info.length_bytes or sum(map(len, self._bytes.values()))
            self._store.take(max(0, (info.length_bytes or 0) - before))
        gone = self.states.reshape(info)
        self._forget(gone)

    async def finish(self) -> None:
        if self.info.length_bytes is None or not self.states.held.complete():
            raise ValueError(f"not complete: {self.states.held}")
        await trio.lowlevel.checkpoint()
        self._complete = self.states.held.complete()

    def descriptor(self) -> int:
        if not self._complete:
            raise ValueError("not complete")
        if self.states.suspect:
            raise StoreDamaged("not checked since a power loss; get it again")
        writable = os.memfd_create("peerd")
        try:
            for index in self.states.held:
                os.pwrite(writable, self._bytes[index], index * self.info.piece_length_bytes)
            return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)

    def retire(self) -> int:
        """Removed; returns the bytes that this frees."""
        with self._writing:
            self.removed, self._complete = True, False
            freed = self.info.length_bytes
            if freed is None:
                freed = sum(map(len, self._bytes.values()))
            self._forget(list(self.states.held))
            self._bytes.clear()
        return freed

    # --- for tests

    def lose_power(self) -> None:
        """All pieces are suspect."""
        self.states.suspect_all()

    def spoil(self, index: int) -> None:
        """Bit rot: the first byte of a piece is not what it was."""
        self._bytes[index][0] ^= 0xFF


class MemoryStore:
    """Implements swarm.ports.PieceStore. `capacity_bytes` of None: as much as there is."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self._free_bytes = capacity_bytes
        self._taking = threading.Lock()
        self._versions: dict[VersionId, MemoryVersion] = {}
        self._specs: dict[TaskId, TaskSpec] = {}
        self._counters: dict[str, int] = {}
        self._used = 0

    def take(self, size_bytes: int) -> None:
        """NoSpace if that much is not left; a negative size gives back."""
        with self._taking:
            if self._free_bytes is None:
                return
            if size_bytes > self._free_bytes:
                raise NoSpace(
                    f"no space for {format_size(size_bytes)} in memory: "
                    f"{format_size(self._free_bytes)} free; remove something (peerd task rm)"
                )
            self._free_bytes -= size_bytes

    async def create(self, ask: Ask, info: VersionInfo) -> MemoryVersion:
        await trio.lowlevel.checkpoint()
        stored = self._versions.get(info.version)
        if stored is None:
            check_successor(info, info, complete=False)
            self.take(info.length_bytes or 0)
            stored = self._versions[info.version] = MemoryVersion(self, info, 0)
        elif stored.info.task != info.task:
            raise RemoteProtocolError(f"version {info.version[:12]} is of another task")
        elif stored.states.yields_to(info) and not stored.complete:
            await stored.set_info(info)
        self._used += 1
        stored.used = self._used
        self._specs[info.task] = ask.spec
        return stored

    def versions(self, task: TaskId | None = None) -> list[MemoryVersion]:
        order = sorted(self._versions.values(), key=lambda stored: stored.used, reverse=True)
        return [stored for stored in order if task is None or stored.info.task == task]

    def find(self, version: VersionId) -> MemoryVersion | None:
        return self._versions.get(version)

    def asked(self, task: TaskId) -> Ask | None:
        spec = self._specs.get(task)
        return None if spec is None else Ask(spec)

    def validated_at(self, version: VersionId) -> float:
        stored = self._versions.get(version)
        return 0.0 if stored is None else stored.validated_at_wall_s

    def account(self, version: VersionId) -> bytes:
        stored = self._versions.get(version)
        return b"" if stored is None else stored.account

    async def set_account(self, version: VersionId, account: bytes) -> None:
        await trio.lowlevel.checkpoint()
        stored = self._versions.get(version)
        if stored is not None:
            stored.account = account

    async def set_validated(self, version: VersionId, at_wall_s: float) -> None:
        await trio.lowlevel.checkpoint()
        stored = self._versions.get(version)
        if stored is not None:
            stored.validated_at_wall_s = at_wall_s

    async def remove(self, version: VersionId) -> None:
        await trio.lowlevel.checkpoint()
        stored = self._versions.pop(version, None)
        if stored is None:
            return
        self.take(-stored.retire())
        if not self.versions(stored.info.task):
            self._specs.pop(stored.info.task, None)

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    async def add_counters(self, amounts: Mapping[str, int]) -> None:
        await trio.lowlevel.checkpoint()
        for name, amount in amounts.items():
            if amount:
                self._counters[name] = self._counters.get(name, 0) + amount
