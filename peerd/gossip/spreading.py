"""Which news each neighbour has yet to be told, and when the next batch goes.

Always: a neighbour waits for an owner's item at most once (the newest goes, whatever became of
those before it); it is not told what it told us; records go before holdings, and holdings only
within their byte budget; a flush sends a neighbour at most two messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from peerd.gossip.items import ItemTable
from peerd.gossip.membership import Rng
from peerd.gossip.messages import BATCH_MAX_BYTES, ITEM_OVERHEAD_BYTES, ITEMS_MAX, Deltas
from peerd.gossip.records import Kind, Signed
from peerd.ids import PeerId
from peerd.rate import TokenBucket
from peerd.units import KIB

COALESCE_S: Final = 0.2
"""A flood then needs some 1 s for 1,000 peers (4–5 hops), in 5 messages a second at most."""
BATCHES_MAX: Final = 2
"""In a flush for one neighbour: 10 messages/s of 64 KiB are what the overlay is good for."""
HOLDINGS_BYTES_S: Final = 1.0 * KIB
HOLDINGS_BURST_BYTES: Final = 64.0 * KIB
"""Guess: the first news of some hundred peers pass at once, steady churn does not cost more than
the membership does. What does not fit waits, and the newest goes."""


class Spreading:
    def __init__(self, tables: dict[Kind, ItemTable], rng: Rng) -> None:
        self._tables = tables
        self._rng = rng
        self._waiting: dict[PeerId, dict[Kind, dict[PeerId, None]]] = {}
        self._budget = TokenBucket(HOLDINGS_BYTES_S, HOLDINGS_BURST_BYTES)
        self._flush_at = float("inf")

    def neighbour_up(self, neighbour: PeerId) -> None:
        self._waiting[neighbour] = {kind: {} for kind in Kind}

    def neighbour_down(self, neighbour: PeerId) -> None:
        self._waiting.pop(neighbour, None)

    def news(self, kind: Kind, owner: PeerId, source: PeerId | None, now: float) -> None:
        """For all neighbours but `source`, who told us."""
        for neighbour, waiting in self._waiting.items():
            if neighbour == source:
                waiting[kind].pop(owner, None)
            else:
                waiting[kind][owner] = None
        self._arm(now)

    def news_for(self, neighbour: PeerId, kind: Kind, owners: Sequence[PeerId], now: float) -> None:
        waiting = self._waiting.get(neighbour)
        if waiting is not None and owners:
            waiting[kind].update(dict.fromkeys(owners))
            self._arm(now)

    def told_by(self, neighbour: PeerId, kind: Kind, owner: PeerId) -> None:
        """It has what we have: no need to tell it."""
        waiting = self._waiting.get(neighbour)
        if waiting is not None:
            waiting[kind].pop(owner, None)

    def deadline(self) -> float:
        return self._flush_at

    def _arm(self, now: float) -> None:
        if self._flush_at == float("inf"):
            # Neighbours that flush at different moments rarely tell each other the same.
            self._flush_at = now + COALESCE_S * (0.5 + self._rng.random())

    def flush(self, now: float) -> list[tuple[PeerId, Deltas]]:
        """What is to be sent now."""
        if now < self._flush_at:
            return []
        self._flush_at = float("inf")
        sends: list[tuple[PeerId, Deltas]] = []
        for neighbour, waiting in self._waiting.items():
            for _ in range(BATCHES_MAX):
                kind = Kind.RECORD if waiting[Kind.RECORD] else Kind.HOLDINGS
                items = self._take(kind, waiting[kind], now)
                if items:
                    sends.append((neighbour, Deltas(items)))
            if waiting[Kind.RECORD]:
                self._arm(now)
            elif waiting[Kind.HOLDINGS]:
                wait_s = max(COALESCE_S, self._budget.take(0, now))
                self._flush_at = min(self._flush_at, now + wait_s)
        return sends

    def _take(self, kind: Kind, waiting: dict[PeerId, None], now: float) -> tuple[Signed, ...]:
        """One message's worth, longest waiting first."""
        items: list[Signed] = []
        size_bytes = 0
        for owner in list(islice(waiting, ITEMS_MAX)):
            item = self._tables[kind].signed(owner, now)
            if item is None:
                del waiting[owner]
                continue
            item_bytes = len(item.body) + ITEM_OVERHEAD_BYTES
            if size_bytes + item_bytes > BATCH_MAX_BYTES:
                break
            if kind is Kind.HOLDINGS:
                if self._budget.take(0, now) > 0:
                    break
                self._budget.take(item_bytes, now)
            size_bytes += item_bytes
            items.append(item)
            del waiting[owner]
        return tuple(items)

    def validate(self) -> None:
        for waiting in self._waiting.values():
            for kind, owners in waiting.items():
                assert len(owners) <= 2 * self._tables[kind].count_max
