"""Which links are late, and whose doing it is."""

from __future__ import annotations

from peerd.ids import PeerId
from peerd.scheduler.lateness import Lateness
from peerd.scheduler.ports import Member

PEERS = [PeerId(f"p{number}") for number in range(6)]


class Near:
    """Links and members at once: the last two are in another zone."""

    def __init__(self) -> None:
        self.takes_s = dict.fromkeys(PEERS, 0.05)
        self.down: set[PeerId] = set()

    def late_s(self, peer: PeerId) -> float:
        return self.takes_s[peer]

    def connected(self, peer: PeerId) -> bool:
        return peer not in self.down

    def member(self, peer: PeerId) -> Member:
        return Member(peer, (), "far" if peer in PEERS[4:] else "", False, False, "")


def lateness() -> tuple[Near, Lateness]:
    near = Near()
    return near, Lateness(near, near)  # type: ignore[arg-type]


def test_once_is_chance() -> None:
    near, links = lateness()
    near.takes_s[PEERS[0]] = 1.5
    assert links.look(PEERS) == frozenset()
    assert links.look(PEERS) == {PEERS[0]}
    near.takes_s[PEERS[0]] = 0.1
    near.takes_s[PEERS[1]] = 1.5
    assert links.look(PEERS) == frozenset()


def test_it_is_the_others_doing_where_most_of_its_zone_are_not_late() -> None:
    near, links = lateness()
    near.takes_s[PEERS[0]] = 1.5
    assert links.alone(PEERS[0], PEERS)
    near.takes_s[PEERS[1]] = 1.5
    assert links.alone(PEERS[0], PEERS)
    near.down.add(PEERS[2])
    assert not links.alone(PEERS[0], PEERS), "one of two"


def test_with_nobody_to_compare_with_it_may_be_the_way_there() -> None:
    near, links = lateness()
    near.takes_s[PEERS[4]] = 1.5
    assert not links.alone(PEERS[4], PEERS), "a border may be slow"
    assert not links.alone(PEERS[0], PEERS[:2])
