"""Counters: soft figures, which a full disk must not turn into the end of the daemon."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from peerd.daemon.counting import COUNTERS_EVERY_S, Counting
from peerd.errors import NoSpace


@dataclass
class Origin:
    bytes_read: int = 0


@dataclass
class Counters:
    piece_bytes_in: int = 0
    piece_bytes_out: int = 0


@dataclass
class Links:
    counters: Counters = field(default_factory=Counters)


@dataclass
class Store:
    """Full while `full`."""

    full: bool = False
    kept: dict[str, int] = field(default_factory=dict)

    def counters(self) -> dict[str, int]:
        return dict(self.kept)

    async def add_counters(self, amounts: Mapping[str, int]) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise NoSpace("no space for the journal")
        for name, amount in amounts.items():
            self.kept[name] = self.kept.get(name, 0) + amount


async def test_a_full_disk_costs_no_counts_and_one_warning(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store, origin = Store(full=True), Origin()
    counting = Counting(store, origin, Links())
    async with trio.open_nursery() as nursery:
        await nursery.start(counting.run)
        await trio.sleep(0.5)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                origin.bytes_read += 100
                await trio.sleep(COUNTERS_EVERY_S)
        assert len(caplog.records) == 1
        assert counting.totals()["origin_bytes"] == 300
        store.full = False
        await trio.sleep(COUNTERS_EVERY_S)
        assert store.kept["origin_bytes"] == 300
        assert counting.totals()["origin_bytes"] == 300
        store.full = True
        origin.bytes_read += 1
        nursery.cancel_scope.cancel()
    assert counting.totals()["origin_bytes"] == 301
