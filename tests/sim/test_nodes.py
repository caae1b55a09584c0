"""The second level: whole nodes under a clock that jumps, and the command line around both."""

from __future__ import annotations

import json

import pytest

from tools.sim.__main__ import main
from tools.sim.nodes import run_nodes


def test_whole_nodes_get_it_although_some_die() -> None:
    told = run_nodes(6, 4 << 20, kills=1, seed=1)
    assert (told["right"], told["failed"]) == (5, 0)
    assert told["origin_copies"] <= 2.0


def test_whole_nodes_in_cells_get_one_copy_although_some_die() -> None:
    told = run_nodes(100, 2 << 20, kills=3, seed=1)
    assert (told["right"], told["failed"]) == (97, 0)
    assert told["cells"] >= 4
    assert told["origin_copies"] <= 1.5, "eight pieces: what dead ones read is read again"


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
