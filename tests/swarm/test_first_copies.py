"""Whom the one who read a piece tells first, and when it tells the others."""

from __future__ import annotations

from math import inf

from peerd.ids import PeerId, PieceIndex
from peerd.link.messages import LeaseInfo, LeaseKind, RosterPeer
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.first_copies import PATIENCE_MAX_S, PATIENCE_MIN_S, FirstCopies
from tests.swarm.test_download import ANN, BOB, OWN, opened

CIA = PeerId("cia")


def reading(count: int, *children: PeerId) -> Download:
    """It has leases for all pieces, and these children have nothing."""
    core = opened(count)
    for peer in children:
        core.handle(ev.ParentJoined(peer, PieceSet(count)), 0.0)
    core.handle(ev.LeaseGranted(LeaseInfo(1, LeaseKind.READ, OWN, 0, count, 60.0)), 0.0)
    return core


def read(core: Download, index: int, now: float = 0.0) -> ev.Announce:
    return told(core.handle(ev.PieceRead(PieceIndex(index)), now))[0]


def told(orders: list[ev.Order]) -> list[ev.Announce]:
    return [order for order in orders if isinstance(order, ev.Announce)]


def test_of_several_pieces_that_nobody_has_each_is_told_to_another_child() -> None:
    core = reading(8, ANN, BOB, CIA)
    assert read(core, 0).to == (), "the only one: the uplink has nothing else to send"
    firsts = [read(core, index).to for index in (1, 2, 3)]
    assert sorted(firsts) == [(ANN,), (BOB,), (CIA,)]


def advised(peer: PeerId, until: float) -> ev.Advised:
    return ev.Advised((), until, (RosterPeer(peer, ("10.0.0.1:1",), "", 0, False, False),))


def test_who_was_advised_is_told_of_two_more_before_the_others() -> None:
    core = reading(8, ANN, BOB, CIA)
    read(core, 0)
    core.handle(advised(BOB, until=10.0), 0.0)
    firsts = [read(core, index).to for index in range(1, 6)]
    assert firsts[:2] == [(BOB,), (BOB,)]
    assert {(ANN,), (CIA,)} < set(firsts[2:]), "it is no more than an order"


def test_advice_that_is_too_old_or_names_a_stranger_changes_nothing() -> None:
    for word in (advised(BOB, until=0.5), advised(PeerId("stranger"), until=10.0)):
        core = reading(8, ANN, BOB, CIA)
        read(core, 0)
        core.handle(word, 0.0)
        firsts = [read(core, index, 1.0).to for index in (1, 2, 3)]
        assert sorted(firsts) == [(ANN,), (BOB,), (CIA,)]


def test_all_are_told_as_soon_as_anybody_has_it() -> None:
    core = reading(8, ANN, BOB, CIA)
    read(core, 0)
    [one] = read(core, 1).to
    other = ANN if one != ANN else BOB
    orders = core.handle(ev.ParentHas(other, (1, 1)), 0.1)  # Said twice: it may be anybody's.
    assert told(orders) == [ev.Announce(PieceIndex(1))]
    assert not told(core.handle(ev.ParentHas(one, (1,)), 0.2)), "once"


def test_all_are_told_when_the_child_goes_or_takes_too_long() -> None:
    core = reading(8, ANN, BOB, CIA)
    read(core, 0)
    [one], [two] = read(core, 1).to, read(core, 2).to
    assert told(core.handle(ev.ParentGone(one), 0.1)) == [ev.Announce(PieceIndex(1))]
    due = core.deadline(0.1)
    assert not told(core.expire(due - 0.01))
    assert two != one
    while not (late := told(core.expire(due))):
        due = core.deadline(due)
        assert due <= PATIENCE_MAX_S
    assert late == [ev.Announce(PieceIndex(2))]


def test_who_does_not_take_what_it_was_told_of_is_told_of_less() -> None:
    core = reading(64, ANN, BOB, CIA)
    read(core, 0)
    firsts: list[PeerId] = []
    for index in range(1, 40):
        now = index * 1.0
        core.expire(now)
        [one] = read(core, index, now).to
        firsts.append(one)
        if one != ANN:
            core.handle(ev.ParentHas(one, (index,)), now + 0.1)
    assert firsts.count(ANN) == 1


def test_how_long_a_child_is_waited_for_follows_from_how_long_they_take() -> None:
    core = reading(64, ANN, BOB, CIA)
    slow, quick = FirstCopies(), FirstCopies()
    for index in range(40):
        for copies, took_s in ((slow, 0.4), (quick, 0.01)):
            [one] = copies.tell(index, 5, core.parents, core._rng, float(index))
            copies.has(one, (index,), index + took_s)
    for copies in (slow, quick):
        copies.tell(60, 5, core.parents, core._rng, 100.0)
    assert 101.0 < slow.deadline() <= 100.0 + PATIENCE_MAX_S
    assert quick.deadline() == 100.0 + PATIENCE_MIN_S


def test_nothing_is_held_back_once_all_is_held_or_from_the_only_child() -> None:
    core = reading(3, ANN, BOB)
    read(core, 0)
    assert read(core, 1).to
    orders = core.handle(ev.PieceRead(PieceIndex(2)), 0.1)
    assert {each.index for each in told(orders) if not each.to} == {1, 2}
    assert core.deadline(0.1) == inf
    alone = reading(8, ANN)
    assert [read(alone, index).to for index in range(3)] == [(), (), ()]


def test_what_is_lost_meanwhile_is_not_told() -> None:
    core = reading(8, ANN, BOB)
    read(core, 0)
    read(core, 1)
    core.handle(ev.PieceLost(PieceIndex(1)), 0.1)
    assert not told(core.expire(60.0))


def test_a_child_beyond_a_border_hears_at_once() -> None:
    core = reading(8, ANN, BOB, CIA)
    core.parents.joined[CIA].border = "z"
    read(core, 0)
    to = read(core, 1).to
    assert len(to) == 2
    assert CIA in to
