"""What this peer read, sent and spared since its data directory was made.

Always: totals are what the store kept from earlier runs plus this run's counts; what a kill loses
are the last COUNTERS_EVERY_S.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from peerd.link.service import LinkService
from peerd.origin.service import OriginReader

COUNTERS_EVERY_S: Final = 10.0
FLUSH_S: Final = 1.0


class CounterStore(Protocol):
    """Keeps counters across restarts (store/disk)."""

    def counters(self) -> dict[str, int]: ...
    async def add_counters(self, amounts: Mapping[str, int]) -> None: ...


class Counting:
    """Gathers counts where they arise, when somebody looks."""

    def __init__(self, store: CounterStore, origin: OriginReader, links: LinkService) -> None:
        self._store, self._origin, self._links = store, origin, links
        self._flushed: dict[str, int] = {}
        self.delivered: Callable[[], int] = lambda: 0

    def _now(self) -> dict[str, int]:
        counters = self._links.counters
        return {
            "origin_bytes": self._origin.bytes_read,
            "peer_bytes_in": counters.piece_bytes_in,
            "peer_bytes_out": counters.piece_bytes_out,
            "delivered_bytes": self.delivered(),
        }

    def totals(self) -> dict[str, int]:
        """With `saved_bytes`: what callers got, less what was read from origins for it."""
        kept = self._store.counters()
        totals = {
            name: kept.get(name, 0) + count - self._flushed.get(name, 0)
            for name, count in self._now().items()
        }
        saved = max(0, totals["delivered_bytes"] - totals["origin_bytes"])
        return {**totals, "saved_bytes": saved}

    async def flush(self) -> None:
        now = self._now()
        fresh = {name: count - self._flushed.get(name, 0) for name, count in now.items()}
        self._flushed = now
        if any(fresh.values()):
            await self._store.add_counters(fresh)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; what was counted by then is kept."""
        task_status.started()
        try:
            while True:
                await trio.sleep(COUNTERS_EVERY_S)
                await self.flush()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_S):
                await self.flush()
