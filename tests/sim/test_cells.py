"""A group that is large enough for cells: each keeper hears of some, and all are one swarm."""

from __future__ import annotations

import io
from typing import Any

import pytest

from peerd.cells import FAN_IN_MAX
from tests.sim.test_runs import run
from tools.sim.clock import START_S
from tools.sim.report import result
from tools.sim.scenario import load
from tools.sim.trace import Trace
from tools.sim.world import World

MANY = "140"


def large(name: str = "flash-crowd", **changes: str) -> dict[str, Any]:
    row = run(name, **{"peers__count": MANY, "arrivals__within_s": "0.1", **changes})  # type: ignore[arg-type]
    assert row["keeper_fan_in"] <= FAN_IN_MAX * 1.25, "by chance, and for who has a dispute"
    return row


def test_a_crowd_reads_one_copy_and_no_keeper_hears_of_all() -> None:
    row = large()
    assert row["origin_copies"] <= 1.05, "two audits of 64 pieces"
    assert row["time_over_bound"]["max"] <= 2.6, "64 pieces are few for 140 peers"


def test_content_without_a_digest_is_confirmed_for_all_cells() -> None:
    assert large(digest="false")["origin_copies"] <= 1.05


def test_a_reader_that_vouches_for_wrong_pieces_is_found_out_by_all_cells() -> None:
    said = io.StringIO()
    fields = {"size": "16MiB", "peers.count": MANY, "arrivals.within_s": "0.1"}
    World(load("flash-crowd", fields), 1, Trace(said)).run()
    reads = [line.split() for line in said.getvalue().splitlines() if line.endswith("origin")]
    liar = reads[4][1]
    row = large("misreader", events=f"[{{do='misread', at_s=0.0, who=[{liar}]}}]")
    assert row["origin_copies"] <= 2.2, "a whole digest does not say which piece is wrong"
    assert row["origin_copies"] > 1.05, "it did vouch for some"


def test_zones_with_many_members_have_cells_too() -> None:
    row = large("zones", network__zones="2")
    assert row["origin_copies"] <= 1.05
    assert row["zone_copies"] <= 1.05, "64 pieces; 1.14 where no cell says what it holds"


@pytest.mark.parametrize("which", ["cells", "all"])
def test_keepers_die_and_everybody_gets_it(which: str) -> None:
    """All who keep a cell at once; then, and the task's keeper with them."""
    changes = {"size": "32MiB", "peers.count": MANY, "arrivals.within_s": "0.1"}
    world = World(load("flash-crowd", changes), 1, Trace(None))
    killed: list[int] = []

    def kill() -> None:
        for peer in world.peers:
            seats = [world.contents[0].task] if which == "all" else []
            core = peer.keeping.core
            kept = [core.kept(task) for task in core.tasks_kept()]
            if any(x is not None and (x.cell or x.task in seats) for x in kept):
                peer.kill()
                killed.append(peer.number)

    world.clock.at(START_S + 1.5, kill)
    world.clock.run(START_S, lambda: False)
    world.run()
    row = result(world, 0.0)
    assert len(killed) >= 4
    assert row["failed"] == 0
    assert row["protocol_errors"] == []
    assert row["killed"] == len(killed)
