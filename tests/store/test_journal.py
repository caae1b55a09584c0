"""The journal: groups, order, callers that give up, and a disk that is full."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peerd.errors import NoSpace, PeerdError, StoreDamaged
from peerd.store import rows
from peerd.store.database import prepare_directory
from peerd.store.journal import Journal
from tests.store.helper import BOOT


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Journal]:
    prepare_directory(directory)
    journal = await trio.to_thread.run_sync(Journal, directory, BOOT)
    journal.start()
    try:
        yield journal
    finally:
        await journal.close(clean=True)


def total(journal: Journal) -> int:
    found: dict[str, int] = dict(journal.rows(rows.COUNTERS))
    return found.get("n", 0)


async def test_what_is_committed_can_be_read(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        await journal.commit(rows.counted("n", 1), rows.counted("n", 2))
        assert total(journal) == 3


async def test_many_at_once_share_a_commit_and_all_are_told_in_order(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        told: list[int] = []

        async def one(number: int) -> None:
            def then(error: PeerdError | None) -> None:
                assert error is None
                told.append(number)

            entry = await journal.submit([rows.counted("n", 1)], then, urgent=False)
            await entry.wait()

        statements: list[str] = []
        journal._writing.set_trace_callback(statements.append)
        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(one, number)
        assert sorted(told) == list(range(2000))
        assert total(journal) == 2000
        assert statements.count("COMMIT") < 200


async def test_a_lone_entry_does_not_wait_for_company(fast_path: Path) -> None:
    """A group stays open for 5 ms after the last commit only; the promise is 20 ms."""
    async with started(fast_path) as journal:
        waits = []
        for _ in range(20):
            begun = time.perf_counter()
            await (await journal.submit([rows.counted("n", 1)], urgent=False)).wait()
            waits.append(time.perf_counter() - begun)
        assert sorted(waits)[10] < 0.02


async def test_an_entry_outlives_the_caller_that_gave_it_up(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        with trio.CancelScope() as scope:
            entry = await journal.submit([rows.counted("n", 1)], urgent=False)
            scope.cancel()
            await entry.wait()
        assert scope.cancelled_caught
        await journal.commit(rows.counted("n", 1))
        assert total(journal) == 2


async def test_a_full_disk_fails_who_asked_and_nobody_later(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        connection = journal._writing
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        large: rows.Statement = ("INSERT INTO asks VALUES ('t', ?)", (bytes(1 << 20),))
        with pytest.raises(NoSpace, match="no space for the journal"):
            await journal.commit(rows.counted("n", 5), large)
        assert total(journal) == 0
        connection.execute("PRAGMA max_page_count=1000000")
        await journal.commit(rows.counted("n", 1), large)
        assert total(journal) == 1


async def test_what_sqlite_cannot_hold_fails_and_the_writer_goes_on(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        with pytest.raises(StoreDamaged, match="does not take that"):
            await journal.commit(rows.counted("n", 1 << 64))
        await journal.commit(rows.counted("n", 1))
        assert total(journal) == 1


async def test_closing_commits_what_is_queued_and_takes_no_more(fast_path: Path) -> None:
    async with started(fast_path) as journal:
        for _ in range(10):
            await journal.submit([rows.counted("n", 1)], urgent=False)
    with pytest.raises(StoreDamaged, match="closed"):
        await journal.commit(rows.counted("n", 1))
    async with started(fast_path) as journal:
        assert journal.clean
        assert total(journal) == 10
