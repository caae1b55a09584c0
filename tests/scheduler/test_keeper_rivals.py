"""A keeper whose links are slow leaves its tasks to another."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from peerd.link import messages as m
from peerd.scheduler.keeper_events import KeeperLate, LinksLate
from tests.scheduler.desk import Desk
from tests.scheduler.test_keeper_terms import lease, state


def keeping(numbers: int = 5) -> Desk:
    """Everybody reads, the best-ranked one keeps it; nobody has finished."""
    desk = Desk(range(1, numbers + 1))
    for number in desk.order:
        desk.enrol(number, room=None)
    for number in desk.order[1:]:
        desk.hear(number, state(desk))
    for number in desk.order:
        desk.ask(number, 2)
    desk.resolve(next(n for n in desk.order if desk.grants(n)), 64)
    desk.later(0.5)
    return desk


def late(desk: Desk, numbers: Iterable[int]) -> None:
    desk.event(LinksLate(frozenset(desk.id(number) for number in numbers)))


def handed_over(desk: Desk, number: int) -> list[m.KeeperState]:
    return [told for told in desk.to(number, m.KeeperState) if told.handover]


def test_a_keeper_most_of_whose_links_are_late_gives_way_to_a_standby() -> None:
    desk = keeping()
    leases = {x.lease for x in desk.leases()}
    first, second, third, *others = desk.order
    late(desk, [second, *others])
    assert not desk.core.tasks_kept()
    (told,) = handed_over(desk, third)
    assert not handed_over(desk, second), "over a link that is late, too, it would hear it late"
    assert {x.lease for x in told.leases} == leases
    for number in (second, third, *others):
        assert desk.to(number, m.Redirect)[-1].to == desk.id(third)
    desk.enrol(second, room=None, prior=1)
    assert desk.to(second, m.Redirect)[-1].to == desk.id(third), "it does not take it back"
    assert first == desk.own
    desk.enrol(first, room=None, prior=1, unreachable=[third])
    for number in desk.order[1:]:
        desk.undelivered(number) if number != third else desk.hear(third, state(desk))
    desk.later(1.0)
    assert desk.core.tasks_kept() == [desk.task], "for itself, where it reaches nobody in time"
    desk.enrol(others[0], room=None, prior=1)
    assert desk.to(others[0], m.Redirect)[-1].to == desk.id(third), "what was said before is late"
    assert desk.core.kept(desk.task).roster.others(desk.id(first)) == 0  # type: ignore[union-attr]


def test_where_all_are_late_the_first_standby_gets_it() -> None:
    desk = keeping()
    late(desk, desk.order[1:])
    assert len(handed_over(desk, desk.order[1])) == 1


def test_half_of_the_links_are_not_the_keepers_own_trouble() -> None:
    desk = keeping()
    late(desk, desk.order[1:3])
    assert desk.core.tasks_kept() == [desk.task]
    two = keeping(2)
    late(two, two.order[1:])
    assert two.core.tasks_kept() == [two.task], "of one other it cannot be told whose link it is"


def test_it_does_not_go_to_and_fro() -> None:
    """Who was left it does not give it on soon, however slow all links are."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, *others = desk.order
    version = desk.version(first, 64)
    running = m.LeaseInfo(7, m.LeaseKind.READ, desk.id(others[0]), 5, 1, 4.0)
    kept = state(desk, term=3, keeping=True, version=version, leases=(running,), members=desk.order)
    desk.hear(first, kept)
    desk.enrol(others[0], room=None, prior=3)
    assert desk.to(others[0], m.Redirect)[-1].to == desk.id(first)
    left = state(
        desk, term=3, handover=True, version=version, leases=(running,), members=desk.order
    )
    desk.hear(first, left)
    desk.enrol(others[0], version=version, have=[], prior=3, leases=(running,))
    assert desk.core.tasks_kept() == [desk.task], "it waits for nobody, and sends nobody back"
    for number in others[1:]:
        desk.enrol(number, version=version, have=[], prior=3)
    assert desk.core.kept(desk.task).term == 4  # type: ignore[union-attr]
    assert [x.first for x in desk.leases(others[0])][:1] == [5], "what was being read goes on"
    late(desk, others)
    assert desk.core.tasks_kept() == [desk.task]
    desk.later(31.0)
    for number in others:
        desk.enrol(number, version=version, have=[], prior=4)
    late(desk, others)
    assert not desk.core.tasks_kept(), "a while later it may"


def test_who_keeps_it_too_takes_over_what_a_better_ranked_one_leaves() -> None:
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, _ = desk.order
    desk.members(sorted({*range(1, 6)} - {first}))
    desk.enrol(fourth, room=None)
    for number in desk.order[2:]:
        desk.hear(number, state(desk))
    desk.ask(fourth, 1)
    version = desk.resolve(fourth, 64)
    desk.members(range(1, 6))
    running = m.LeaseInfo(1 << 40, m.LeaseKind.READ, desk.id(third), 9, 1, 4.0)
    left = state(desk, term=5, handover=True, version=version, leases=(running,), members=[third])
    desk.hear(first, left)
    assert desk.core.tasks_kept() == [desk.task]
    assert 9 in {x.first for x in desk.leases()}


