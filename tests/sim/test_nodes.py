"""The second level: whole nodes under a clock that jumps, and the command line around both."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
import trio
from trio.testing import MockClock

from peerd.origin.memory import MemoryOrigin
from peerd.task import ask_for, task_id
from tools.sim.__main__ import main
from tools.sim.nodes import URL, run_nodes
from tools.sim.nodes_net import Net, Node


def test_whole_nodes_get_it_although_some_die() -> None:
    told = run_nodes(6, 4 << 20, kills=1, seed=1)
    assert (told["right"], told["failed"]) == (5, 0)
    assert told["origin_copies"] <= 2.0


def test_whole_nodes_in_cells_get_one_copy_although_some_die() -> None:
    told = run_nodes(100, 2 << 20, kills=3, seed=1)
    assert (told["right"], told["failed"]) == (97, 0)
    assert told["cells"] >= 4
    assert told["origin_copies"] <= 1.5, "eight pieces: what dead ones read is read again"


@pytest.mark.parametrize("notices", [True, False])
async def test_a_keeper_over_whose_links_answers_come_late_keeps_it_no_more(
    notices: bool, autojump_clock: MockClock
) -> None:
    """It gives way; or who waits for it leaves it, as one that stands still, or whose word that it
    gives way is seconds on its way."""
    content = random.Random(1).randbytes(8 << 20)
    ask = ask_for(URL, digest="sha256:" + hashlib.sha256(content).hexdigest())
    origin = MemoryOrigin({URL: content}, delay_s=0.01, rate_bytes_s=1e5)
    done = []

    async def get(node: Node) -> None:
        async with node.swarm.wanted(ask) as run:
            await run.finished.wait()
            done.append(run.error)

    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        nodes = [await net.add() for _ in range(6)]
        async with trio.open_nursery() as askers:
            for node in nodes:
                askers.start_soon(get, node)
            await trio.sleep(2.0)
            (before,) = [node for node in nodes if node.keepers.tasks_kept()]
            net.late.add(before.own)
            if not notices:
                net.unaware.add(before.own)
            await trio.sleep(2.0)
            (after,) = [node for node in nodes if node.keepers.tasks_kept()]
            assert after is not before
            assert not done, "in mid-download"
        nursery.cancel_scope.cancel()
    story = before.keepers.story(task_id(ask, b""))
    assert any("answers take seconds" in line for line in story) == notices
    assert done == [None] * 6
    assert origin.bytes_read <= 1.05 * len(content)


def test_the_last_line_is_one_object_with_the_promised_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["run", "slow-peer", "--peers", "5", "--set", "size=4MiB", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told["time_over_bound"]) == {"p50", "p99", "max"}
    assert told.keys() >= {
        "origin_copies", "zone_copies", "wasted_bytes", "gossip_bytes_per_peer_s", "failed",
    }  # fmt: skip


def test_a_wrong_scenario_is_the_users_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing-of-the-kind"]) == 2
    assert "known are" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "flash-crowd" in capsys.readouterr().out
