"""Who keeps a task, and how one keeper follows another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from peerd.link import messages as m
from peerd.link.messages import LeaseKind
from peerd.scheduler.keeper_events import Hinted, KeeperConfig
from tests.scheduler.desk import Desk
from tests.scheduler.world import OPEN_SPEC, member


def state(
    desk: Desk, *, term: int = 0, keeping: bool = False, handover: bool = False,
    version: object = None, leases: tuple[m.LeaseInfo, ...] = (), holders: tuple[int, ...] = (),
    members: Sequence[int] = (), validated_s: float = 0.0,
) -> m.KeeperState:  # fmt: skip
    return m.KeeperState(
        desk.task, term, keeping, handover, version, validated_s, leases,  # type: ignore[arg-type]
        tuple(desk.id(n) for n in holders), tuple(desk.id(n) for n in members),
        enrolled=len(members) or 1,
    )  # fmt: skip


def lease(desk: Desk, holder: int, first: int, left_s: float = 4.0, number: int = 7) -> m.LeaseInfo:
    return m.LeaseInfo(number, LeaseKind.READ, desk.id(holder), first, 1, left_s)


def test_who_is_not_first_sends_the_asker_to_who_is() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[2])
    asker = desk.order[3]
    desk.enrol(asker, room=None)
    (redirect,) = desk.to(asker, m.Redirect)
    assert redirect.to == desk.id(desk.order[0])
    assert redirect.addresses == (f"10.0.0.{desk.order[0]}:4000",)
    desk.enrol(asker, room=None, unreachable=[desk.order[0]])
    assert desk.to(asker, m.Redirect)[-1].to == desk.id(desk.order[1])


def test_the_second_keeps_when_the_first_does_not_answer() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first, _, third, asker = desk.order
    desk.enrol(asker, room=None, unreachable=[first])
    assert desk.to(first, m.Probe)
    assert desk.to(third, m.Probe)
    desk.undelivered(first)
    desk.undelivered(third)
    desk.undelivered(asker)
    assert desk.core.tasks_kept() == [desk.task]


def test_a_keeper_the_asker_cannot_reach_is_named_once_more_and_then_replaced() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first, _, third, asker = desk.order
    for _ in range(2):
        desk.enrol(asker, room=None, unreachable=[first])
        desk.hear(first, state(desk, term=3, keeping=True))
        desk.hear(third, state(desk))
        desk.hear(asker, state(desk))
        desk.later(1.0)
    assert [x.to for x in desk.to(asker, m.Redirect)] == [desk.id(first)]
    assert desk.to(asker, m.Enrolled)[0].term == 4


def test_nobody_keeps_before_membership_is_synced() -> None:
    desk = Desk([1, 2])
    desk.members([1, 2], synced=False)
    other = desk.order[1]
    desk.enrol(other, room=None)
    assert not desk.core.tasks_kept()
    desk.members([1, 2], synced=True)
    desk.later(1.0)
    assert desk.core.tasks_kept() == [desk.task]
    assert desk.to(other, m.Enrolled)


def test_a_new_keeper_waits_for_the_readers_of_the_old() -> None:
    desk = Desk(range(1, 5))
    _, standby, reader, asker = desk.order
    version = desk.version(standby, 10)
    desk.enrol(asker, prior=1)
    desk.hear(reader, state(desk))
    desk.hear(
        standby,
        state(desk, term=1, version=version, leases=(lease(desk, reader, 5),), members=(reader,)),
    )
    desk.ask(asker, 4)
    assert [x.first for x in desk.leases()] == [5]
    desk.enrol(reader, version=version, have=[0, 1, 2], prior=1,
               leases=(lease(desk, reader, 5),), room=None)  # fmt: skip
    desk.later(0.0)
    assert desk.to(reader, m.Enrolled)[-1].term == 2
    read = {x.first for x in desk.leases(asker)}
    assert read
    assert not read & {0, 1, 2, 5}
    assert desk.core.unneeded_reads(desk.task) == {}


def test_or_until_the_longest_lease_has_run_out() -> None:
    desk = Desk(range(1, 5))
    _, standby, reader, asker = desk.order
    version = desk.version(standby, 10)
    desk.enrol(asker, prior=1)
    desk.hear(reader, state(desk))
    desk.hear(
        standby,
        state(desk, term=1, version=version, leases=(lease(desk, reader, 5, 3.0),),
              members=(reader,)),
    )  # fmt: skip
    desk.ask(asker, 10)
    desk.later(3.0)
    assert not desk.leases(asker)
    desk.later(0.6)
    assert len(desk.leases(asker)) == 8


def test_a_cold_task_starts_at_once() -> None:
    desk = Desk(range(1, 4))
    for number in desk.order[1:]:
        desk.undelivered(number)
    desk.enrol(desk.own)
    assert [x.kind for x in desk.leases()] == [LeaseKind.RESOLVE]


def test_a_higher_term_that_an_asker_heard_is_topped() -> None:
    desk = Desk([1, 2])
    desk.enrol(1)
    desk.later(1.0)
    desk.enrol(2, prior=41)
    assert desk.to(2, m.Enrolled)[-1].term == 42
    desk.later(1.1)
    assert desk.to(1, m.RosterUpdate)[-1].term == 42


def test_a_hostile_term_moves_ours_only_so_far() -> None:
    desk = Desk([1, 2])
    desk.enrol(1)
    desk.later(1.0)
    desk.enrol(2, prior=(1 << 53) - 1)
    assert desk.to(2, m.Enrolled)[-1].term <= 1001


def test_standbys_hear_of_every_grant() -> None:
    desk = Desk(range(1, 6))
    desk.enrol(desk.own)
    desk.later(1.0)
    desk.ask(desk.own, 4)
    desk.resolve(desk.own, 10)
    desk.later(0.03)
    for standby in desk.order[1:3]:
        copy = desk.to(standby, m.KeeperState)[-1]
        assert copy.keeping
        assert {x.lease for x in copy.leases} == {x.lease for x in desk.leases()}
    assert not desk.to(desk.order[3], m.KeeperState)


def test_a_lower_keeper_hands_over_to_a_better_one_that_keeps_it_too() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first, _, third, asker = desk.order
    desk.members(sorted({*range(1, 5)} - {first}))
    desk.enrol(asker, room=None)
    for number in (third, asker):
        desk.hear(number, state(desk))
    desk.ask(asker, 4)
    desk.resolve(asker, 10)
    leases = {x.lease for x in desk.leases()}
    desk.hear(first, m.Probe(desk.task))
    assert [x.keeping for x in desk.to(first, m.KeeperState)][-1], "its question alone is no claim"
    desk.hear(first, state(desk, term=9, keeping=True))
    (given,) = [x for x in desk.to(first, m.KeeperState) if x.handover]
    assert {x.lease for x in given.leases} == leases
    assert desk.id(asker) in given.members
    assert desk.to(asker, m.Redirect)[-1].to == desk.id(first)
    assert not desk.core.tasks_kept()
    assert "handed over" in desk.core.story(desk.task)[-1]


def test_a_keeper_asks_a_better_ranked_newcomer_whether_it_keeps_too() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first = desk.order[0]
    others = sorted({*range(1, 5)} - {first})
    desk.members(others)
    desk.enrol(desk.own, room=None)
    desk.later(1.0)
    desk.members(range(1, 5))
    assert desk.to(first, m.Probe)
    desk.hear(first, state(desk, term=9, keeping=True))
    assert desk.to(first, m.KeeperState)[-1].handover
    assert desk.to(desk.own, m.Redirect)[-1].to == desk.id(first)


def test_who_takes_over_grants_nothing_that_is_read_or_held() -> None:
    desk = Desk(range(1, 5))
    _, lower, reader, asker = desk.order
    version = desk.version(lower, 10)
    desk.enrol(asker)
    desk.hear(reader, state(desk))
    desk.hear(asker, state(desk))
    desk.hear(
        lower,
        state(desk, term=4, handover=True, version=version, leases=(lease(desk, reader, 5),),
              members=(reader, asker)),
    )  # fmt: skip
    desk.ask(asker, 8)
    assert not desk.leases(asker)
    desk.enrol(reader, version=version, have=[1, 2], prior=4, leases=(lease(desk, reader, 5),))
    desk.later(0.0)
    assert not {1, 2, 5} & {x.first for x in desk.leases(asker)}
    assert desk.to(asker, m.Enrolled)[-1].term == 5


def test_a_member_that_lost_the_news_is_sent_on() -> None:
    desk = Desk(range(1, 4), own=Desk(range(1, 4)).order[1])
    first, _, asker = desk.order
    desk.hear(first, state(desk, term=2, keeping=True))
    desk.ask(asker, 4)
    assert desk.to(asker, m.Redirect)[-1].to == desk.id(first)


# --- versions and holders


def test_registered_holders_are_asked_first_and_nothing_is_read() -> None:
    desk = Desk(range(1, 5))
    _, holder, gone, asker = desk.order
    version = desk.version(holder, 10)
    for number in (holder, gone):
        desk.hear(number, m.Register((version,), "", False))
    desk.enrol(asker)
    desk.later(0.8)
    desk.hear(holder, state(desk))
    desk.undelivered(gone)
    desk.later(3.0)
    desk.ask(asker, 4)
    assert not desk.leases()
    named = {x.peer for y in desk.to(asker, m.RosterUpdate) for x in y.peers}
    assert desk.id(holder) in named
    assert desk.id(gone) not in named
    assert desk.to(asker, m.Enrolled)[0].version == version


def test_when_no_registered_holder_answers_it_is_read() -> None:
    desk = Desk(range(1, 4))
    _, holder, asker = desk.order
    desk.hear(holder, m.Register((desk.version(holder, 10),), "", False))
    desk.enrol(asker)
    desk.later(3.0)
    desk.ask(asker, 4)
    assert desk.leases(asker)


def test_a_holder_counts_before_a_keeper_that_just_started_has_it_in_view() -> None:
    desk = Desk(range(1, 4))
    own, holder, asker = desk.order
    desk.members([own, asker])
    desk.hear(holder, m.Register((desk.version(holder, 10),), "", True))
    desk.enrol(asker)
    desk.later(0.8)
    assert desk.to(holder, m.Probe)
    desk.hear(holder, state(desk))
    desk.later(3.0)
    desk.ask(asker, 4)
    assert not desk.leases()
    assert {x.peer for y in desk.to(asker, m.RosterUpdate) for x in y.peers} == {desk.id(holder)}
    desk.forget()
    desk.members(range(1, 4))
    desk.later(3.0)
    (named,) = {x for y in desk.to(asker, m.RosterUpdate) for x in y.peers}
    assert named.addresses == member(holder).link_addresses, "it can be dialled now"


def test_a_holder_that_answers_late_counts_from_then_on() -> None:
    desk = Desk(range(1, 4))
    _, holder, asker = desk.order
    desk.hear(holder, m.Register((desk.version(holder, 10),), "", False))
    desk.enrol(asker)
    desk.later(3.0)
    desk.ask(asker, 2)
    held = desk.leases(asker)
    assert len(held) == 2
    desk.hear(holder, state(desk))
    for lease in held:
        desk.finish(asker, lease)
    desk.ask(asker, 2)
    desk.later(3.0)
    assert not desk.leases()


def test_gossips_hint_helps_a_cold_keeper() -> None:
    desk = Desk(range(1, 6))
    _, _, _, holder, asker = desk.order
    version = desk.version(holder, 10)
    desk.event(Hinted(desk.task, (desk.id(holder),)))
    desk.enrol(asker)
    assert desk.to(holder, m.Probe)
    desk.hear(holder, state(desk, version=version, holders=(holder,), validated_s=1e9))
    desk.later(1.0)
    desk.hear(holder, state(desk))
    assert desk.to(asker, m.Enrolled)[0].version == version


def fresh_desk() -> tuple[Desk, object]:
    """A kept task without a digest: one peer read it, and it is confirmed."""
    desk = Desk([1, 2, 3], spec=OPEN_SPEC)
    one = desk.order[1]
    desk.enrol(one, room=1)
    desk.later(1.0)
    desk.ask(one, 1)
    version = desk.resolve(one, 1)
    desk.ask(one, 0)
    return desk, version


def test_old_content_without_a_digest_is_confirmed_once_for_all() -> None:
    desk, version = fresh_desk()
    other = desk.order[2]
    desk.later(61.0)
    desk.enrol(other, room=2)
    assert desk.to(other, m.Enrolled)[-1].version is None
    (grant,) = desk.grants(other)
    assert grant.info.kind is LeaseKind.RESOLVE
    assert grant.version == version
    assert grant.version is not None
    desk.hear(other, m.Resolved(desk.task, 1, grant.info.lease, grant.version, True))
    assert desk.to(other, m.RosterUpdate)[-1].version == version
    assert not desk.leases()
    desk.enrol(desk.own)
    assert desk.to(desk.own, m.Enrolled)[-1].version == version


def test_when_the_origin_is_down_the_last_known_is_given_with_its_age() -> None:
    desk, version = fresh_desk()
    other = desk.order[2]
    desk.later(100.0)
    desk.enrol(other, room=2)
    (grant,) = desk.grants(other)
    desk.report(other, grant.info.lease, m.Outcome.FAILED, code="origin-unreachable")
    told = desk.to(other, m.Enrolled)[-1]
    assert told.version == version
    assert 99 < told.validated_s < 103
    assert not desk.to(other, m.Unreadable)


def test_content_that_is_gone_from_the_origin_is_not_given_as_fresh() -> None:
    desk, _ = fresh_desk()
    other = desk.order[2]
    desk.later(100.0)
    desk.enrol(other, room=2)
    (grant,) = desk.grants(other)
    desk.report(other, grant.info.lease, m.Outcome.FAILED, code="origin-not-found")
    assert desk.to(other, m.Unreadable)[-1].code == "origin-not-found"


def test_seeds_are_enlisted_for_what_may_be_shared() -> None:
    desk = Desk(range(1, 8), seeds=[1, 2, 3, 4, 5])
    asker = desk.order[-1]
    desk.enrol(asker)
    desk.later(1.0)
    enlisted = [n for n in range(1, 8) if desk.to(n, m.Enlist)]
    assert len(enlisted) == 3
    assert set(enlisted) <= desk.seeds


def test_memory_is_bounded() -> None:
    desk = Desk([1, 2], config=KeeperConfig(tasks_max=20))
    from peerd.task import TaskSpec
    from tests.scheduler.world import key, version_of

    for number in range(60):
        spec = TaskSpec(f"https://origin.example/{number}")
        desk.hear(1, m.Register((version_of(key(1), 1, spec=spec),), "", False))
    assert len(desk.core._seats) == 20


def test_a_newcomer_that_ranks_high_hears_who_keeps_before_anybody_asks_it() -> None:
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first = desk.order[0]
    desk.members(sorted({*range(1, 5)} - {first}))
    desk.enrol(desk.own, room=None)
    desk.later(5.0)
    desk.forget()
    desk.members(range(1, 5))
    desk.later(0.1)
    assert desk.to(first, m.KeeperState)[-1].keeping

    other = Desk(range(1, 5), own=first)
    (copy, *_) = desk.to(first, m.KeeperState)
    other.hear(desk.own, copy)
    other.enrol(first, room=None)
    assert other.to(first, m.Redirect)[-1].to == desk.id(desk.own)


def restarted(incumbent: int, ranks: int = 6) -> tuple[Desk, int]:
    """The best-ranked comes back without a memory; `incumbent`, by rank, keeps the task."""
    desk = Desk(range(1, ranks + 1))
    keeper = desk.order[incumbent]
    desk.enrol(desk.own, room=None)
    for number in desk.order[1:3]:
        keeping = number == keeper
        told = state(desk, term=3, keeping=keeping)
        if not keeping:
            told = replace(told, keeper=desk.id(keeper))
        desk.hear(number, told)
    if incumbent > 2:
        assert desk.to(keeper, m.Probe)
        desk.hear(keeper, state(desk, term=3, keeping=True))
    return desk, keeper


@pytest.mark.parametrize("incumbent", [1, 2])
def test_who_comes_back_leaves_the_task_to_the_standby_that_keeps_it(incumbent: int) -> None:
    desk, keeper = restarted(incumbent)
    assert not desk.core.tasks_kept()
    assert desk.to(desk.own, m.Redirect)[-1].to == desk.id(keeper)
    desk.enrol(5, room=None)
    assert desk.to(5, m.Redirect)[-1].to == desk.id(keeper)


def test_a_keeper_far_down_the_order_hears_at_once_who_follows_it() -> None:
    """Others would not look for it there."""
    desk, keeper = restarted(3)
    assert desk.core.tasks_kept() == [desk.task]
    told = desk.to(keeper, m.KeeperState)[-1]
    assert (told.keeping, told.term) == (True, 4)


def test_when_the_standby_that_kept_it_is_gone_who_came_back_knows_its_leases() -> None:
    desk, keeper = restarted(1)
    version = desk.version(keeper, 10)
    running = lease(desk, desk.order[3], 5)
    told = state(desk, term=3, keeping=True, version=version, leases=(running,), members=(4, 5))
    desk.hear(keeper, told)
    desk.undelivered(keeper)
    desk.enrol(desk.own, prior=3)
    desk.later(1.0)
    assert desk.core.tasks_kept() == [desk.task]
    assert [x.first for x in desk.leases()] == [5]


@pytest.mark.parametrize(("silent_s", "asks"), [(0.1, False), (2.0, True)])
def test_a_standby_asks_nobody_when_its_keeper_died_just_now(silent_s: float, asks: bool) -> None:
    """It had the keeper's copies until then; what others know costs a round trip."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, third, asker, _ = desk.order
    running = lease(desk, asker, 5)
    version = desk.version(first, 10)
    told = state(desk, term=3, keeping=True, version=version, leases=(running,), members=(asker,))
    desk.hear(first, told)
    desk.later(1.0)
    desk.lost(first)
    desk.undelivered(first)
    desk.later(silent_s)
    desk.enrol(asker, prior=3, unreachable=[first], room=None)
    assert bool(desk.to(third, m.Probe)) == asks
    assert bool(desk.core.tasks_kept()) != asks