def test_who_talks_to_it_is_not_taken_for_who_reads_for_the_other() -> None:
    """A handover may be late by seconds: a member's leases ended long ago; it reads for here."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, _ = desk.order
    desk.members(sorted({*range(1, 6)} - {first}))
    desk.enrol(fourth, room=None)
    for number in desk.order[2:]:
        desk.hear(number, state(desk))
    desk.ask(fourth, 1)
    version = desk.resolve(fourth, 64)
    desk.enrol(third, version=version, have=[0], room=None, prior=1)
    desk.members(range(1, 6))
    before = {x.lease for x in desk.leases()}

    def left(*leases: m.LeaseInfo) -> m.KeeperState:
        return state(desk, term=5, handover=True, version=version, leases=leases, members=[third])

    desk.hear(first, left(lease(desk, third, 9), lease(desk, fourth, 10, number=8)))
    assert {x.lease for x in desk.leases()} == before
    desk.later(1.0)
    desk.enrol(fourth, version=version, have=[0], room=None, prior=5)
    desk.later(1.5)
    desk.hear(first, left(lease(desk, third, 9), lease(desk, fourth, 10, number=8)))
    assert 9 in {x.first for x in desk.leases()}, "who is silent may have gone to the other"
    assert 8 not in {x.lease for x in desk.leases()}


def test_a_standby_does_not_wait_for_a_keeper_whose_answers_take_seconds() -> None:
    """It has its copies: all but what was granted is granted at once."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, _ = desk.order
    version = desk.version(fourth, 64)
    running = lease(desk, fourth, 9)
    told = state(desk, term=1, keeping=True, version=version, leases=(running,),
                 members=[first, third, fourth])  # fmt: skip
    desk.hear(first, replace(told, granted=bytes([0xFF, 0x03, 0, 0, 0, 0, 0, 0])))
    desk.event(KeeperLate(desk.id(first)))
    desk.enrol(fourth, version=version, have=[0], room=2, prior=1, unreachable=[first])
    assert desk.core.tasks_kept() == [desk.task], "nobody is asked first"
    granted = {x.first for x in desk.leases(fourth)} - {9}
    assert granted
    assert min(granted) > 9, "what the other granted waits for those who may hold it"
    desk.hear(first, told)
    assert desk.core.tasks_kept() == [desk.task], "what it says is old"
    assert not handed_over(desk, first)


def test_who_is_asked_for_an_answer_and_gets_late_is_not_waited_for() -> None:
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, _ = desk.order
    desk.enrol(fourth, room=None, unreachable=[first])
    desk.hear(third, state(desk))
    assert not desk.core.tasks_kept()
    desk.hear(desk.order[3], state(desk))
    desk.event(KeeperLate(desk.id(first)))
    assert desk.core.tasks_kept() == [desk.task]


def stood_still(desk: Desk, seconds: float) -> None:
    """Nothing ran in between, and the first thing that it hears is its own peer, done reading."""
    desk.now = desk.core.deadline() + seconds
    desk.hear(desk.own, m.LeaseAsk(desk.task, 1, 8, None))


def test_a_keeper_that_stood_still_grants_nothing_before_others_could_say_that_they_keep_it() -> (
    None
):
    desk = keeping()
    granted = len(desk.to(desk.own, m.LeaseGrant))
    probed = [len(desk.to(number, m.Probe)) for number in desk.order]
    stood_still(desk, 3.0)
    desk.ask(desk.own, 8)
    now_probed = [len(desk.to(number, m.Probe)) for number in desk.order]
    assert [n - k for n, k in zip(now_probed, probed, strict=True)] == [0, 1, 1, 0, 0], "once"
    _, second, third, *_ = desk.order
    desk.hear(third, state(desk))
    desk.later(0.1)
    assert len(desk.to(desk.own, m.LeaseGrant)) == granted
    desk.hear(second, state(desk, term=2, keeping=True, members=desk.order))
    assert handed_over(desk, second)
    assert not desk.core.tasks_kept()


def test_who_says_that_it_does_not_keep_it_is_not_waited_for() -> None:
    desk = keeping()
    stood_still(desk, 3.0)
    for number in desk.order[1:3]:
        assert desk.core.kept(desk.task).halted()  # type: ignore[union-attr]
        desk.hear(number, state(desk))
    desk.later(0.01)
    assert not desk.core.kept(desk.task).halted()  # type: ignore[union-attr]


