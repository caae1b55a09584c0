"""The store on disk: the data directory, its journal, and one file for each version.

Always: what was acknowledged before a crash is there after it, and nothing else is; a second
daemon on the same directory is refused; an error of one version harms no other. docs/adr/0006.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from peerd.errors import NoSpace, RemoteProtocolError, StoreDamaged
from peerd.ids import TaskId, VersionId
from peerd.manifest import VersionInfo
from peerd.store import rows
from peerd.store.attested import Attested
from peerd.store.database import lock_directory, prepare_directory
from peerd.store.files import DiskFiles, FileLayer, no_space
from peerd.store.journal import Journal
from peerd.store.layout import (
    CONTENT_NAME,
    NEW_SUFFIX,
    Reserve,
    ReserveRule,
    content_name,
    is_content_name,
)
from peerd.store.loading import load_versions
from peerd.store.room import Room
from peerd.store.states import PieceStates, check_successor
from peerd.store.version import DiskVersion, Shared
from peerd.task import Ask, TaskSpec

log = logging.getLogger(__name__)

CLEAN_STOP_MAX_S: Final = 3.0
"""For syncing data at a stop: SIGTERM is to end the daemon within 5 s. Not in time: the stop is not
clean, which costs hashing if the machine, too, is started anew."""
CLOSE_MAX_S: Final = 1.0
"""For the journal's last commit and checkpoint: 1 ms as a rule, more behind a busy disk."""


