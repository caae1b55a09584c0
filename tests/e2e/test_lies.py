"""Peers that send wrong bytes, nothing, or vouch for what is not so: caught, named, survived."""

from __future__ import annotations

import pytest

from tests.e2e.lab import MIB, Lab, Peer, all_get, check_right, gets

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SIZE = 16 * MIB


def liar(lab: Lab, mode: str) -> Peer:
    peer = lab.peer(start=False)
    peer.mode = mode
    peer.start()
    return peer


@pytest.mark.parametrize("mode", ["corrupt", "stall", "close"])
def test_a_bad_parent_is_found_out(lab: Lab, mode: str) -> None:
    """The bad one has all of it first, so that the others must turn to it."""
    origin = lab.origin(SIZE)
    honest = lab.group(3)
    bad = liar(lab, mode)
    lab.acquainted(lab.peers)
    check_right([bad.get(origin.url)], origin)
    found = all_get(honest, origin.url, timeout_s=120)
    check_right(found, origin)
    name = bad.status()["peer_id"]
    told = [peer.task(found[0].done["task"]) for peer in honest]
    if mode != "close":
        blamed = {row["peer_id"] for each in told for row in each["blocked"]}
        assert blamed == {name}, f"{blamed}: {[each['story'] for each in told]}"
    assert all(row["peer_id"] != name for each in told for row in each["parents"])


def test_wrong_attestations_are_found_by_the_whole_digest(lab: Lab) -> None:
    origin = lab.origin(SIZE)
    honest = lab.group(3)
    bad = liar(lab, "attest")
    lab.acquainted(lab.peers)
    found = all_get([bad, *honest], origin.url, digest=origin.digest, timeout_s=120)
    good = [got for got in found if got.peer is not bad]
    check_right(good, origin)
    name = bad.status()["peer_id"]
    told = [got.peer.task(got.done["task"]) for got in good]
    assert any(name in {row["peer_id"] for row in each["blocked"]} for each in told), (
        f"nobody names {name}: {[each['story'] for each in told]}"
    )


def test_a_lie_about_the_length_is_outvoted(lab: Lab) -> None:
    """Its word is the first; two others agree against it, and everybody gets the right bytes."""
    origin = lab.origin(SIZE)
    honest = lab.group(3)
    bad = liar(lab, "length")
    lab.acquainted(lab.peers)
    with gets([bad], origin.url, digest=origin.digest, timeout_s=30):
        good = all_get(honest, origin.url, digest=origin.digest, timeout_s=120)
    check_right(good, origin)
    assert origin.body_bytes() <= 2 * SIZE, "nobody had to read it all alone"
