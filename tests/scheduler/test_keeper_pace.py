"""Readers that fall behind the group, and what becomes of what they were to read."""

from __future__ import annotations

from peerd.link import messages as m
from peerd.link.messages import LeaseKind, Outcome
from peerd.scheduler.keeper_events import KeeperConfig
from peerd.scheduler.ports import NOT_REACHED
from tests.scheduler.desk import Desk

PIECES = 400


def reading(numbers: int = 3, pieces: int = PIECES) -> Desk:
    """All but the keeper read; `desk.order[1]` resolved."""
    desk = Desk(range(1, numbers + 1))
    first, *others = desk.order[1:]
    desk.enrol(first, room=4)
    desk.later(1.0)
    desk.ask(first, 4)
    desk.resolve(first, pieces)
    for number in others:
        desk.enrol(number, room=4)
    return desk


def reads(desk: Desk, number: int) -> list[m.LeaseInfo]:
    return [x for x in desk.leases(number) if x.kind is LeaseKind.READ]


def read_on(desk: Desk, number: int, times: int, every_s: float = 0.2) -> None:
    """One that reads well."""
    for _ in range(times):
        desk.later(every_s)
        for lease in reads(desk, number)[:1]:
            desk.finish(number, lease)


def test_who_cannot_reach_the_origin_gives_all_back_and_waits_while_another_reads() -> None:
    desk = reading()
    _, good, bad = desk.order
    read_on(desk, good, 5)
    lease = reads(desk, bad)[0]
    assert len(reads(desk, bad)) > 1
    desk.report(bad, lease.lease, Outcome.FAILED, code="origin-unreachable")
    assert not reads(desk, bad)
    desk.forget()
    read_on(desk, good, 24)
    assert not desk.grants(bad), "five seconds"
    read_on(desk, good, 2)
    assert len(reads(desk, bad)) == 1, "one at a time, to see whether it can now"
    desk.report(bad, reads(desk, bad)[0].lease, Outcome.FAILED, code="origin-unreachable")
    desk.forget()
    read_on(desk, good, 49)
    assert not desk.grants(bad), "and twice as long"


def test_who_failed_is_not_given_the_last_extents() -> None:
    desk = reading(pieces=30)
    _, good, bad = desk.order
    read_on(desk, good, 6)
    lease = reads(desk, bad)[0]
    desk.report(bad, lease.lease, Outcome.FAILED, code="origin-unreachable")
    read_on(desk, good, 16, every_s=0.1)
    desk.forget()
    for _ in range(20):
        desk.later(2.0)
        for mine in reads(desk, good)[:1]:
            desk.finish(good, mine)
    assert not desk.grants(bad)
    assert desk.core.roster(desk.task)[0].complete or desk.core.kept(desk.task).finished  # type: ignore[union-attr]


def test_a_trickle_is_not_progress_where_others_read_far_faster() -> None:
    desk = reading()
    _, good, slow = desk.order
    behind = {x.first for x in reads(desk, slow)}
    for _ in range(20):
        read_on(desk, good, 1, every_s=0.2)
        for lease in reads(desk, slow):
            desk.report(slow, lease.lease, Outcome.PROGRESS)
    assert not reads(desk, slow)
    assert {x.lease for x in desk.to(slow, m.LeaseRevoked)}
    read_on(desk, good, 2 * PIECES, every_s=0.01)
    assert behind <= {x.info.first for x in desk.grants(good)}
    again = desk.core.unneeded_reads(desk.task)
    assert len(behind) <= again.pop("overdue") <= len(behind) + 3, "and a try now and then"
    assert not again


def test_a_reader_that_holds_up_the_end_is_relieved_of_it() -> None:
    desk = reading(pieces=40)
    _, good, slow = desk.order
    for _ in range(60):
        if not reads(desk, good):
            break
        read_on(desk, good, 1, every_s=0.02)
    assert not reads(desk, good)
    assert reads(desk, slow)
    began = desk.now
    while reads(desk, slow):
        for lease in reads(desk, slow):
            desk.report(slow, lease.lease, Outcome.PROGRESS)
        desk.later(0.5)
        assert desk.now - began < 3.0
    assert reads(desk, good)


def test_while_nobody_reads_it_is_the_origin_that_is_slow() -> None:
    desk = reading()
    _, good, other = desk.order
    read_on(desk, good, 10)
    for lease in reads(desk, other):
        desk.finish(other, lease)
    before = {x.lease for x in desk.leases()}
    desk.forget()
    for _ in range(6):
        desk.later(0.5)
        for number in (good, other):
            for lease in reads(desk, number):
                desk.report(number, lease.lease, Outcome.PROGRESS)
    assert {x.lease for x in desk.leases()} == before
    assert not desk.to(good, m.LeaseRevoked)


def test_what_a_member_that_counts_no_more_was_to_read_is_granted_at_once() -> None:
    desk = reading(numbers=5)
    _, one, two, shunned, dead = desk.order
    for gone, reason in ((shunned, "shunned"), (dead, "lost")):
        firsts = {x.first for x in reads(desk, gone)}
        assert firsts
        desk.forget()
        if reason == "shunned":
            for number in (one, two):
                desk.hear(number, m.Complaint(desk.task, 1, desk.id(gone), "it stalls"))
        else:
            desk.undelivered(gone)
        assert not reads(desk, gone)
        for _ in range(30):
            for number in (one, two):
                for lease in reads(desk, number)[:1]:
                    desk.finish(number, lease)
        granted = {x.info.first for number in (one, two) for x in desk.grants(number)}
        assert firsts & granted


def test_a_keeper_does_not_shun_itself_as_one_that_cannot_be_reached() -> None:
    desk = reading(numbers=4)
    desk.enrol(desk.own, room=4)
    for number in desk.order[1:]:
        desk.hear(number, m.Complaint(desk.task, 1, desk.id(desk.own), NOT_REACHED))
    assert desk.core.kept(desk.task).roster.trusted(desk.id(desk.own))  # type: ignore[union-attr]
    for number in desk.order[1:]:
        desk.hear(number, m.Complaint(desk.task, 1, desk.id(desk.own), "its links fail"))
    assert not desk.core.kept(desk.task).roster.trusted(desk.id(desk.own))  # type: ignore[union-attr]


def test_few_read_at_first_and_as_many_more_as_there_are_pieces() -> None:
    desk = Desk(range(1, 21), config=KeeperConfig())
    for number in range(1, 21):
        desk.enrol(number, room=4)
    desk.later(1.0)
    for number in range(1, 21):
        desk.ask(number, 4)
    desk.resolve(next(n for n in range(1, 21) if desk.grants(n)), 400)
    assert len(desk.leases()) == 3
    for pieces in range(2, 22):
        lease = desk.leases()[0]
        desk.finish(next(n for n in range(1, 21) if desk.id(n) == lease.holder), lease)
        assert len(desk.leases()) == min(2 + pieces, 24)


def test_the_first_readers_do_not_hold_up_the_others_for_long() -> None:
    desk = Desk(range(1, 21), config=KeeperConfig())
    for number in range(1, 21):
        desk.enrol(number, room=4)
    desk.later(1.0)
    for number in range(1, 21):
        desk.ask(number, 4)
    desk.resolve(next(n for n in range(1, 21) if desk.grants(n)), 400)
    assert len(desk.leases()) == 3
    desk.later(1.3)
    assert len(desk.leases()) == 6
