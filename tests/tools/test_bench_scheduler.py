"""`python -m tools.bench scheduler` says what it measured."""

from __future__ import annotations

import json

import pytest

from tools.bench.scheduler import main


def test_it_says_decisions_latency_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--peers", "300", "--tasks", "5", "--rounds", "2", "--json"]) == 0
    words, said = capsys.readouterr().out.splitlines()
    told = json.loads(said)
    assert {"decisions_per_s", "p99_ms", "rss_mb", "peers", "tasks"} <= told.keys()
    assert told["peers"] == 300
    assert told["decisions_per_s"] > 500, "a tenth of what is promised, whatever else runs here"
    assert told["report_bytes_s_per_peer"] + told["advice_bytes_s_per_peer"] < 2_000
    assert words.startswith(str(told["decisions_per_s"]))
