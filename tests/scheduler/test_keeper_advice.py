"""A leader's advice only re-orders whom a keeper grants reads, and ends by itself."""

from __future__ import annotations

from collections.abc import Iterable

from peerd.link.messages import LeaseKind, Outcome
from peerd.scheduler.keeper_events import KeeperAdvised
from tests.scheduler.desk import Desk


def crowd(numbers: int = 9) -> Desk:
    """All but the keeper ask for reads of 400 pieces; the first of them resolved."""
    desk = Desk(range(1, numbers + 1))
    first, *others = desk.order[1:]
    desk.enrol(first, room=1)
    desk.later(1.0)
    desk.ask(first, 1)
    desk.resolve(first, 400)
    desk.ask(first, 0)
    for lease in desk.leases(first):
        desk.report(first, lease.lease, Outcome.RETURNED)
    for number in [first, *others]:
        desk.enrol(number, room=0)
    return desk


def advise(desk: Desk, last: Iterable[int] = (), readers: int = 0, for_s: float = 10.0) -> None:
    named = frozenset(desk.id(number) for number in last)
    desk.event(KeeperAdvised(desk.task, named, readers, desk.now + for_s, "leader x, term 3"))


def readers(desk: Desk) -> set[int]:
    by_id = {desk.id(n): n for n in desk.numbers}
    return {by_id[x.holder] for x in desk.leases() if x.kind is LeaseKind.READ}


def ask_all(desk: Desk, first: Iterable[int] = ()) -> None:
    for number in dict.fromkeys([*first, *desk.order[1:]]):
        desk.ask(number, 2)


def test_who_is_to_come_last_reads_not_while_others_can() -> None:
    desk = crowd()
    last = desk.order[1:6]
    advise(desk, last)
    ask_all(desk, desk.order[6:])
    assert readers(desk) == set(desk.order[6:])
    story = desk.core.story(desk.task)
    assert any("grants 5 members after the others: leader x, term 3" in line for line in story)


def test_once_the_others_can_take_no_more_they_read_too() -> None:
    desk = crowd()
    last, others = desk.order[1:6], desk.order[6:]
    advise(desk, last)
    ask_all(desk, others)
    for number in others:
        for lease in desk.leases(number):
            desk.report(number, lease.lease, Outcome.REFUSED)
    ask_all(desk)
    assert readers(desk) == set(last)


def test_advice_ends_by_itself() -> None:
    desk = crowd()
    advise(desk, desk.order[1:6], for_s=1.0)
    desk.later(1.1)
    ask_all(desk)
    assert readers(desk) == set(desk.order[1:])


def test_advice_that_leaves_next_to_nobody_holds_nobody_back() -> None:
    desk = crowd()
    advise(desk, desk.order[2:])
    ask_all(desk)
    assert readers(desk) == set(desk.order[1:])


def test_no_more_read_than_is_advised_but_two_and_never_more_than_the_keeper_finds_best() -> None:
    desk = crowd()
    advise(desk, readers=1)
    ask_all(desk)
    assert len(readers(desk)) == 2, "one may stand still"
    advise(desk, readers=3)
    ask_all(desk)
    assert len(readers(desk)) == 3
    advise(desk, readers=64)
    ask_all(desk)
    assert len(readers(desk)) == 8


def test_advice_for_what_is_not_kept_here_is_nothing() -> None:
    desk = Desk(range(1, 4))
    advise(desk, desk.order[1:])
    assert not desk.core.tasks_kept()


def test_nobody_reads_anything_twice_whatever_is_advised() -> None:
    desk = crowd()
    ask_all(desk)
    for turn in range(40):
        advise(desk, desk.order[1 + turn % 4 : 5 + turn % 4], readers=turn % 3)
        for lease in [x for x in desk.leases() if x.kind is LeaseKind.READ][:3]:
            holder = next(n for n in desk.numbers if desk.id(n) == lease.holder)
            desk.finish(holder, lease)
    leased = [range(x.first, x.first + x.count) for x in desk.leases()]
    pieces = [index for run in leased for index in run]
    assert len(pieces) == len(set(pieces))
    assert not desk.core.unneeded_reads(desk.task).keys() - {"audit"}
    assert len(pieces) >= 3
