"""`peerd explain`: of a download that runs, that is over, and after the daemon was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.lab import MIB, Lab, Peer, all_get, check_right, gets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def explain(peer: Peer, task: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "peerd", "explain", task, "--socket", peer.socket, *flags],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout


def test_where_bytes_came_from_who_decided_and_what_it_waited_for(lab: Lab) -> None:
    origin = lab.origin(24 * MIB, "--rate", str(8 * MIB))
    peers = lab.group(3)
    with gets(peers, origin.url, digest=origin.digest) as found:
        while not (rows := peers[0].tasks()) or rows[0]["bytes_held"] < 4 * MIB:
            pass
        task = rows[0]["task"]
        going: dict[str, Any] = json.loads(explain(peers[0], task[:12], "--json"))
    check_right(found, origin)
    assert going["task"] == task
    assert going["state"] == "fetching"
    for got in found:
        said = json.loads(explain(got.peer, task, "--json"))
        assert said["state"] == "complete"
        assert sum(said["from"].values()) == 24 * MIB
        assert sum(row["seconds"] for row in said["time"]) == pytest.approx(said["seconds"])
        assert said["seconds"] == pytest.approx(got.done["seconds"], abs=0.5)
        assert any(row["what"].endswith("keeps the task") for row in said["decisions"])
        assert said["parents"]
        if said["from"]["origin"]:
            reads = [row for row in said["decisions"] if row["what"] == "this peer may read"]
            assert reads
            assert reads[0]["by"].startswith("keeper 12D3")
            assert said["directly_s"] > 0
    words = explain(peers[0], task)
    assert "decisions" in words
    assert "origin bytes" in words
    assert "nobody held it" in words

    peers[1].kill()
    peers[1].start()
    after = json.loads(explain(peers[1], task, "--json"))
    assert after["state"] == "complete"
    assert sum(after["from"].values()) == 24 * MIB


def test_a_task_of_which_nothing_is_known_is_an_error_in_words(lab: Lab) -> None:
    peer = lab.peer()
    done = subprocess.run(
        [sys.executable, "-m", "peerd", "explain", "abc", "--socket", peer.socket],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_what_was_here_before_is_said_so(lab: Lab) -> None:
    origin = lab.origin(MIB)
    (peer,) = lab.group(1)
    check_right(all_get([peer], origin.url, digest=origin.digest), origin)
    (again,) = all_get([peer], origin.url, digest=origin.digest)
    said = json.loads(explain(peer, again.done["task"], "--json"))
    assert said["from"]["store"] == MIB
    assert said["state"] == "complete"
    assert [row["state"] for row in peer.tasks()] == ["complete"]
