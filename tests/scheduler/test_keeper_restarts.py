"""Keepers that are killed and come back: nobody reads what another holds or reads meanwhile."""

from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace

from peerd.link.messages import LeaseGrant, LeaseKind
from peerd.scheduler.leases import LeaseBook
from tests.scheduler.desk import Desk
from tests.scheduler.test_keeper_terms import state
from tests.scheduler.world import Origin, World


def test_members_that_a_new_keeper_does_not_see_yet_are_waited_for() -> None:
    """They hold pieces, which would be read again."""
    desk = Desk(range(1, 4))
    _, second, asker = desk.order
    version = desk.version(second, 10)
    unseen = 9
    desk.enrol(asker, prior=1, version=version, have=[])
    desk.hear(
        second,
        state(desk, term=1, handover=True, version=version, members=(unseen, asker, second)),
    )
    desk.hear(asker, state(desk))
    desk.enrol(second, prior=1, version=version, have=[], room=None)
    desk.ask(asker, 4)
    desk.later(1.0)
    assert not [x for x in desk.leases() if x.kind is LeaseKind.READ]
    desk.enrol(unseen, prior=1, version=version, have=range(9), room=None)
    desk.later(0.0)
    assert [x.first for x in desk.leases() if x.kind is LeaseKind.READ] == [9]


def test_a_handover_pauses_one_that_never_heard_of_the_task() -> None:
    """It knows no lease and no term: what the members hold it must hear first."""
    desk = Desk(range(1, 4))
    _, second, holder = desk.order
    version = desk.version(second, 10)
    desk.enrol(desk.own)
    desk.hear(holder, state(desk))
    desk.hear(second, state(desk, term=1, handover=True, version=version, members=(holder, second)))
    assert not desk.leases()
    for number, have in ((holder, range(10)), (second, [])):
        desk.enrol(number, prior=1, version=version, have=have, room=None)
    assert not desk.leases()


@pytest.mark.parametrize("seed", range(4))
def test_a_keeper_killed_again_and_again_costs_what_was_under_way(seed: int) -> None:
    world = World(seed, 4, Origin(64))
    world.read_cost_s, world.fetched_max = 0.3, 2
    for number in range(1, 5):
        world.at(0.01 * number, world[number].get)
    under_way: list[int] = []
    for kill in range(5):
        world.at(1.0 + 1.2 * kill, lambda: kill_keeper(world, under_way))
    world.run(60, lambda: world.now > 8.0 and world.all_done())
    assert all(peer.complete for peer in world.peers.values())
    assert world.twice() <= len(under_way)


def kill_keeper(world: World, under_way: list[int]) -> None:
    for keeper in world.keepers()[:1]:
        under_way.extend(keeper.leases)
        world.crash(keeper.number)
        world.at(world.now + 0.8, partial(world.restart, keeper.number))


def followed(granted: list[int], pieces: int = 200) -> tuple[Desk, int, int]:
    """The keeper told its standby what it granted, and died; one of two members came since."""
    desk = Desk(range(1, 6), own=Desk(range(1, 6)).order[1])
    first, _, reader, asker, _ = desk.order
    version = desk.version(first, pieces)
    told = state(desk, term=3, keeping=True, version=version, members=(reader, asker))
    bits = sum(1 << piece for piece in granted).to_bytes((pieces + 7) // 8, "little")
    desk.hear(first, replace(told, granted=bits if granted else b""))
    desk.lost(first)
    desk.undelivered(first)
    desk.enrol(asker, prior=3, version=version, have=[], unreachable=[first], room=8)
    return desk, reader, asker


def read_all(desk: Desk) -> list[int]:
    """Every lease is read; the pieces in the order in which they were granted."""
    while leases := [x for x in desk.leases() if x.kind is LeaseKind.READ]:
        for lease in leases:
            number = next(n for n in desk.numbers if desk.id(n) == lease.holder)
            desk.report(number, lease.lease, made=[lease.first])
    sent = [x.message for x in desk.sent if isinstance(x.message, LeaseGrant)]
    return [x.info.first for x in sent if x.info.kind is LeaseKind.READ]


def test_what_a_dead_keeper_cannot_have_granted_is_granted_before_all_registered() -> None:
    granted = list(range(0, 200, 2))
    desk, reader, asker = followed(granted)
    read = {lease.first for lease in desk.leases(asker)}
    assert read
    assert not read & set(granted)
    desk.enrol(reader, prior=3, version=desk.version(desk.order[0], 200), have=[0, 2], room=8)
    desk.later(0.0)
    order = read_all(desk)
    assert sorted(order) == sorted(set(range(200)) - {0, 2})
    # What was lost with the keeper comes last: it may be back by then.
    assert not set(order[: 200 - len(granted) - 16]) & set(granted)


def test_what_it_was_to_grant_next_waits_too() -> None:
    """Its last copies may not have come."""
    old, desk = LeaseBook(1), Desk(range(1, 6))
    old.cut(200, f"{desk.id(desk.own)}/{desk.task}")
    order = [run[0] for run in iter(lambda: old.next_run(0), None)]
    desk, _, asker = followed(order[:150])
    assert desk.leases(asker)
    assert {x.first for x in desk.leases(asker)} <= set(order[166:])


def test_where_the_dead_keeper_did_not_say_all_waits() -> None:
    desk, _, asker = followed([])
    assert not desk.leases(asker)


def test_what_was_lost_with_a_member_is_read_after_all_others() -> None:
    """It may come back with it."""
    desk = Desk(range(1, 4))
    _, gone, other = desk.order
    desk.enrol(desk.own)
    desk.later(1.0)
    desk.ask(desk.own, 4)
    version = desk.resolve(desk.own, 60)
    held = range(10, 20)
    desk.enrol(gone, version=version, have=held, room=None)
    lost = set(held) - {x.first for x in desk.leases()}
    desk.undelivered(gone)
    desk.enrol(other, version=version, have=[], room=4)
    order = read_all(desk)
    assert set(order[-len(lost) :]) == lost
