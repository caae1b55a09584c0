"""Who has links enough, who has few, and how the one makes room for the other.

A peer that was refused used to count as one that cannot be reached: two such complaints, and what
it held was read from the origin again (64 simulated peers: 1.05 copies, a tenth sent in vain).
"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from peerd.ids import PeerId
from peerd.link import messages as msg
from peerd.link.messages import RosterPeer
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.consequences import MATES_S
from peerd.swarm.download import Download
from peerd.swarm.mates import Mates
from peerd.swarm.parents import FULL_S, PARENTS_FEW, PARENTS_MAX, PARENTS_WANTED
from tests.swarm.test_download import ANN, BOB, opened, requests, roster, version
from tests.swarm.test_mates import Links, Run
from tests.swarm.test_review import info_of, stored_version


def crowded(parents: int) -> Download:
    core = opened(12)
    for number in range(parents):
        core.handle(ev.ParentJoined(PeerId(f"p{number}"), PieceSet(12)), 0.0)
    return core


def dialled(orders: list[ev.Order]) -> list[PeerId]:
    return [order.peer for order in orders if isinstance(order, ev.Connect)]


def test_one_that_is_full_is_no_one_that_failed() -> None:
    core = opened(12)
    core.handle(ev.PeersNamed((roster(ANN),)), 0.0)
    for at in (0.0, 20.0, 40.0):
        orders = core.handle(ev.ParentFull(ANN), at)
        assert not any(isinstance(order, ev.Complain) for order in orders)
        assert ANN not in dialled(core.expire(at + FULL_S / 2))
        assert ANN in dialled(core.expire(at + FULL_S))


def test_what_one_that_parts_owed_is_asked_of_others_and_cancelled_there() -> None:
    core = opened(12)
    asked = requests(core.handle(ev.ParentJoined(ANN, PieceSet.full(12)), 0.0))[ANN]
    orders = core.handle(ev.ParentFull(ANN), 0.1)
    assert ev.CancelPieces(ANN, tuple(asked)) in orders
    again = requests(core.handle(ev.ParentJoined(BOB, PieceSet.full(12)), 0.1))[BOB]
    assert again
    core.validate()


def test_who_has_few_is_let_in_and_the_least_missed_goes() -> None:
    core = crowded(PARENTS_MAX)
    core.parents.joined[PeerId("p3")].rate_bytes_s = None
    for number in range(PARENTS_MAX):
        if number != 3:
            core.parents.joined[PeerId(f"p{number}")].rate_bytes_s = 1e6
    assert core.parents.refuses(ANN, few=False, zone="")
    assert not core.parents.refuses(ANN, few=True, zone="")
    orders = core.handle(ev.ParentJoined(ANN, PieceSet(12)), 1.0)
    [drop] = [order for order in orders if isinstance(order, ev.Drop)]
    assert drop.peer == "p3"
    assert ANN in core.parents.joined
    assert len(core.parents.joined) == PARENTS_MAX
    assert drop.peer not in core.parents.blocked


def test_who_is_dialled_is_left_to_chance() -> None:
    """All who start know the same few as those who hold most: these would serve everybody."""
    firsts = set()
    for seed in range(30):
        core = Download(PeerId("own"), Random(seed))
        named = tuple(roster(PeerId(f"p{n}"), held=n + 1) for n in range(3 * PARENTS_WANTED))
        core.handle(ev.PeersNamed(named), 0.0)
        chosen = core.parents.to_connect(0.0)
        assert len(chosen) == PARENTS_WANTED
        firsts.add(chosen[0].peer)
    assert len(firsts) > 10


def test_who_knows_few_asks_them_for_others_now_and_then() -> None:
    core = crowded(1)
    asks = [x for x in core.expire(1.0) if isinstance(x, ev.AskMates)]
    assert asks == [ev.AskMates(PeerId("p0"))]
    assert not [x for x in core.expire(1.5) if isinstance(x, ev.AskMates)]
    assert [x for x in core.expire(1.0 + MATES_S) if isinstance(x, ev.AskMates)]
    enough = crowded(PARENTS_FEW)
    assert not [x for x in enough.expire(1.0) if isinstance(x, ev.AskMates)]


class Wire(Links):
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[PeerId, msg.Message]] = []

    def send(self, peer: PeerId, message: msg.Message) -> None:
        self.sent.append((peer, message))


async def in_swarm(parents: int) -> tuple[Run, Mates, Wire]:
    wire, run = Wire(), Run(core=crowded(parents))
    near: Any = SimpleNamespace(links=wire, inbound=None, zone="", rng=Random(1))
    mates = Mates(run, near)
    run.stored = await stored_version(info_of(12))
    return run, mates, wire


async def test_a_crowded_peer_says_so_before_it_says_what_it_has() -> None:
    """Else it is asked for pieces first, and sends them in vain."""
    run, mates, wire = await in_swarm(PARENTS_MAX)
    info = info_of(12)
    mates.joined(ANN, msg.Join(info, bytes(2)))
    assert wire.sent == [(ANN, msg.Depart(info.version, True))]
    assert run.posted == []
    mates.joined(BOB, msg.Join(info, bytes(2), "", True))
    assert isinstance(wire.sent[-1][1], msg.Join)
    assert isinstance(run.posted[-1], ev.ParentJoined)


async def test_mates_are_named_to_who_asks() -> None:
    run, mates, wire = await in_swarm(3)
    info = info_of(12)
    run.core.parents.name(tuple(roster(PeerId(f"p{n}")) for n in range(3)))
    mates.says(PeerId("p0"), msg.MatesAsk(info.version))
    [(peer, answer)] = wire.sent
    assert peer == "p0"
    assert isinstance(answer, msg.Mates)
    assert {each.peer for each in answer.peers} == {"p1", "p2"}
    mates.says(PeerId("p1"), msg.Mates(info.version, answer.peers))
    assert run.posted == [], "nobody asked it"
    mates.ask(PeerId("p1"), info.version)
    for _ in range(2):
        mates.says(PeerId("p1"), msg.Mates(info.version, answer.peers))
    assert run.posted == [ev.PeersNamed(answer.peers)]
    mates.says(PeerId("p1"), msg.Depart(info.version, True))
    assert run.posted[-1] == ev.ParentFull(PeerId("p1"))


def test_few_parents_have_more_in_flight_each() -> None:
    core = crowded(PARENTS_FEW - 1)
    first = core.parents.joined[PeerId("p0")]
    first.rate_bytes_s = 1.0
    assert first.window(1 << 18) == 2
    core.handle(ev.ParentJoined(ANN, PieceSet(12)), 0.0)
    assert first.window(1 << 18) == 1
    core.handle(ev.ParentGone(ANN), 0.0)
    assert first.window(1 << 18) == 2


def zoned(near: int, far: int) -> Download:
    core = Download(PeerId("own"), Random(1), "eu")
    core.handle(ev.VersionOpened(version(12), PieceSet(12)), 0.0)
    for number in range(near):
        core.handle(ev.ParentJoined(PeerId(f"n{number}"), PieceSet(12), "eu"), 0.0)
    for number in range(far):
        core.handle(ev.ParentJoined(PeerId(f"f{number}"), PieceSet(12), "us"), 0.0)
    return core


def test_a_near_peer_takes_the_place_of_one_beyond_the_border() -> None:
    """Four zones of 16, simulated: who had more links over the border than at home ended last."""
    core = zoned(PARENTS_MAX - 6, 6)
    assert not core.parents.refuses(ANN, few=False, zone="eu")
    [drop] = [
        order
        for order in core.handle(ev.ParentJoined(ANN, PieceSet(12), "eu"), 1.0)
        if isinstance(order, ev.Drop)
    ]
    assert drop.peer.startswith("f")
    few_far = zoned(PARENTS_MAX - 4, 4)
    assert few_far.parents.refuses(ANN, few=False, zone="eu"), "a few are to stay"


def test_the_answer_of_one_that_was_dialled_is_not_refused() -> None:
    core = zoned(PARENTS_FEW, 3)
    core.parents.name((RosterPeer(ANN, ("ann:1",), "us", 1, False, False),))
    assert [each.peer for each in core.parents.to_connect(0.0)] == [ANN]
    assert not core.parents.refuses(ANN, few=False, zone="us")


def test_few_links_over_a_border_are_taken() -> None:
    assert zoned(PARENTS_FEW, 4).parents.refuses(ANN, few=True, zone="us")
    assert not zoned(PARENTS_FEW, 3).parents.refuses(ANN, few=False, zone="us")
    assert not zoned(2, 6).parents.refuses(ANN, few=False, zone="us"), "too few at home"
