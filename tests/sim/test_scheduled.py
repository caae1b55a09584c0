"""What a scheduler's advice is worth, and that its leader's death costs nothing: small runs."""

from __future__ import annotations

import json

import pytest

from tests.sim.test_runs import run
from tools.sim.__main__ import main
from tools.sim.happenings import HEAL_S
from tools.sim.scenario import load
from tools.sim.trace import Trace
from tools.sim.world import World

ONE = '{size = "24MiB"}'
FOUR = f"[{ONE}, {ONE}, {ONE}, {ONE}]"


def mean_s(row: dict[str, object]) -> float:
    tasks: list[dict[str, float]] = row["tasks"]  # type: ignore[assignment]
    return sum(task["p50_s"] for task in tasks) / len(tasks)


def test_of_several_contents_most_are_there_sooner_and_the_last_no_later() -> None:
    rows = [
        run("several-tasks", tasks=FOUR, peers__count="8", peers__schedulers=str(schedulers))
        for schedulers in (0, 2)
    ]
    degraded, scheduled = rows
    assert mean_s(scheduled) <= 0.9 * mean_s(degraded)
    assert scheduled["time_over_bound"]["max"] <= 1.1 * degraded["time_over_bound"]["max"]
    assert scheduled["origin_copies"] <= 1.02


def test_what_is_urgent_overtakes_what_is_not() -> None:
    tasks = '[{size = "64MiB", priority = 3}, {size = "64MiB", at_s = 2.0, priority = 6}]'
    degraded, scheduled = (
        run("priorities", tasks=tasks, peers__count="8", peers__schedulers=str(schedulers))
        for schedulers in (0, 2)
    )
    assert scheduled["tasks"][1]["p50_s"] <= 0.9 * degraded["tasks"][1]["p50_s"]
    assert scheduled["origin_copies"] <= 1.02


def test_where_downlinks_bind_the_first_in_order_gets_most_of_them() -> None:
    degraded, scheduled = (
        run("downlinks", peers__count="8", peers__schedulers=str(schedulers))
        for schedulers in (0, 2)
    )
    assert scheduled["tasks"][1]["p50_s"] <= 0.75 * degraded["tasks"][1]["p50_s"]
    most = [row["time_over_bound"]["max"] for row in (degraded, scheduled)]
    assert most[1] <= 1.05 * most[0]


@pytest.mark.parametrize("at", ["0.0", "0.5"])
def test_the_leader_is_killed_and_nobody_fails(at: str) -> None:
    """Another leads within four seconds, and the download went on meanwhile."""
    changes = {
        "size": "64MiB", "peers.count": "12", "peers.up_mbit_s": "50", "peers.schedulers": "3",
        "events": f'[{{do = "kill", who = "leader", at_progress = {at}}}]',
    }  # fmt: skip
    world = World(load("leader-killed", changes), 1, Trace())
    world.run()
    alive = [peer for peer in world.peers if peer.alive]
    assert len(alive) == 11
    assert all(peer.done_at is not None for peer in alive)
    assert world.errors == []
    world.clock.run(world.clock.now + 5.0, lambda: False)
    leaders = {peer.scheduler.seat.leader(world.clock.now) for peer in alive if peer.scheduler}
    assert len(leaders) == 1
    assert leaders <= {peer.own for peer in alive}


@pytest.mark.parametrize(
    ("name", "befell", "copies_max"),
    [
        ("schedulers-killed", ["kill"], 1.05),
        ("leader-flaps", ["kill"], 1.05),
        ("leader-cut-off", ["partition", "heal"], 2.04),
        ("two-leaders", ["partition", "heal"], 2.04),
    ],
)
def test_whatever_becomes_of_leaders_each_side_soon_has_one_and_nobody_fails(
    name: str, befell: list[str], copies_max: float
) -> None:
    row = run(name, size="64MiB", peers__count="12", peers__up_mbit_s="20")
    assert row["origin_copies"] <= copies_max
    found = row["leaders"]
    assert [each["after"] for each in found][: len(befell)] == befell
    for each in found:
        # After a heal each peer first has to hear of the others again.
        slack_s = HEAL_S if each["after"] == "heal" else 0.0
        assert each["led_s"] is not None, found
        assert each["led_s"] <= 4.0 + slack_s, found
        assert each["seen_s"] is not None, found
        assert each["seen_s"] <= each["led_s"] + 5.0, found


def test_many_contents_at_once_each_wanted_by_some() -> None:
    row = run("many-tasks", peers__count="60",
              tasks="[{size = '8MiB', share = 0.2, times = 8}]")  # fmt: skip
    assert len(row["tasks"]) == 8
    assert row["failed"] == 0
    assert row["origin_copies"] <= 1.05
    assert row["time_over_bound"]["max"] <= 1.5


def test_who_was_seen_to_be_slow_reads_nothing_of_the_next_content() -> None:
    """Without a leader each keeper finds that out anew (docs/simulation.md)."""
    waits = []
    for schedulers in ("0", "2"):
        rows = [
            run("overloaded", seed=seed, tasks=f"[{ONE}, {{size = '16MiB', at_s = 10.0}}]",
                peers__schedulers=schedulers)
            for seed in (2, 4)
        ]  # fmt: skip
        waits.append(sum(row["tasks"][1]["p50_s"] for row in rows))
    assert waits[1] <= 0.8 * waits[0]


def test_delegates_of_cells_that_were_seen_to_be_slow_read_next_to_nothing() -> None:
    """Eighty peers are two cells; two of three uplinks have a tenth or a hundredth."""
    changes = {
        "peers.count": "80", "peers.schedulers": "2",
        "tasks": '[{size = "16MiB"}, {size = "32MiB", at_s = 14.0}]',
    }  # fmt: skip
    world = World(load("mixed-speeds", changes), 1, Trace())
    world.run()
    content = world.contents[1]
    rates = {peer.own: peer.rate for peer in world.peers}
    copies = [copy for peer in world.peers for copy in peer.copies if copy.content is content]
    assert all(copy.done_at is not None for copy in copies)
    slow = [made for made in copies[0].store.made if rates[made.attester] < 1.0]
    assert len(slow) <= 12, "those of the first moment, before anything was advised"


def test_the_table_of_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scheduled", "--only", "few", "--seeds", "1", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (told,) = json.loads(lines[-1])["scheduled"]
    assert told["scenario"] == "few-pieces"
    assert told["degraded_failed"] == told["scheduled_failed"] == 0
    assert lines[2].startswith("| few-pieces |")