def test_a_standstill_shows_while_one_reads_a_stream() -> None:
    """Its lease alone would be due seconds later."""
    desk = Desk(range(1, 6))
    for number in desk.order:
        desk.enrol(number, room=2)
    for number in desk.order[1:3]:
        desk.hear(number, state(desk))
    assert desk.core.deadline() <= desk.now + desk.core.config.beat_s
    desk.now += desk.core.config.beat_s + 2.5
    desk.sent += desk.core.expire(desk.now)
    assert desk.core.kept(desk.task).halted()  # type: ignore[union-attr]


def test_answers_that_lie_in_the_sockets_are_heard_before_a_standby_keeps_it() -> None:
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, _ = desk.order
    desk.enrol(fourth, room=None, unreachable=[first])
    desk.now += 5.0
    desk.core.expire(desk.now)
    assert not desk.core.tasks_kept()
    desk.hear(first, state(desk, term=1, keeping=True, members=[third, fourth]))
    desk.later(0.5)
    assert not desk.core.tasks_kept()
    desk.later(1.0)
    assert desk.to(fourth, m.Redirect)[-1].to == desk.id(first)


@pytest.mark.parametrize(("seconds", "pauses"), [(1.0, False), (3.0, True)])
def test_it_goes_on_where_nobody_took_it(seconds: float, pauses: bool) -> None:
    desk = keeping()
    granted = len(desk.to(desk.own, m.LeaseGrant))
    stood_still(desk, seconds)
    assert (len(desk.to(desk.own, m.LeaseGrant)) == granted) == pauses
    for number in desk.order[1:3]:
        desk.undelivered(number)
    desk.later(0.1)
    assert len(desk.to(desk.own, m.LeaseGrant)) > granted, "those that are gone keep nothing"


@pytest.mark.parametrize(
    ("came", "theirs", "term", "stays"),
    [(0, 3, 1, False), (1, 3, 1, False), (2, 3, 1, True), (2, 3, 2, False), (3, 1, 2, True)],
)
def test_of_two_first_ones_it_stays_to_whom_more_came_or_came_later(
    came: int, theirs: int, term: int, stays: bool
) -> None:
    """The best-ranked may keep it for itself alone: who is not reached in time does so at first."""
    desk = Desk(range(1, 7))
    _, rival, *others = desk.order
    for number in (desk.own, *others[:came]):
        desk.enrol(number, room=None)
        desk.later(1.0)
    assert desk.core.tasks_kept() == [desk.task]
    desk.hear(rival, state(desk, term=term, keeping=True, members=others[:theirs]))
    assert bool(desk.core.tasks_kept()) == stays
    assert bool(handed_over(desk, rival)) != stays
    assert desk.to(rival, m.KeeperState), "it is told, either way"


def test_one_that_may_not_stay_hands_over_however_many_came_to_it() -> None:
    desk = Desk(range(1, 7), own=Desk(range(1, 7)).order[3])
    first, second, third, _, *others = desk.order
    desk.members(sorted({*range(1, 7)} - {first, second, third}))
    for number in others:
        desk.enrol(number, room=None)
        desk.later(1.0)
    desk.members(range(1, 7))
    desk.hear(first, replace(state(desk, term=1, keeping=True), enrolled=0))
    assert handed_over(desk, first)


def test_one_that_has_members_leaves_it_to_nobody_who_has_none() -> None:
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, *others = desk.order
    desk.members(sorted({*range(1, 6)} - {first}))
    desk.enrol(others[0], room=None)
    desk.later(1.0)
    desk.members(range(1, 6))
    lonely = replace(state(desk, term=9, keeping=True), enrolled=0)
    desk.hear(first, lonely)
    assert desk.core.tasks_kept() == [desk.task]
    assert desk.to(first, m.KeeperState)[-1].keeping, "it is told"
    desk.hear(first, replace(lonely, enrolled=2))
    assert handed_over(desk, first)


def test_what_waited_for_a_dead_keeper_is_read_though_another_hands_over_and_does_not_know() -> (
    None
):
    """It was passed over while it waited, and is in no line any more."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, fourth, fifth = desk.order
    version = desk.version(fourth, 64)
    told = state(desk, term=1, keeping=True, version=version, members=[first, third, fourth])
    desk.hear(first, replace(told, granted=bytes([0xFF, 0x03, 0, 0, 0, 0, 0, 0])))
    desk.event(KeeperLate(desk.id(first)))
    desk.enrol(fourth, version=version, have=[0], room=2, prior=1, unreachable=[first])

    def reads() -> None:
        for _ in range(40):
            for granted in desk.leases(fourth):
                desk.finish(fourth, granted)
            desk.ask(fourth, 2)

    reads()
    kept = desk.core.kept(desk.task)
    assert kept is not None
    assert 0 < kept.roster.covered.bit_count() < 64, "the rest waits for who may hold it"
    desk.hear(fifth, state(desk, term=1, handover=True, members=[third, fifth]))
    desk.later(3.5)
    reads()
    assert kept.finished
