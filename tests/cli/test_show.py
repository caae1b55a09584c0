"""status, peers, tasks, task: tables for people, one object for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peerd.cli.show import cell, pairs, table
from tests.cli.running import URL, daemon, peerd
from tests.gateway.fake_control import FakeControl, task_of

TASK = task_of(URL)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["status"], {"peer_id", "zone", "peers", "mode", "leader", "term", "origin_bytes",
                      "peer_bytes_in", "peer_bytes_out", "saved_bytes"}),
        (["peers"], {"peers"}),
        (["tasks"], {"tasks"}),
        (["task", "show", TASK[:8]], {"task", "url", "bytes", "progress", "pieces"}),
        (["task", "rm", TASK[:8]], {"task", "freed_bytes"}),
    ],
)  # fmt: skip
async def test_json_is_one_object_with_its_keys(
    tmp_path: Path, arguments: list[str], keys: set[str]
) -> None:
    async with daemon(FakeControl({URL: b"x" * 2048}), tmp_path / "s") as path:
        result = await peerd(*arguments, "--json", "--socket", path)
    assert result.returncode == 0
    assert set(json.loads(result.stdout.splitlines()[-1])) == keys


async def test_tables_are_for_people(tmp_path: Path) -> None:
    async with daemon(FakeControl({URL: b"x" * 2048}), tmp_path / "s") as path:
        status = (await peerd("status", "--socket", path)).stdout.decode()
        peers = (await peerd("peers", "--socket", path)).stdout.decode()
        tasks = (await peerd("tasks", "--socket", path)).stdout.decode()
        task = (await peerd("task", "show", TASK[:8], "--socket", path)).stdout.decode()
    assert "saved bytes     3.0 MiB" in status
    assert "leader          -" in status
    assert "a?[31mred" in peers  # Another peer's name does not steer the terminal.
    assert tasks.splitlines()[1].split() == [TASK[:16], URL, "2.0", "KiB", "100%"]
    assert "pieces\n  piece  from\n" in task
    assert TASK in task


async def test_an_unknown_task_and_no_daemon_are_errors_in_words(tmp_path: Path) -> None:
    async with daemon(FakeControl(), tmp_path / "s") as path:
        unknown = await peerd("task", "show", "abc", "--socket", path)
        odd = await peerd("task", "rm", "../x?", "--socket", path)
    gone = await peerd("status", "--socket", path)
    assert (unknown.returncode, odd.returncode, gone.returncode) == (5, 2, 3)
    assert b"start one with `peerd join`" in gone.stderr


def test_values_are_shown_by_their_keys_unit() -> None:
    assert cell("size_bytes", 2048) == "2.0 KiB"
    assert cell("upload_bytes_s", 2048) == "2.0 KiB/s"
    assert cell("round_trip_s", 0.25) == "0.25 s"
    assert cell("progress", 0.5) == "50%"
    assert cell("ratio", 1.041) == "1.04"
    assert cell("seed", False) == "no"
    assert cell("leader", None) == cell("zone", "") == "-"
    assert cell("addresses", ["a", "b"]) == "a, b"


def test_tables_align_and_nested_values_come_below() -> None:
    rows = [{"name": "a", "bytes": 5, "more": {}}, {"name": "long", "bytes": 2048}]
    assert table(rows, "") == "name    bytes\na         5 B\nlong  2.0 KiB"
    assert table([], "nothing") == "nothing"
    shown = pairs({"url": "u", "from": {"origin_bytes": 1}, "story": ["one", "two"]})
    assert shown == "url    u\nfrom\n  origin bytes  1 B\nstory\n  one\n  two"
