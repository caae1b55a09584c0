"""The store on disk against its twin in memory, whatever is done to both.

Beside all that a store does there are clean restarts, kills and power losses that lose nothing
(tests/store/test_crash.py has those that do).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from peerd.errors import PeerdError
from peerd.ids import PieceIndex
from peerd.store.disk import DiskStore
from peerd.store.memory import MemoryStore, MemoryVersion
from peerd.store.version import DiskVersion
from tests.store.conftest import SHARED_MEMORY
from tests.store.helper import ask_of, attested, info_of, read, write

PIECE = 16
NAMES = st.sampled_from(["a", "b", "c"])
LENGTHS = st.sampled_from([None, 0, 1, 40, 48, 90])
INDICES = st.integers(0, 5)
FILLS = st.integers(0, 2)
Stored = DiskVersion | MemoryVersion
Store = DiskStore | MemoryStore


class Portal:
    """trio in a thread of its own, for the synchronous rules of a state machine."""

    def __init__(self) -> None:
        self._token: SimpleQueue[trio.lowlevel.TrioToken] = SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._loop = self._token.get()

    async def _main(self) -> None:
        self._stop = trio.Event()
        self._token.put(trio.lowlevel.current_trio_token())
        await self._stop.wait()

    def run(self, action: Callable[[], Awaitable[Any]]) -> Any:
        return trio.from_thread.run(action, trio_token=self._loop)

    def close(self) -> None:
        self._loop.run_sync_soon(lambda: self._stop.set())
        self._thread.join()


class Twins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.directory = Path(tempfile.mkdtemp(dir=parent))
        self.portal = Portal()
        self.runs = self.boots = 0
        self.memory = MemoryStore()
        self._open(self.directory / "0")

    def teardown(self) -> None:
        self.portal.run(self.stack.aclose)
        self.portal.close()
        shutil.rmtree(self.directory)

    def _open(self, data_dir: Path) -> None:
        async def enter() -> DiskStore:
            self.stack = AsyncExitStack()
            opening = DiskStore.open(data_dir, boot_id=f"boot {self.boots}")
            return await self.stack.enter_async_context(opening)

        self.data_dir = data_dir
        self.disk: DiskStore = self.portal.run(enter)

    def both(self, name: str, action: Callable[[Stored], Awaitable[object]]) -> None:
        """The same to both versions of that name, with the same outcome."""
        version = info_of(name).version
        outcomes = [
            self._outcome(store.find(version), action) for store in (self.disk, self.memory)
        ]
        assert outcomes[0] == outcomes[1]

    def _outcome(
        self, stored: Stored | None, action: Callable[[Stored], Awaitable[object]]
    ) -> object:
        if stored is None:
            return None
        found = stored

        async def act() -> object:
            return await action(found)

        try:
            return self.portal.run(act)
        except (ValueError, OSError, PeerdError) as error:
            return type(error)

    @rule(name=NAMES, length=LENGTHS)
    def create(self, name: str, length: int | None) -> None:
        async def act() -> None:
            for store in (self.disk, self.memory):
                await store.create(ask_of(name), info_of(name, length=length, piece=PIECE))

        self.portal.run(act)

    @rule(name=NAMES, index=INDICES, fill=FILLS, full=st.booleans())
    def put(self, name: str, index: int, fill: int, full: bool) -> None:
        async def act(stored: Stored) -> None:
            data = self._data(stored, index, fill, full)
            await write(stored, index, data, cut=5)
            made = attested(stored.info, index, data)
            await stored.acknowledge(PieceIndex(index), made)

        self.both(name, act)

    @rule(name=NAMES, index=INDICES, fill=FILLS)
    def only_write(self, name: str, index: int, fill: int) -> None:
        async def act(stored: Stored) -> None:
            await write(stored, index, self._data(stored, index, fill, True), cut=5)

        self.both(name, act)

    def _data(self, stored: Stored, index: int, fill: int, full: bool) -> bytes:
        info = stored.info
        size = PIECE if info.length_bytes is None else min(PIECE, info.length_bytes - index * PIECE)
        return bytes([fill]) * (max(1, size) if full else 7)

    @rule(name=NAMES, indices=st.lists(INDICES, max_size=3))
    def drop(self, name: str, indices: list[PieceIndex]) -> None:
        self.both(name, lambda stored: stored.drop(indices))

    @rule(name=NAMES, length=LENGTHS, piece=st.sampled_from([PIECE, PIECE, 8]))
    def set_info(self, name: str, length: int | None, piece: int) -> None:
        told = info_of(name, length=length, piece=piece)
        self.both(name, lambda stored: stored.set_info(told))

    @rule(name=NAMES)
    def fill_and_finish(self, name: str) -> None:
        async def act(stored: Stored) -> None:
            for index in stored.held.missing():
                data = bytes([9]) * stored.info.span(index)[1]
                await write(stored, index, data, cut=5)
                await stored.acknowledge(index, attested(stored.info, index, data))
            await stored.finish()

        self.both(name, act)

    @rule(name=NAMES, index=INDICES)
    def check(self, name: str, index: PieceIndex) -> None:
        self.both(name, lambda stored: stored.check(index))

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        async def act() -> None:
            for store in (self.disk, self.memory):
                await store.remove(info_of(name).version)

        self.portal.run(act)

    @rule(name=NAMES, at=st.floats(0, 1e9))
    def validate(self, name: str, at: float) -> None:
        async def act() -> None:
            for store in (self.disk, self.memory):
                await store.set_validated(info_of(name).version, at)
                await store.add_counters({name: int(at)})

        self.portal.run(act)

    @rule()
    def restart(self) -> None:
        self.portal.run(self.stack.aclose)
        self._open(self.data_dir)
        self._forget_what_was_not_acknowledged()

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        """A copy of the directory is what a kill leaves: the store opens on that."""
        self.runs += 1
        self.boots += power
        shutil.copytree(self.data_dir, self.directory / str(self.runs))
        self.portal.run(self.stack.aclose)
        shutil.rmtree(self.data_dir)
        self._open(self.directory / str(self.runs))
        self._forget_what_was_not_acknowledged()
        if power:
            for stored in self.memory.versions():
                stored.lose_power()

    def _forget_what_was_not_acknowledged(self) -> None:
        async def act() -> None:
            for stored in self.memory.versions():
                await stored.drop([PieceIndex(i) for i in range(99) if i not in stored.held])

        self.portal.run(act)

    @invariant()
    def they_are_twins(self) -> None:
        assert self._seen(self.disk) == self._seen(self.memory)

    @staticmethod
    def _seen(store: Store) -> object:
        return (store.counters(), [Twins._seen_of(store, stored) for stored in store.versions()])

    @staticmethod
    def _seen_of(store: Store, stored: Stored) -> object:
        stored.states.validate()
        proven = stored.held - stored.suspect
        whole = None
        if stored.complete and not stored.suspect:
            descriptor = stored.descriptor()
            whole = os.pread(descriptor, 1000, 0)
            os.close(descriptor)
        return (
            stored.info, stored.held, stored.suspect, stored.complete, whole, stored.held_bytes,
            {index: read(stored, index, stored.states.size_of(index)) for index in proven},
            {index: stored.attestation(PieceIndex(index)) for index in range(7)},
            store.asked(stored.info.task), store.validated_at(stored.info.version),
        )  # fmt: skip


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
