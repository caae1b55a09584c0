"""The way to the keeper that grants leases, over those of one's cells."""

from __future__ import annotations

import pytest

from peerd import cells
from peerd.ids import VersionId
from peerd.link import messages as m
from peerd.rendezvous import ranked
from peerd.scheduler.ladder import At, Ladder
from peerd.scheduler.ports import Member
from peerd.scheduler.seeker import Begin, EnrolAt, Heard, MembersNow, Settled, Unreachable
from tests.scheduler.world import TASK, key, member

MANY = tuple(member(number) for number in range(1, 201))
FEW = MANY[:20]
OWN = key(3).peer_id
VERSION = m.Progress(TASK, VersionId("b" * 64), bytes(2))


def begun(members: tuple[Member, ...] = MANY, *, shared: bool = True) -> tuple[Ladder, At]:
    ladder = Ladder(OWN, TASK, shared=shared)
    assert ladder.handle(MembersNow(members, False), 0.0) == []
    assert ladder.handle(Begin(), 0.0) == []
    [first] = ladder.handle(MembersNow(members, True), 0.0)
    return ladder, first


def settle(ladder: Ladder, at: At, term: int = 3) -> list[At]:
    assert isinstance(at.order, EnrolAt)
    enrolled = m.Enrolled(at.place.seat, term, None, 0.0, ())
    return ladder.handle(Heard(at.order.peer, enrolled), 0.1)


def stand(ladder: Ladder, at: At, term: int = 3) -> At:
    assert isinstance(at.order, EnrolAt)
    [up] = ladder.handle(Heard(at.order.peer, m.Delegate(at.place.seat, term)), 0.2)
    return up


def test_a_small_group_has_one_keeper() -> None:
    ladder, first = begun(FEW)
    assert first.place.top
    assert (first.place.seat, first.place.scope) == (TASK, "")
    settle(ladder, first)
    assert ladder.keeper == ranked((x.peer for x in FEW), TASK)[0]


def test_what_is_this_machines_own_has_no_cells() -> None:
    _, first = begun(shared=False)
    assert first.place.top
    assert isinstance(first.order, EnrolAt)
    assert first.order.peer == OWN


def test_in_a_large_one_the_keeper_of_the_cell_is_asked_first() -> None:
    ladder, first = begun()
    bits = cells.bits_for(len(MANY))
    [cell] = cells.path(OWN, bits)
    assert not first.place.top
    assert first.place.scope == f"#{cell}"
    assert first.place.seat == cells.cell_seat(TASK, cell)
    inside = [x.peer for x in MANY if cells.lies_in(x.peer, "", f"#{cell}")]
    assert isinstance(first.order, EnrolAt)
    assert first.order.peer == ranked(inside, first.place.seat)[0]
    settle(ladder, first)
    assert ladder.keeper is None, "it grants no leases"
    assert ladder.stands_below
    assert ladder.addressed(m.LeaseAsk(TASK, 0, 2, None)) == []


def test_who_is_asked_to_stand_for_its_cell_enrols_higher_up() -> None:
    ladder, first = begun()
    settle(ladder, first)
    up = stand(ladder, first)
    assert isinstance(first.order, EnrolAt)
    assert isinstance(up.order, EnrolAt)
    assert up.place.top
    assert up.place.cell_keeper == first.order.peer
    assert up.order.peer == ranked((x.peer for x in MANY), TASK)[0]
    [settled] = settle(ladder, up)
    assert isinstance(settled.order, Settled)
    assert ladder.keeper == up.order.peer
    assert not ladder.stands_below
    assert ladder.addressed(m.LeaseAsk(TASK, 3, 2, None)) == [
        (up.order.peer, m.LeaseAsk(TASK, 3, 2, None))
    ]
    told = dict(ladder.addressed(VERSION))
    assert told[up.order.peer] == VERSION
    assert told[first.order.peer] == m.Progress(first.place.seat, VERSION.version, VERSION.have)
    ladder.validate()


def test_only_the_keeper_of_its_cell_makes_it_stand() -> None:
    ladder, first = begun()
    settle(ladder, first)
    assert ladder.handle(Heard(key(99).peer_id, m.Delegate(first.place.seat, 3)), 0.2) == []
    assert isinstance(first.order, EnrolAt)
    old = m.Delegate(first.place.seat, 2)
    assert ladder.handle(Heard(first.order.peer, old), 0.2) == []
    stand(ladder, first)
    again = Heard(first.order.peer, m.Delegate(first.place.seat, 3))
    assert ladder.handle(again, 0.3) == [], "once is enough"


def test_another_keeper_of_the_cell_hears_that_it_stands_and_the_wider_one_of_it() -> None:
    ladder, first = begun()
    settle(ladder, first)
    up = stand(ladder, first)
    settle(ladder, up)
    assert isinstance(first.order, EnrolAt)
    once_more = ladder.handle(Unreachable(first.order.peer), 1.0)[-1]
    next_one = ladder.handle(Unreachable(first.order.peer), 1.0)[-1]
    assert isinstance(next_one.order, EnrolAt)
    assert next_one.order.peer != first.order.peer
    assert next_one.place.delegate
    assert once_more.place.seat == first.place.seat
    told = settle(ladder, next_one, term=4)
    [up_again] = [each for each in told if isinstance(each.order, EnrolAt)]
    assert up_again.place.seat == TASK
    assert up_again.place.cell_keeper == next_one.order.peer


@pytest.mark.parametrize("kind", ["dispute", "doubt"])
def test_a_dispute_goes_to_the_cell_as_long_as_it_does_not_stand(kind: str) -> None:
    ladder, first = begun()
    settle(ladder, first)
    message: m.Message = m.Doubted(TASK, 3, VERSION.version, "no room")
    if kind == "dispute":
        message = m.Dispute(TASK, 3, VERSION.version, ())
    assert isinstance(first.order, EnrolAt)
    [(peer, told)] = ladder.addressed(message)
    assert peer == first.order.peer
    assert told.task == first.place.seat  # type: ignore[union-attr]
    up = stand(ladder, first)
    settle(ladder, up)
    assert isinstance(up.order, EnrolAt)
    assert ladder.addressed(message) == [(up.order.peer, message)]


def test_seats_are_those_that_were_climbed() -> None:
    ladder, first = begun()
    assert list(ladder.seats) == [first.place.seat]
    settle(ladder, first)
    stand(ladder, first)
    assert list(ladder.seats) == [first.place.seat, TASK]
