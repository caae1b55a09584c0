"""Who leads, as an operator sees it: found by all, replaced when killed, missed by no download."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from peerd.cli import client
from tests.e2e.lab import MIB, Lab, Peer, check_right, gets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def scheduler(peer: Peer) -> dict[str, Any]:
    return client.ask(peer.socket, "GET", "/v1/scheduler")


def soon(what: Callable[[], bool], seconds: float) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it never came to be"
        time.sleep(0.05)
    return time.monotonic() - began


def leaders(peers: list[Peer]) -> set[Any]:
    return {scheduler(peer)["leader"] for peer in peers}


def test_a_leader_is_found_by_all_and_replaced_within_four_seconds(lab: Lab) -> None:
    peers = [*lab.group(3, "--scheduler"), lab.peer(), lab.peer()]
    by_id = {peer.status()["peer_id"]: peer for peer in peers}
    soon(lambda: len(leaders(peers)) == 1 and None not in leaders(peers), 15)
    first = scheduler(peers[3])
    assert first["mode"] == "scheduled"
    assert first["leader"] in first["electors"]
    assert len(first["electors"]) == 3
    status = peers[4].status()
    assert status["scheduling"] == f"scheduled by {first['leader']} (term {first['term']})"
    assert scheduler(by_id[first["leader"]])["state"] == "leading"

    killed = by_id[first["leader"]]
    killed.kill()
    left = [peer for peer in peers if peer is not killed]
    took_s = soon(lambda: not leaders(left) & {None, first["leader"]}, 10)
    assert took_s < 4
    second = scheduler(left[-1])
    assert len(leaders(left)) == 1
    assert second["term"] > first["term"]

    killed.start()
    soon(lambda: leaders(peers) == {second["leader"]}, 10)
    for peer in peers:
        assert "Traceback" not in peer.log()


def test_a_killed_leader_is_missed_by_no_download(lab: Lab) -> None:
    origin = lab.origin(24 * MIB, "--rate", str(4 * MIB))
    peers = lab.group(3, "--scheduler")
    others = [lab.peer() for _ in range(2)]
    soon(lambda: len(leaders([*peers, *others])) == 1, 15)
    leader = scheduler(others[0])["leader"]
    killed = next(peer for peer in peers if peer.status()["peer_id"] == leader)
    asking = [peer for peer in [*peers, *others] if peer is not killed]
    with gets(asking, origin.url, digest=origin.digest) as found:
        time.sleep(2)
        killed.kill()
    check_right(found, origin)


def test_a_leader_advises_and_the_download_says_so(lab: Lab) -> None:
    origin = lab.origin(24 * MIB, "--rate", str(4 * MIB))
    peers = [*lab.group(2, "--scheduler"), lab.peer(), lab.peer()]
    soon(lambda: len(leaders(peers)) == 1 and None not in leaders(peers), 15)
    leader = scheduler(peers[2])["leader"]
    with gets(peers, origin.url, digest=origin.digest) as found:
        led = next(peer for peer in peers if peer.status()["peer_id"] == leader)
        soon(lambda: (scheduler(led)["picture"] or {})["peers"] == len(peers), 10)
        seen = scheduler(led)["picture"]
        assert seen["tasks"] == 1
        assert seen["age_s"] < 6
    check_right(found, origin)
    assert scheduler(led)["picture"]["decisions"] >= len(peers)
    for peer in peers:
        said = client.ask(peer.socket, "GET", f"/v1/tasks/{found[0].done['task']}/explain")
        by = [row["by"] for row in said["decisions"] if "parents to try" in row["what"]]
        assert by == [f"leader {leader}, term {scheduler(peer)['term']}"], said["decisions"]


def test_without_anybody_eligible_it_is_degraded_and_says_so(lab: Lab) -> None:
    peers = lab.group(2)
    told = subprocess.run(
        [sys.executable, "-m", "peerd", "scheduler", "--json", "--socket", peers[0].socket],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    said = json.loads(told.stdout)
    assert said["mode"] == "degraded"
    assert said["leader"] is None
    assert said["eligible"] is False
    assert peers[0].status()["scheduling"] == "degraded: no scheduler"


def test_a_seed_peer_may_lead_unless_told_not_to(lab: Lab) -> None:
    seed = lab.peer("--seed-peer")
    other = lab.peer("--seed-peer", "--no-scheduler")
    soon(lambda: scheduler(other)["leader"] == seed.status()["peer_id"], 15)
    assert scheduler(other)["eligible"] is False
