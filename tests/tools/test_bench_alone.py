"""The benchmark of one peer alone: its arithmetic, and one small run of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.tools.test_bench_swarm import ROOT, needs_lab
from tools.bench.alone import SHOWN, row


def test_each_way_is_compared_with_curl_by_medians() -> None:
    seconds = {
        "curl": [1.0, 2.0, 9.0],
        "daemon": [2.0] * 3,
        "asked": [2.2] * 3,
        "command": [2.4, 2.3, 99.0],
    }
    told = row(1000, seconds)
    assert told["over_curl"] == {"curl": 1.0, "daemon": 1.0, "asked": 1.1, "command": 1.2}
    assert told["more_than_curl_s"]["command"] == pytest.approx(0.4)
    assert told["spread"]["command"] == [2.3, 99.0]


@needs_lab
@pytest.mark.timeout(120)
def test_it_runs_in_a_lab() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", "alone", "--rate", "200mbit", "--size", "1MiB",
         "--repeat", "1", "--json"],
        capture_output=True, text=True, cwd=ROOT, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    (only,) = told["rows"]
    assert only["bytes"] == 1 << 20
    assert only["verified"]
    assert set(only["seconds"]) == set(SHOWN)
    assert all(seconds > 0 for seconds in only["seconds"].values())
