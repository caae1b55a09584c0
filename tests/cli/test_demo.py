"""`peerd demo` with daemons that only read the origin: its accounts and its tidiness."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from peerd.cli import demo
from peerd.errors import NoSpace, UsageError


def fake(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.gateway.fake_control", *arguments]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_counts_what_the_origin_sent_without_the_direct_download(
    capfd: pytest.CaptureFixture[str], temporary: Path
) -> None:
    demo.run(2, "3MiB", True, command=fake)
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert found["origin_copies"] == 2.0  # No swarm: each of the two read it all.
    assert (found["peers"], found["bytes"], found["all_verified"]) == (2, 3 << 20, True)
    assert 0 < found["direct_seconds"] < 30
    assert 0 < found["seconds"] < 30
    assert os.listdir(temporary) == []


def test_it_ends_with_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    demo.run(1, "1MiB", False, command=fake)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["peer", "seconds", "from", "origin", "from", "peers", "digest"]
    assert lines[1].startswith("peer-1")
    assert lines[1].endswith("ok")
    assert lines[-2] == "origin copies  1.00 ×"
    assert "× one direct download" in lines[-1]


def test_a_size_that_cannot_be_is_refused_by_name() -> None:
    for size in ("big", "0"):
        with pytest.raises(UsageError, match="--size"):
            demo.run(1, size, True, command=fake)
    with pytest.raises(NoSpace, match="choose a smaller --size"):
        demo.run(1, "900TiB", True, command=fake)
