"""Many ask at once: every copy is right, the origin is read once (issue 2, results 2 and 3)."""

from __future__ import annotations

import pytest

from tests.e2e.lab import MIB, Lab, all_get, check_right

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SIZE = 64 * MIB
HEADER = "X-Token: open sesame"


@pytest.mark.parametrize("kind", ["ranged", "unranged", "needs-a-header"])
def test_five_peers_at_once_read_the_origin_once(lab: Lab, kind: str, repetition: int) -> None:
    flags = {
        "ranged": [],
        "unranged": ["--no-range"],
        "needs-a-header": ["--require-header", HEADER],
    }
    origin = lab.origin(SIZE, *flags[kind], seed=repetition)
    peers = lab.group(5)
    wish = {}
    if kind == "needs-a-header":
        wish = {"digest": origin.digest, "headers": [HEADER.split(": ")]}
    found = all_get(peers, origin.url, **wish)
    check_right(found, origin)
    asked = [got.asked_at for got in found]
    assert max(asked) - min(asked) <= 0.1, "they asked within 100 ms"
    copies = origin.body_bytes() / SIZE
    assert copies <= 1.02, f"{copies:.3f} copies: {[got.done for got in found]}\n{lab.logs()}"


def test_latecomers_need_no_origin(lab: Lab, repetition: int) -> None:
    origin = lab.origin(SIZE, seed=repetition)
    peers = lab.group(3)
    check_right(all_get(peers, origin.url), origin)
    before = origin.body_bytes()
    late = lab.peer()
    lab.acquainted(lab.peers)
    check_right([late.get(origin.url)], origin)
    assert origin.body_bytes() == before, "the newcomer read the origin"
    origin.stop()
    later = lab.peer()
    lab.acquainted(lab.peers)
    check_right([later.get(origin.url)], origin)
    for peer in lab.peers[1:]:
        peer.stop()
        peer.start()
    lab.acquainted(lab.peers)
    last = lab.peer()
    lab.acquainted(lab.peers)
    check_right([last.get(origin.url)], origin)
    assert last.task(last.get(origin.url).done["task"])["from_origin"] == 0
