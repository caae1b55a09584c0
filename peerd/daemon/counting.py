"""What this peer read, sent and spared since its data directory was made.

Always: totals are what the store kept from earlier runs plus this run's counts; what a kill loses
are the last COUNTERS_EVERY_S; a disk without room costs no counts: they are kept for the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from peerd.errors import NoSpace

log = logging.getLogger(__name__)

COUNTERS_EVERY_S: Final = 10.0
FLUSH_S: Final = 1.0


class CounterStore(Protocol):
    """Keeps counters across restarts (store/disk)."""

    def counters(self) -> dict[str, int]: ...
    async def add_counters(self, amounts: Mapping[str, int]) -> None: ...


class OriginCount(Protocol):
    """Bytes read from origins (origin/service)."""

    @property
    def bytes_read(self) -> int: ...


class PieceCounts(Protocol):
    """Bytes of pieces (link/service)."""

    @property
    def piece_bytes_in(self) -> int: ...
    @property
    def piece_bytes_out(self) -> int: ...


class LinkCount(Protocol):
    """Links, counted together (link/service)."""

    @property
    def counters(self) -> PieceCounts: ...


class Counting:
    """Gathers counts where they arise, when somebody looks."""

    def __init__(self, store: CounterStore, origin: OriginCount, links: LinkCount) -> None:
        self._store, self._origin, self._links = store, origin, links
        self._flushed: dict[str, int] = {}
        self._no_room = False
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
        """What the store has no room for stays here until the next time."""
        now, before = self._now(), self._flushed
        fresh = {name: count - before.get(name, 0) for name, count in now.items()}
        if not any(fresh.values()):
            return
        self._flushed = now
        try:
            await self._store.add_counters(fresh)
        except NoSpace as error:
            self._flushed = before
            if not self._no_room:
                log.warning("counters are not stored for now: %s", error)
            self._no_room = True
        else:
            self._no_room = False

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
