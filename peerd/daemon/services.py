"""Services that are opened in order and closed in reverse, each before the next.

Always: what was opened later has ended before what it uses is told to end; a service that ends by
itself with an error ends all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

ENDING_S: Final = 2.5
"""For one service, before the next is told to end all the same; SIGTERM allows 5 s in all."""


class Services:
    """The running services of one nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._open: list[tuple[trio.CancelScope, trio.Event]] = []

    async def start(self, run: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """`run(*arguments, task_status=…)`: open once it says that it has started."""
        scope, ended = trio.CancelScope(), trio.Event()

        async def carry(*, task_status: trio.TaskStatus[None]) -> None:
            try:
                with scope:
                    await run(*arguments, task_status=task_status)
            finally:
                ended.set()

        await self._nursery.start(carry)
        self._open.append((scope, ended))

    async def stop(self) -> None:
        """Also in a cancellation: ends them all, the last opened first."""
        while self._open:
            scope, ended = self._open.pop()
            scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + ENDING_S):
                await ended.wait()
