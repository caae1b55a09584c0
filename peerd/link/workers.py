"""Worker threads for sealing, opening, hashing and disk.

Always: sealing never waits for a thread that a disk holds up.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

Result = TypeVar("Result")

OPENERS_MAX: Final = 8
"""Guess: they also write, so a few may wait for the disk at once."""


class Threads:
    """An Offload: at most `count` blocking calls at a time, never abandoned."""

    def __init__(self, count: int) -> None:
        self._limiter = trio.CapacityLimiter(count)

    def __call__(self, work: Callable[[], Result]) -> Awaitable[Result]:
        return trio.to_thread.run_sync(work, limiter=self._limiter)


def sealing_threads() -> Threads:
    return Threads(max(2, os.cpu_count() or 1))


def opening_threads() -> Threads:
    return Threads(OPENERS_MAX)
