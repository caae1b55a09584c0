"""Daemons die in mid-download; the others do not notice, and nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time

import pytest

from peerd.ids import PeerId
from peerd.rendezvous import ranked
from tests.e2e.lab import MIB, Lab, Origin, Peer, check_right, gets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SIZE = 48 * MIB
RATE = 16 * MIB
"""Of the origin, in bytes a second: slow enough to be in the middle when somebody dies."""


def wait_held(peer: Peer, at_least: int, seconds: float = 30.0) -> str:
    """The task's id, once the peer holds so many bytes of it."""
    ends_at = time.monotonic() + seconds
    while True:
        for row in peer.tasks():
            if row["bytes_held"] >= at_least:
                return str(row["task"])
        assert time.monotonic() < ends_at, f"{peer.tasks()}\n{peer.log()[-3000:]}"
        time.sleep(0.02)


def by_rank(lab: Lab, peers: list[Peer], task: str) -> list[Peer]:
    """The peers in the order in which they keep the task."""
    by_id = {PeerId(peer.status()["peer_id"]): peer for peer in peers}
    return [by_id[peer] for peer in ranked(by_id, task)]


@pytest.mark.parametrize("victim", ["keeper", "first standby", "second standby", "other"])
def test_one_dies_in_mid_download(lab: Lab, victim: str) -> None:
    origin = lab.origin(SIZE, "--rate", str(RATE))
    peers = lab.group(4)
    with gets(peers, origin.url) as found:
        task = wait_held(peers[0], SIZE // 4)
        dead = by_rank(lab, peers, task)[
            ["keeper", "first standby", "second standby", "other"].index(victim)
        ]
        held = dead.task(task)["bytes_held"]
        dead.kill()
    check_right([got for got in found if got.peer is not dead], origin)
    copies = origin.body_bytes() / SIZE
    assert copies <= 1.02 + held / SIZE, f"{copies:.3f} copies; the dead one held {held}"
    _finishes_what_it_began(dead, origin, task)


def _finishes_what_it_began(dead: Peer, origin: Origin, task: str) -> None:
    dead.start()
    kept = dead.task(task)["bytes_held"]
    again = dead.get(origin.url)
    check_right([again], origin)
    assert kept > 0, "it had acknowledged pieces"
    assert again.done["from_store"] == kept
    fetched = again.done["from_peers"] + again.done["from_origin"]
    twice = dead.task(task)["wasted_bytes"]
    audits = 0.01 * SIZE
    assert fetched - twice <= SIZE - kept + audits, "what it held was not fetched again"


def test_a_keeper_that_stands_still_is_replaced_before_its_links_end(lab: Lab) -> None:
    """Stopped as by a debugger, or a machine that swaps: links stand for 10 s, and 5 s more went
    into finding out that it cannot be dialled."""
    origin = lab.origin(SIZE, "--rate", str(3 * MIB))
    peers = lab.group(4)
    with gets(peers, origin.url) as found:
        task = wait_held(peers[0], SIZE // 8)
        keeper = by_rank(lab, peers, task)[0]
        identity = keeper.status()["peer_id"]
        others = [peer for peer in peers if peer is not keeper]
        assert keeper.process is not None
        keeper.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            while {peer.task(task)["keeper"] for peer in others} & {identity, None}:
                assert time.monotonic() - began < 9, "they still wait for it"
                time.sleep(0.1)
        finally:
            keeper.process.send_signal(signal.SIGCONT)
    check_right(found, origin)
