"""What health is judged by: how late the event loop is, and for how long the overlay is down."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from peerd.config import Reserve
from peerd.daemon.fitness import LOOK_S, REMEMBERED, FitnessWatch


class Overlay:
    host: object | None = "a host"


async def test_it_is_told_of_this_moment_and_of_the_last_minute(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    overlay = Overlay()
    watch = FitnessWatch(overlay, str(tmp_path), Reserve(size_bytes=7), bootstrapped=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await trio.sleep(5 * LOOK_S)
        fit = watch.now(peers=2)
        assert (fit.overlay_down_s, fit.bootstrapped, fit.peers, fit.late_s) == (0, True, 2, 0)
        assert fit.disk_free_bytes > fit.disk_reserve_bytes == 7
        overlay.host = None
        await trio.sleep(12 * LOOK_S)
        assert 11.0 <= watch.now(0).overlay_down_s <= 12.0
        overlay.host = "another"
        await trio.sleep(2 * LOOK_S)
        assert watch.now(0).overlay_down_s == 0
        autojump_clock.jump(3.5)  # Nobody ran for so long.
        await trio.sleep(2 * LOOK_S)
        assert 2.5 <= watch.now(0).late_s <= 3.5
        await trio.sleep((REMEMBERED + 1) * LOOK_S)
        assert watch.now(0).late_s == 0
        nursery.cancel_scope.cancel()
