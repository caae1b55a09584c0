"""Runs a job again when it ends: the libp2p host must not take the daemon with it.

Always: a cancellation passes; a job that ends, however, is started again after a bounded wait with
jitter; one that never once was up is given up after FIRST_TRIES_MAX and raises what it raised.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from peerd.overlay.backoff import Backoff

log = logging.getLogger(__name__)

FIRST_TRIES_MAX = 3
STEADY_S = 60.0
"""Who was up that long is not failing for the same reason again. Guess."""


async def supervised(
    job: Callable[[Callable[[], None]], Awaitable[None]], backoff: Backoff, what: str
) -> None:
    """`job` gets a function to call when it is up. Returns never; see above for what it raises."""
    was_up = False
    up_at: list[float] = []
    while True:
        up_at.clear()
        failure: Exception | None = None
        try:
            await job(lambda: up_at.append(trio.current_time()))
        # A library that its remotes can make raise anything, in groups of groups: it is started
        # anew. Never BaseException: cancellation must pass.
        except Exception as error:  # noqa: BLE001
            failure = error
        was_up = was_up or bool(up_at)
        if not was_up and failure is not None and backoff.failures + 1 >= FIRST_TRIES_MAX:
            raise failure
        if up_at and trio.current_time() - up_at[0] >= STEADY_S:
            backoff.reset()
        wait_s = backoff.next_s()
        log.error("%s ended and is started again in %.1f s", what, wait_s, exc_info=failure)
        await trio.sleep(wait_s)
