"""Advice changes whom a download tries first, and nothing that it could not do without it."""

from __future__ import annotations

import random

from peerd.ids import PeerId
from peerd.link.messages import RosterPeer
from peerd.swarm.parents import PARENTS_WANTED, Parents


def roster(name: str, zone: str = "", held: int = 1) -> RosterPeer:
    return RosterPeer(PeerId(name), ("10.0.0.1:1",), zone, held, False, False)


def parents(zone: str = "") -> Parents:
    return Parents(PeerId("own"), random.Random(1), zone)


def names(peers: list[RosterPeer]) -> list[str]:
    return [entry.peer for entry in peers]


MANY = tuple(roster(f"p{number}") for number in range(60))


def test_who_was_advised_is_dialled_first_in_that_order() -> None:
    known = parents()
    known.name(MANY)
    known.advise((roster("p40"), roster("p7"), roster("p23")), until=10.0)
    dialled = names(known.to_connect(0.0))
    assert dialled[:3] == ["p40", "p7", "p23"]
    assert len(dialled) == PARENTS_WANTED, "the rest is of its own choice"


def test_advice_that_is_too_old_changes_nothing() -> None:
    with_it, without = parents(), parents()
    for known in (with_it, without):
        known.name(MANY)
    with_it.advise((roster("p40"),), until=10.0)
    assert names(with_it.to_connect(10.0)) == names(without.to_connect(10.0))


def test_newer_advice_takes_the_place_of_older() -> None:
    known = parents()
    known.name(MANY)
    known.advise((roster("p1"),), until=10.0)
    known.advise((roster("p2"),), until=10.0)
    assert names(known.to_connect(0.0))[0] == "p2"


def test_one_that_nobody_named_yet_is_tried_too() -> None:
    known = parents()
    known.advise((roster("new"), roster("own")), until=10.0)
    assert names(known.to_connect(0.0)) == ["new"], "never oneself"


def test_who_is_blocked_or_cannot_be_reached_is_not_tried_because_of_it() -> None:
    known = parents()
    known.block(PeerId("liar"), "wrong bytes")
    known.gone(PeerId("away"), 0.0)
    known.advise((roster("liar"), roster("away"), roster("good")), until=10.0)
    assert names(known.to_connect(0.1)) == ["good"]


def test_what_we_know_of_a_peer_is_not_changed_by_it() -> None:
    known = parents()
    known.name((roster("p1", held=500),))
    known.advise((roster("p1", zone="elsewhere", held=1),), until=10.0)
    assert known.known[PeerId("p1")].held == 500
    assert known.known[PeerId("p1")].zone == ""


def test_it_opens_no_more_links_over_a_border_than_there_would_be() -> None:
    known, plain = parents("eu"), parents("eu")
    near = tuple(roster(f"near{number}", "eu") for number in range(20))
    far = tuple(roster(f"far{number}", "us") for number in range(20))
    for each in (known, plain):
        each.name((*near, *far))
    known.advise(far[:8], until=10.0)
    advised, usual = names(known.to_connect(0.0)), names(plain.to_connect(0.0))
    assert sum(name.startswith("far") for name in advised) == sum(
        name.startswith("far") for name in usual
    )


def test_who_is_named_twice_keeps_its_first_place() -> None:
    """A good parent may be one that passes on fast, too."""
    known = parents()
    known.name(MANY)
    known.advise((roster("p40"), roster("p7"), roster("p40")), until=10.0)
    assert names(known.to_connect(0.0))[:2] == ["p40", "p7"]
