"""Whole runs, small ones: the same seed gives the same trace, and the promises hold.

Each prints what it measured (`pytest -s`); docs/simulation.md has the large ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.sim.__main__ import simulate
from tools.sim.scenario import load


def run(name: str, *, seed: int = 1, size: str = "16MiB", **changes: str) -> dict[str, Any]:
    fields = {key.replace("__", "."): value for key, value in changes.items()}
    row = simulate(load(name, {"size": size, **fields}), seed)
    print(name, json.dumps(row))
    assert row["protocol_errors"] == [], f"seed {seed}"
    assert row["failed"] == 0, f"seed {seed}"
    assert row["wrong_held"] == 0, f"seed {seed}"
    return row


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    traces = [run("flash-crowd", seed=seed, peers__count="6")["trace"] for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]


def test_a_trace_does_not_depend_on_how_python_hashes(tmp_path: Path) -> None:
    rows = []
    for hash_seed in ("1", "2"):
        trace = tmp_path / hash_seed
        ran = subprocess.run(
            [sys.executable, "-m", "tools.sim", "run", "churn", "--peers", "5", "--set",
             "size=8MiB", "--trace", str(trace), "--json"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True,
        )  # fmt: skip
        rows.append(json.loads(ran.stdout.splitlines()[-1]))
    assert rows[0]["trace"] == rows[1]["trace"]
    lines = [(tmp_path / hash_seed).read_text(encoding="utf-8") for hash_seed in ("1", "2")]
    assert lines[0] == lines[1]
    assert "complete" in lines[0]


def test_a_crowd_of_16_reads_one_copy_and_is_near_the_bound() -> None:
    row = run("flash-crowd", size="64MiB", peers__count="16", arrivals__within_s="0.1")
    assert row["origin_copies"] <= 1.02
    assert row["time_over_bound"]["max"] <= 1.6


def test_content_without_a_digest_is_confirmed_once() -> None:
    row = run("flash-crowd", peers__count="6", digest="false")
    assert row["origin_copies"] <= 1.05


def test_who_corrupts_what_it_sends_spoils_nobody() -> None:
    row = run("liar", peers__count="6")
    assert row["wasted_bytes"] > 0, "nobody asked the liar for anything"


def test_who_vouches_for_wrong_pieces_is_found_out() -> None:
    row = run("misreader", peers__count="6")
    assert row["origin_copies"] > 1.0, "nothing was read again"


@pytest.mark.parametrize("name", ["partition", "churn", "keeper-killed", "seeds-killed", "booting"])
def test_nobody_fails_whatever_befalls_the_others(name: str) -> None:
    row = run(name, peers__count="8", size="32MiB")
    assert row["origin_copies"] <= 2 * 1.02


def test_a_silent_peer_goes_on_when_it_wakes() -> None:
    row = run("silent", peers__count="6")
    assert row["survivors_max"] < row["time_over_bound"]["max"]


def test_four_zones_and_what_enters_them() -> None:
    row = run("zones", peers__count="8", size="32MiB")
    assert set(row["zones"]) == {"zone-0", "zone-1", "zone-2", "zone-3"}
    assert row["zone_copies"] <= 1.25


def test_loss_between_zones_bounds_each_connection() -> None:
    times = [
        run("zones", size="8MiB", peers__count="4", network__zones="2",
            network__zone_latency_ms="40", network__zone_loss=loss)["time_over_bound"]["max"]
        for loss in ("0.0", "0.01")
    ]  # fmt: skip
    assert times[1] > 1.2 * times[0]


def test_a_partition_is_measured_against_what_its_sides_could_do() -> None:
    row = run("partition", peers__count="8", size="64MiB")
    assert len(row["phases"]) == 3, "before, during and after"
    for took_s, least_s in row["phases"]:
        assert took_s >= 0.99 * least_s, "faster than physics"
    assert row["bound_s"] == pytest.approx(sum(each for _, each in row["phases"]), abs=0.01)
    assert row["bound_s"] > 1.2 * row["phases"][2][1], "both sides had to read what they had"
    assert 1.0 <= row["time_over_bound"]["max"] <= 1.4


@pytest.mark.parametrize("name", ["arrivals", "staggered"])
def test_newcomers_are_measured_against_their_own_bound(name: str) -> None:
    row = run(name, peers__count="6", arrivals__within_s="60.0")
    assert row["origin_copies"] <= 1.02
    assert row["time_over_bound"]["p50"] <= 2.0
    assert 0 < row["newcomers"] < 6
    assert 1.0 <= row["newcomers_max"] <= 1.2


def test_one_slow_holder_makes_nobody_slower_than_a_plain_download() -> None:
    """Promise 5, and promise 2: what it held counts as read once."""
    row = run("hedge", size="256MiB")
    assert row["time_over_bound"]["max"] <= 1.1 + 0.1 / row["bound_s"]
    assert row["origin_copies"] + 0.014 <= 1.02
