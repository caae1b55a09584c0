"""Two peers that cannot dial each other: what one has reaches the other through a third."""

from __future__ import annotations

import pytest

from peerd.ids import PeerId
from peerd.rendezvous import ranked
from peerd.task import ask_for, task_id
from tests.e2e.lab import MIB, Lab, Peer, check_right

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SIZE = 16 * MIB


def walled(lab: Lab) -> Peer:
    peer = lab.peer(start=False)
    peer.mode = "walled"
    peer.start()
    return peer


def tag_for(keeper: Peer, peers: list[Peer], url: str) -> str:
    """A tag that makes the task one that `keeper` keeps."""
    ids = {PeerId(peer.status()["peer_id"]): peer for peer in peers}
    return next(
        f"v{n}"
        for n in range(1000)
        if ids[ranked(ids, task_id(ask_for(url, tag=f"v{n}"), b""))[0]] is keeper
    )


@pytest.mark.parametrize("keeper", [0, 1, 2], ids=["relay", "holder", "asker"])
def test_content_comes_through_a_third_peer_whoever_keeps_the_task(lab: Lab, keeper: int) -> None:
    relay = lab.peer()
    holder, asker = walled(lab), walled(lab)
    peers = [relay, holder, asker]
    lab.acquainted(peers)
    origin = lab.origin(SIZE)
    tag = tag_for(peers[keeper], peers, origin.url)
    check_right([holder.get(origin.url, tag=tag)], origin)
    origin.stop()
    got = asker.get(origin.url, tag=tag, timeout_s=60)
    story = "" if not got.done else asker.task(got.done["task"])["story"]
    check_right([got], origin)
    assert got.done["from_peers"] == SIZE, story
    assert relay.status()["downloads"] == 0
    assert relay.tasks() == [], "the relay has nothing of it"
    name = relay.status()["peer_id"]
    far = holder.status()["peer_id"]
    (row,) = [row for row in asker.peers() if row["peer_id"] == far]
    assert (row["link"], row["via"]) == (True, name), lab.logs()
