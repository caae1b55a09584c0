"""Electing under every fault at once, and a small world in all its ways."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from peerd.scheduler.election import Elector
from tests.scheduler import small_world
from tests.scheduler.electing_world import ElectingWorld

CALM_S = 12.0
"""One lease, what bars and patience take, and a look more than that (2 s are what it mostly takes).
"""


class ElectingUnderFaults(RuleBasedStateMachine):
    """Faults come and go, then they stop: then one leads and all follow it.

    The world itself checks that nobody ever follows an older term after a newer one.
    """

    @initialize(
        seed=st.integers(0, 2**16), electors=st.integers(1, 5), followers=st.integers(0, 5),
        relayed=st.booleans(),
    )  # fmt: skip
    def begin(self, seed: int, electors: int, followers: int, relayed: bool) -> None:
        self.world = ElectingWorld(electors, followers, seed)
        world = self.world
        self.all = (*world.electors, *world.followers)
        if relayed and followers > 1:  # All but the first hear leases from it, as in a cell.
            first = world.followers[0]
            world.contacts = {
                peer: (first, *world.electors) for peer in world.followers if peer != first
            }
            world.electors_are(world.electors)

    def one(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.all))

    @rule(milliseconds=st.sampled_from([1, 10, 100, 500, 1000, 3000]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.run(milliseconds / 1000)

    @rule(data=st.data(), noticed=st.booleans())
    def crash(self, data: st.DataObject, noticed: bool) -> None:
        peer = self.one(data)
        if peer in self.world.peers():
            self.world.crash(peer, noticed)  # type: ignore[arg-type]

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        peer = self.one(data)
        if peer not in self.world.peers():
            self.world.start(peer)  # type: ignore[arg-type]

    @rule(data=st.data())
    def partition(self, data: st.DataObject) -> None:
        one = set(data.draw(st.lists(st.sampled_from(self.all), max_size=len(self.all))))
        self.world.cut(one, set(self.all) - one)

    @rule()
    def heal(self) -> None:
        self.world.heal()

    @rule(loss=st.sampled_from([0.0, 0.1, 0.4]))
    def network(self, loss: float) -> None:
        self.world.loss = loss

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def a_leader_that_hears_nobody_does_not_advise(self) -> None:
        world = self.world
        for peer in world.leading():
            elector = world.elector(peer)
            assert not elector.advises(world.now + world.config.lease_s + 0.1)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.heal()
        world.loss = 0.0
        for peer in self.all:
            if peer not in world.peers():
                world.start(peer)
        world.run(CALM_S)
        assert len(world.leading()) == 1, world.leading()
        assert world.leaders() == set(world.leading())
        (leader,) = world.leading()
        assert isinstance(world.core(leader), Elector)
        assert len(self.all) == 1 or world.elector(leader).advises(world.now)


def test_when_faults_end_one_leads_and_all_follow_it() -> None:
    run_state_machine_as_test(
        ElectingUnderFaults,
        settings=settings(
            max_examples=150, stateful_step_count=30, deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "budget"),
    [
        (10, {"crash": 1, "restart": 1}),
        (8, {"late": 2}),
        (6, {"late": 1, "loss": 1}),
        (6, {"forge": 1, "drift": 1}),
    ],
)
def test_every_way_within_bounds_comes_to_one_leader(steps: int, budget: dict[str, int]) -> None:
    """Short forms; `python -m tests.scheduler.small_world` visits hundreds of thousands."""
    found = small_world.explore(steps, budget)
    print(found)
    assert found["ends"] > 50
    assert found["calm_steps_max"] <= 16, "in half seconds"
