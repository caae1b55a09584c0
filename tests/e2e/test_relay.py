"""Two peers that cannot dial each other: what one has reaches the other through a third."""

from __future__ import annotations

import pytest

from tests.e2e.lab import MIB, Lab, Peer, check_right

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SIZE = 16 * MIB
URLS_MAX = 40


def walled(lab: Lab) -> Peer:
    peer = lab.peer(start=False)
    peer.mode = "walled"
    peer.start()
    return peer


def keeper_of(holder: Peer, task: str, peers: dict[str, Peer]) -> Peer:
    """As the members' own rule says: the first in rendezvous order."""
    raise NotImplementedError


@pytest.mark.parametrize("keeper", [0, 1, 2], ids=["relay keeps", "holder keeps", "asker keeps"])
def test_content_comes_through_a_third_peer_whoever_keeps_the_task(lab: Lab, keeper: int) -> None:
    relay = lab.peer()
    holder, asker = walled(lab), walled(lab)
    peers = [relay, holder, asker]
    lab.acquainted(peers)
