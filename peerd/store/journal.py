"""The commit point: what the journal says is acknowledged, and nothing else (docs/adr/0006).

Always: entries are committed in the order in which they were submitted, each as a whole; `then` of
an entry runs on the event loop after its commit, or with the error, before its waiter goes on;
an entry whose waiter was cancelled is committed all the same. One thread writes; a group is closed
GROUP_S after the last commit, so that a piece waits far less than the promised 20 ms.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from peerd.errors import PeerdError, StoreDamaged
from peerd.store.database import as_ours, connect, open_database
from peerd.store.layout import JOURNAL_NAME
from peerd.store.rows import Row, SqlValue, Statement

log = logging.getLogger(__name__)

GROUP_S: Final = 0.005
"""At most 200 commits a second: HAVE frames are coalesced at the same pace (design.md, section
4.5), so a faster commit would be told no sooner. The promise is 20 ms."""
BATCH_MAX: Final = 1024
"""Entries in one commit: about 10 ms of SQLite on a slow core."""
QUEUE_MAX: Final = 4096
"""Entries on their way; who comes later waits for room."""

Then = Callable[[PeerdError | None], None]


def _nothing(error: PeerdError | None) -> None:
    pass


class Entry:
    """Statements on their way into the journal."""

    __slots__ = ("_error", "_settled", "statements", "then", "urgent")

    def __init__(self, statements: Sequence[Statement], then: Then, urgent: bool) -> None:
        self.statements, self.then, self.urgent = statements, then, urgent
        self._settled = trio.Event()
        self._error: PeerdError | None = None

    def settle(self, error: PeerdError | None) -> None:
        self._error = error
        self.then(error)
        self._settled.set()

    async def wait(self) -> None:
        """Until it is committed; raises if it could not be."""
        await self._settled.wait()
        if self._error is not None:
            raise type(self._error)(str(self._error))


class Journal:
    """Opened in a worker thread, then `start`ed on the event loop; `close` ends both."""

    def __init__(self, data_dir: Path, boot_id: str) -> None:
        """Blocking. StoreDamaged with words if it cannot be used; nothing is changed then."""
        self.path = data_dir / JOURNAL_NAME
        self._writing = open_database(data_dir)
        self._reading_lock = threading.Lock()
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._stop_clean = False
        self._last_commit_s = 0.0
        try:
            self._reading = connect(self.path)
            self._reading.execute("PRAGMA query_only=ON")
            self.clean, self.era = self._begin_run(boot_id)
        except sqlite3.Error as error:
            self._writing.close()
            raise as_ours(error, self.path) from error

    def _begin_run(self, boot_id: str) -> tuple[bool, int]:
        """(whether the last run ended cleanly, the era of this one); on disk when it returns.

        Synced, because a later run must not take an old clean stop for its own: pieces that were
        dropped and written anew since then would pass unchecked.
        """
        era, last_boot, clean = self._writing.execute(
            "SELECT era, boot_id, clean FROM machine"
        ).fetchone()
        if not clean and (not boot_id or boot_id != last_boot):
            era += 1
        self._synced("UPDATE machine SET era = ?, boot_id = ?, clean = 0", (era, boot_id))
        return bool(clean), era

    def _synced(self, sql: str, values: tuple[SqlValue, ...]) -> None:
        self._writing.execute("PRAGMA synchronous=FULL")
        self._writing.execute(sql, values)
        self._writing.execute("PRAGMA synchronous=NORMAL")

    def rows(self, sql: str, values: tuple[SqlValue, ...] = ()) -> list[Row]:
        """What is committed now. Blocking, from any thread."""
        try:
            with self._reading_lock:
                return self._reading.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise as_ours(error, self.path) from error

    def apply(self, statements: Sequence[Statement]) -> None:
        """Commit at once; blocking, and only before `start`."""
        error = self._commit([Entry(statements, _nothing, urgent=True)])
        if error is not None:
            raise error

    def start(self) -> None:
        self._loop = trio.lowlevel.current_trio_token()
        self._room = trio.Semaphore(QUEUE_MAX)
        self._open = True
        # A daemon thread: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._write, name="peerd-journal", daemon=True)
        self._thread.start()

    async def submit(
        self, statements: Sequence[Statement], then: Then = _nothing, *, urgent: bool = True
    ) -> Entry:
        """Queue it, after those before it. Cancelled or raised: it was not queued.

        What is not urgent waits up to GROUP_S for others to share its commit.
        """
        await self._room.acquire()
        if not self._open:
            self._room.release()
            raise StoreDamaged("the store is closed")
        entry = Entry(statements, then, urgent)
        self._queue.put(entry)
        return entry

    async def commit(self, *statements: Statement) -> None:
        """Returns when they are committed."""
        await (await self.submit(statements)).wait()

    def abandon(self) -> None:
        """Instead of `start` and `close`."""
        self._writing.close()
        self._reading.close()

    async def close(self, *, clean: bool) -> None:
        """Commits what is queued; `clean` says that all data is on disk, and is journalled so."""
        self._open = False
        self._stop_clean = clean
        self._queue.put(None)
        await trio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)

    # --- the writer thread

    def _write(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            if batch:
                self._tell(batch, self._commit(batch))
        try:
            if self._stop_clean:
                self._synced("UPDATE machine SET clean = 1", ())
        except sqlite3.Error as error:
            log.warning("the journal could not note a clean stop: %s", error)
        with self._reading_lock:
            self.abandon()

    def _gather(self) -> tuple[list[Entry], bool]:
        """The next group, and whether more can come."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch = [first]
        closes_at_s = 0.0 if first.urgent else self._last_commit_s + GROUP_S
        while len(batch) < BATCH_MAX:
            left_s = closes_at_s - time.monotonic()
            try:
                more = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, False
            if more.urgent:
                closes_at_s = 0.0
            batch.append(more)
        return batch, True

    def _commit(self, batch: Sequence[Entry]) -> PeerdError | None:
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            for entry in batch:
                for sql, values in entry.statements:
                    self._writing.execute(sql, values)
            self._writing.execute("COMMIT")
        except Exception as error:  # A writer that dies would leave its callers waiting for ever.
            log.exception("the journal does not take %d entries", len(batch))
            with contextlib.suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                return as_ours(error, self.path)
            return StoreDamaged(f"the journal {self.path} does not take that: {error}")
        finally:
            self._last_commit_s = time.monotonic()
        return None

    def _tell(self, batch: list[Entry], error: PeerdError | None) -> None:
        # The loop may have ended without closing us: nobody waits then.
        with contextlib.suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self._settle, batch, error)

    def _settle(self, batch: list[Entry], error: PeerdError | None) -> None:
        for entry in batch:
            self._room.release()
            entry.settle(error)
