"""What health and metrics are judged by: looked at once a second, told when somebody asks.

Always: an event loop that comes late to this is late for everybody, and by as much.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Final, Protocol

import trio

from peerd.config import Reserve
from peerd.gateway.health import Fitness

LOOK_S: Final = 1.0
REMEMBERED: Final = 60
"""Looks: a minute of them."""


class Host(Protocol):
    """The overlay, as far as it is up (overlay/service)."""

    @property
    def host(self) -> object | None: ...


class FitnessWatch:
    """`bootstrapped`: whether this daemon was told of others."""

    def __init__(
        self, overlay: Host, data_dir: str, reserve: Reserve, *, bootstrapped: bool
    ) -> None:
        self._overlay, self._data_dir, self._reserve = overlay, data_dir, reserve
        self._bootstrapped = bootstrapped
        self._late: deque[float] = deque(maxlen=REMEMBERED)
        self._down_since: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Looks until cancelled."""
        task_status.started()
        while True:
            due = trio.current_time() + LOOK_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self._late.append(now - due)
            if self._overlay.host is not None:
                self._down_since = None
            elif self._down_since is None:
                self._down_since = now

    def now(self, peers: int) -> Fitness:
        """With so many other peers that answer."""
        space = os.statvfs(self._data_dir)
        since, now = self._down_since, trio.current_time()
        return Fitness(
            0.0 if since is None else now - since,
            self._bootstrapped,
            peers,
            space.f_bavail * space.f_frsize,
            self._reserve.of(space.f_blocks * space.f_frsize),
            max(self._late, default=0.0),
        )