class DiskStore:
    """All that this peer holds. Implements swarm.ports.PieceStore."""

    def __init__(self, data_dir: Path, shared: Shared) -> None:
        """Blocking: for `open`."""
        journal = shared.journal
        self._content, self._shared = data_dir / CONTENT_NAME, shared
        self._versions = load_versions(shared, self._content)
        self._specs: dict[TaskId, TaskSpec] = dict(map(rows.spec_row, journal.rows(rows.ASKS)))
        self._counters: dict[str, int] = dict(journal.rows(rows.COUNTERS))
        self._number = max((s.number for s in self._versions.values()), default=0)
        self._used = max((s.used for s in self._versions.values()), default=0)
        self._order: list[DiskVersion] | None = None
        self._creating = trio.Lock()
        self._sweep()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path,
        *,
        boot_id: str,
        reserve: ReserveRule = Reserve(),  # noqa: B008 - frozen
        files: FileLayer | None = None,
    ) -> AsyncIterator[DiskStore]:
        """The store in that directory, which is made if it is not there.

        StoreDamaged: another daemon uses it, or its journal cannot be used. Leaving the block,
        cancelled or not, commits what is queued, syncs the data and notes a clean stop; after
        CLEAN_STOP_MAX_S it leaves without. Stop those who use the store first.
        """
        files = files or DiskFiles()
        lock, store = await trio.to_thread.run_sync(cls._opened, data_dir, boot_id, reserve, files)
        try:
            store._shared.journal.start()
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store._stop()
            os.close(lock)

    @classmethod
    def _opened(
        cls, data_dir: Path, boot_id: str, reserve: ReserveRule, files: FileLayer
    ) -> tuple[int, DiskStore]:
        prepare_directory(data_dir)
        lock = lock_directory(data_dir)
        try:
            journal = Journal(data_dir, boot_id)
            room = Room(files, data_dir / CONTENT_NAME, reserve)
            try:
                return lock, cls(data_dir, Shared(files, journal, Attested(journal), room))
            except BaseException:
                journal.abandon()
                raise
        except BaseException:
            os.close(lock)
            raise

    # --- versions

    async def create(self, ask: Ask, info: VersionInfo) -> DiskVersion:
        """The stored version of that id, made and preallocated if new, and now the task's newest.

        One that is there keeps what it knows of its length, unless it knows nothing yet or holds
        nothing: see its `info`. NoSpace leaves nothing behind; RemoteProtocolError if that id
        names another content here. Cancelled: it may be there or not.
        """
        async with self._creating:
            stored = self._versions.get(info.version)
            if stored is None:
                return await self._make(ask, info)
            if stored.info.task != info.task:
                raise RemoteProtocolError(f"version {info.version[:12]} is of another task")
            if stored.states.yields_to(info) and not stored.complete:
                await stored.set_info(info)
            self._use(stored)
            await self._shared.journal.commit(
                rows.version_used(stored.number, stored.used), self._keep_ask(ask, info.task)
            )
            return stored

    async def _make(self, ask: Ask, info: VersionInfo) -> DiskVersion:
        check_successor(info, info, complete=False)
        self._number += 1
        number = self._number
        path = self._content / content_name(info.task, info.version, number)
        journal = self._shared.journal
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._allocate, path, info.length_bytes or 0)
            row = rows.VersionRow(number, info, False, 0.0, self._used + 1, journal.era)
            stored = DiskVersion(self._shared, path, row, PieceStates(info))
            try:
                await journal.commit(
                    rows.version_made(number, info, row.used, row.era),
                    self._keep_ask(ask, info.task),
                )
            except BaseException:
                await trio.to_thread.run_sync(self._shared.files.unlink, path)
                raise
        if info.length_bytes is not None:
            self._shared.room.promise(path, info.length_bytes)
        self._versions[info.version] = stored
        self._use(stored)
        return stored

    def _allocate(self, path: Path, length_bytes: int) -> None:
        """Blocking: a file of that size under its name, or nothing."""
        files, new = self._shared.files, path.with_name(path.name + NEW_SUFFIX)
        try:
            with files.open(new, "x") as file:
                self._shared.room.take(file, 0, length_bytes, length_bytes)
            files.rename(new, path)
        except (NoSpace, OSError) as error:
            with contextlib.suppress(FileNotFoundError):
                files.unlink(new)
            if isinstance(error, NoSpace):
                raise
            words = f"{path} cannot be made: {error.strerror}; see to the disk, then try again"
            raise no_space(error, self._content) or StoreDamaged(words) from error

    def _use(self, stored: DiskVersion) -> None:
        self._used += 1
        stored.used = self._used
        self._order = None

    def _keep_ask(self, ask: Ask, task: TaskId) -> rows.Statement:
        self._specs[task] = ask.spec
        return rows.ask_kept(task, ask.spec)

    def versions(self, task: TaskId | None = None) -> list[DiskVersion]:
        """All, or a task's, the newest first."""
        if self._order is None:
            self._order = sorted(self._versions.values(), key=lambda s: s.used, reverse=True)
        return [s for s in self._order if task is None or s.info.task == task]

    def find(self, version: VersionId) -> DiskVersion | None:
        """By its id."""
        return self._versions.get(version)

    def asked(self, task: TaskId) -> Ask | None:
        spec = self._specs.get(task)
        return None if spec is None else Ask(spec)

    def validated_at(self, version: VersionId) -> float:
        stored = self._versions.get(version)
        return 0.0 if stored is None else stored.validated_at_wall_s

    async def set_validated(self, version: VersionId, at_wall_s: float) -> None:
        stored = self._versions.get(version)
        if stored is not None:
            stored.validated_at_wall_s = at_wall_s
            await self._shared.journal.commit(rows.version_validated(stored.number, at_wall_s))

    def account(self, version: VersionId) -> bytes:
        stored = self._versions.get(version)
        if stored is None:
            return b""
        found = self._shared.journal.rows(rows.ACCOUNT, (stored.number,))
        return bytes(found[0][0]) if found else b""

    async def set_account(self, version: VersionId, account: bytes) -> None:
        stored = self._versions.get(version)
        if stored is not None:
            await self._shared.journal.commit(rows.version_account(stored.number, account))

    async def remove(self, version: VersionId) -> None:
        """Unlinks it. A descriptor that somebody holds goes on working."""
        async with self._creating:
            stored = self._versions.pop(version, None)
            if stored is None:
                return
            self._order = None
            task = stored.info.task
            more = [] if self.versions(task) else [rows.ask_gone(task)]
            if more:
                self._specs.pop(task, None)
            with trio.CancelScope(shield=True):
                await stored.retire(*more)

    # --- counters

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    async def add_counters(self, amounts: Mapping[str, int]) -> None:
        """Adds to totals that live as long as the data directory."""
        grown = {name: amount for name, amount in amounts.items() if amount}
        if grown:
            await self._shared.journal.commit(*(rows.counted(*item) for item in grown.items()))
        for name, amount in grown.items():  # Not before: whoever has no room adds them again.
            self._counters[name] = self._counters.get(name, 0) + amount

    # --- start and stop

    def _sweep(self) -> None:
        """Blocking: files that a crash left behind, which no row names."""
        known = {stored.path.name for stored in self._versions.values()}
        for name in self._shared.files.names(self._content):
            if is_content_name(name) and name not in known:
                log.info("%s was not finished before a crash; removed", name)
                self._shared.files.unlink(self._content / name)

    async def _stop(self) -> None:
        clean = False
        with trio.move_on_after(CLEAN_STOP_MAX_S):
            clean = await trio.to_thread.run_sync(self._sync, abandon_on_cancel=True)
        if not clean:
            log.warning("not all data reached the disk in time: the stop is not clean")
        with trio.move_on_after(CLOSE_MAX_S):
            await self._shared.journal.close(clean=clean)

    def _sync(self) -> bool:
        """Blocking: all data that is acknowledged, and the names of its files."""
        try:
            for stored in list(self._versions.values()):
                if stored.dirty:
                    stored.sync()
            self._shared.files.sync_directory(self._content)
        except OSError as error:
            log.warning("data cannot be synced: %s", error)
            return False
        return True
