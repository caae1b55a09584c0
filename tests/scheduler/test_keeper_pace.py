"""Readers that fall behind the group, and what becomes of what they were to read."""

from __future__ import annotations

import pytest

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
    for _ in range(4):
        read_on(desk, good, PIECES // 2, every_s=0.01)
        desk.hold_all(slow)
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


# --- beyond a slow border


def over_a_border(far: int, pieces: int = PIECES) -> tuple[Desk, int, list[int]]:
    """One reader beside the origin, `far` of them in a zone of their own; the keeper reads not."""
    desk = Desk(range(1, far + 3))
    near, *others = desk.order[1:]
    desk.enrol(near, zone="near")
    desk.later(1.0)
    desk.ask(near, 4)
    desk.resolve(near, pieces)
    for number in others:
        desk.enrol(number, zone="far")
    return desk, near, others


def for_a_while(desk: Desk, near: int, far: dict[int, float], seconds: float) -> list[int]:
    """`near` reads a piece each 0.1 s, the others one each so many seconds, one after the other;
    all renew what they hold. Returns how many leases they held between them, each 0.1 s."""
    next_at = {number: desk.now + every_s for number, every_s in far.items()}
    held = []
    for _ in range(round(seconds / 0.1)):
        read_on(desk, near, 1, every_s=0.1)
        for number, at in next_at.items():
            mine = reads(desk, number)
            if at <= desk.now and mine:
                desk.finish(number, mine[0])
                next_at[number] = desk.now + far[number]
            for lease in reads(desk, number):
                desk.report(number, lease.lease, Outcome.PROGRESS)
        held.append(sum(len(reads(desk, number)) for number in far))
    return held


def test_a_reader_beyond_a_slow_border_is_not_measured_by_those_beside_the_origin() -> None:
    desk, near, others = over_a_border(far=3)
    held = for_a_while(desk, near, dict.fromkeys(others, 0.9), 30.0)
    for number in others:
        assert not desk.to(number, m.LeaseRevoked), "slow, but not slower than its like"
    assert "overdue" not in desk.core.unneeded_reads(desk.task)
    assert max(held[-100:]) <= len(others), "it has one at a time"


def test_a_slow_reader_is_not_given_the_last_extents() -> None:
    desk, near, (slow,) = over_a_border(far=1, pieces=60)
    for_a_while(desk, near, {slow: 0.9}, 4.0)
    desk.forget()
    for_a_while(desk, near, {slow: 0.9}, 4.0)
    assert not desk.grants(slow)
    assert desk.core.kept(desk.task).finished  # type: ignore[union-attr]


@pytest.mark.parametrize(("pieces", "again"), [(100, False), (400, True)])
def test_a_slow_reader_is_tried_again_where_the_rest_takes_far_longer(
    pieces: int, again: bool
) -> None:
    """It needs 3 s a piece, the other 0.1 s: the rest takes 7 s, or 37."""
    desk, near, (slow,) = over_a_border(far=1, pieces=pieces)
    for_a_while(desk, near, {slow: 3.0}, 3.2)
    for lease in reads(desk, slow):
        desk.report(slow, lease.lease, Outcome.RETURNED)
    desk.forget()
    for_a_while(desk, near, {slow: 3.0}, 2.0)
    assert bool(desk.grants(slow)) == again


def test_who_falls_behind_the_readers_of_its_own_zone_is_relieved() -> None:
    desk, near, others = over_a_border(far=3)
    for_a_while(desk, near, dict.fromkeys(others, 0.5), 6.0)
    stuck, *well = others
    for_a_while(desk, near, {stuck: 1e9} | dict.fromkeys(well, 0.5), 4.0)
    assert not reads(desk, stuck)
    assert not any(desk.to(number, m.LeaseRevoked) for number in well)


def test_a_reader_alone_in_its_zone_is_relieved_when_it_brings_nothing_at_all() -> None:
    desk, near, (stuck,) = over_a_border(far=1)
    for_a_while(desk, near, {stuck: 1e9}, 3.0)
    assert reads(desk, stuck), "four times what is enough beside the origin"
    for_a_while(desk, near, {stuck: 1e9}, 4.0)
    assert not reads(desk, stuck)


def test_those_beyond_a_border_do_not_make_a_near_one_count_no_more() -> None:
    """It is the border that stalls: what the near one held was read again (1.09 copies, lab)."""
    desk = Desk(range(1, 7))
    accused, home, *far = desk.order[1:]
    desk.enrol(accused, zone="near")
    desk.later(1.0)
    desk.ask(accused, 4)
    desk.resolve(accused, PIECES)
    desk.enrol(home, zone="near")
    for number in far:
        desk.enrol(number, zone="far")
    kept = desk.core.kept(desk.task)
    assert kept is not None
    for number in far:
        desk.hear(number, m.Complaint(desk.task, 1, desk.id(accused), "it stalls"))
    assert kept.roster.trusted(desk.id(accused))
    desk.hear(home, m.Complaint(desk.task, 1, desk.id(accused), "it stalls"))
    assert not kept.roster.trusted(desk.id(accused))


def test_how_one_read_is_known_when_it_comes_back() -> None:
    """A slow link is lost now and then: granted as a newcomer, all waited for what it read."""
    desk = reading(numbers=4)
    peer = desk.order[3]
    kept = desk.core.kept(desk.task)
    assert kept is not None
    entry = kept.roster.entries[desk.id(peer)]
    entry.pace_s, entry.failures = 10.0, 1
    desk.hear(peer, m.Withdraw(desk.task))
    assert desk.id(peer) not in kept.roster.entries
    desk.enrol(peer, version=kept.version, have=[], room=4)
    back = kept.roster.entries[desk.id(peer)]
    assert (back.pace_s, back.failures) == (10.0, 1)
