"""Worker threads for sealing, opening, hashing and disk.

Always: work that was begun is waited for, also when its task is cancelled; at most `threads_max`
run at a time, the rest waits in order; sealing never waits for a thread that a disk holds up.

Why not trio.to_thread: it copies a context and passes the loop three times for each call, 190 µs of
processor time against 85 µs here (measured on 2 cores), and a link makes 2,000 calls for a GiB.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import outcome
import trio

Result = TypeVar("Result")

OPENERS_MAX: Final = 8
"""Guess: they also write, so a few may wait for the disk at once."""

_Job = tuple[Callable[[], Any], trio.lowlevel.Task, trio.lowlevel.TrioToken]


class Threads:
    """An Offload. Threads start when they are needed and stay until `close`."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    async def __call__(self, work: Callable[[], Result]) -> Result:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._under_way += 1
        if len(self._threads) < min(self._under_way, self._threads_max):
            thread = threading.Thread(target=self._run, name="peerd-link", daemon=True)
            self._threads.append(thread)
            thread.start()
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        self._jobs.put((work, task, token))
        try:
            result: Result = await trio.lowlevel.wait_task_rescheduled(_never_abandon)
        finally:
            self._under_way -= 1
        return result

    def close(self) -> None:
        """They end when they have done what was begun."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, task, token = job
            result = outcome.capture(work)
            try:
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)
            except trio.RunFinishedError:
                return  # only where the whole run broke down
            del job, work, task, result  # views of buffers must not live on here


def _never_abandon(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def sealing_threads() -> Threads:
    return Threads(max(2, os.cpu_count() or 1))


def opening_threads() -> Threads:
    return Threads(OPENERS_MAX)