def test_whom_an_asker_cannot_reach_is_asked_before_it_is_sent_there_again() -> None:
    """The keeper may have died: what is believed of it then costs the asker a dial."""
    desk = Desk(range(1, 5), own=Desk(range(1, 5)).order[1])
    first, _, third, asker = desk.order
    desk.hear(first, state(desk, term=3, keeping=True))
    desk.enrol(asker, room=None, unreachable=[first], prior=3)
    assert not desk.to(asker, m.Redirect)
    assert desk.to(first, m.Probe)
    for number in (first, third, asker):
        desk.undelivered(number)
    assert desk.core.tasks_kept() == [desk.task]


def test_who_cannot_reach_the_keeper_that_stays_is_kept_for_in_the_end() -> None:
    desk, keeper = restarted(1)
    for _ in range(2):
        desk.enrol(5, room=None, unreachable=[keeper])
        for number in desk.order[1:3]:
            desk.hear(number, state(desk, term=3, keeping=number == keeper))
        desk.later(1.0)
    assert desk.core.tasks_kept() == [desk.task]


@pytest.mark.parametrize("term", [3, 4])
def test_of_two_that_keep_it_the_later_one_is_believed_or_else_the_better_ranked(term: int) -> None:
    desk = Desk(range(1, 6))
    _, second, third, asker, _ = desk.order
    desk.hear(second, state(desk, term=3, keeping=True))
    desk.hear(third, state(desk, term=term, keeping=True))
    desk.enrol(asker, room=None)
    believed = third if term > 3 else second
    assert desk.to(asker, m.Redirect)[-1].to == desk.id(believed)
