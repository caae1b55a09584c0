"""Keepers that are killed and come back: nobody reads what another holds or reads meanwhile."""

from __future__ import annotations

from functools import partial

import pytest

from peerd.link.messages import LeaseKind
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
