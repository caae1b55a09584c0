"""Keepers under every fault at once: in the end all is held, and no read was for nothing unseen."""

from __future__ import annotations

from collections import Counter

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

from peerd.ids import PeerId, VersionId
from peerd.link import messages as m
from peerd.scheduler.keeper_events import LinksLate
from tests.scheduler.world import Origin, World, key

PEERS = 6
PIECES = 30
NUMBERS = st.integers(1, PEERS)


class KeepersUnderFaults(RuleBasedStateMachine):
    """Six peers, one file; faults come and go, then they stop."""

    @initialize(seed=st.integers(0, 2**16), ranged=st.booleans(), ordered=st.booleans())
    def begin(self, seed: int, ranged: bool, ordered: bool) -> None:
        self.world = World(seed, PEERS, Origin(PIECES, ranged=ranged))
        self.world.ordered = ordered
        self.world.fetched_max = 1
        self.world.read_cost_s = 0.1

    @rule(number=NUMBERS)
    def get(self, number: int) -> None:
        if self.world[number].alive and not self.world[number].wants:
            self.world[number].get()

    @rule(milliseconds=st.sampled_from([1, 5, 20, 100, 500, 2000]))
    def time_passes(self, milliseconds: int) -> None:
        self.world.run(milliseconds / 1000)

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        if self.world[number].alive:
            self.world.crash(number)

    @rule(number=NUMBERS)
    def restart(self, number: int) -> None:
        if not self.world[number].alive:
            self.world.restart(number)

    @rule(one=NUMBERS, other=NUMBERS)
    def link_breaks(self, one: int, other: int) -> None:
        if one != other:
            self.world.break_link(self.world[one], self.world[other])

    @rule(number=NUMBERS)
    def crash_keeper(self, number: int) -> None:
        for keeper in self.world.keepers()[:1]:
            self.world.crash(keeper.number)

    @rule(loss=st.sampled_from([0.0, 0.1, 0.3]), doubled=st.sampled_from([0.0, 0.2]))
    def network(self, loss: float, doubled: float) -> None:
        self.world.loss, self.world.doubled = loss, doubled

    @rule(some=st.sets(NUMBERS, min_size=1, max_size=PEERS - 1))
    def partition(self, some: set[int]) -> None:
        self.world.cut(some, set(range(1, PEERS + 1)) - some)

    @rule()
    def heal(self) -> None:
        self.world.heal()

    @rule(number=NUMBERS, some=st.sets(NUMBERS))
    def links_are_late(self, number: int, some: set[int]) -> None:
        if self.world[number].alive:
            late = frozenset(self.world[each].peer for each in some - {number})
            self.world[number].keeper_event(LinksLate(late))

    @rule(number=NUMBERS, seen=st.sets(NUMBERS))
    def view(self, number: int, seen: set[int]) -> None:
        self.world.see(number, seen)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def cores_hold(self) -> None:
        for peer in self.world.peers.values():
            peer.core.validate()
            self.one_live_lease_a_piece(peer.core.leases(self.world.origin.task, self.world.now))

    @staticmethod
    def one_live_lease_a_piece(leases: tuple[m.LeaseInfo, ...]) -> None:
        read = Counter(
            piece
            for info in leases
            if info.kind is not m.LeaseKind.AUDIT
            for piece in range(info.first, info.first + info.count)
        )
        assert all(readers == 1 for readers in read.values())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.loss = world.doubled = 0.0
        world.heal()
        for number in range(1, PEERS + 1):
            if not world[number].alive:
                world.restart(number)
            world.see(number, range(1, PEERS + 1))
        world.run(400, world.all_done)
        self.all_have_all()
        self.reads_are_accounted_for()

    def all_have_all(self) -> None:
        for peer in self.world.peers.values():
            story = [core.story(self.world.origin.task)[-12:] for core in self.world.cores]
            assert not peer.wants or peer.complete, (peer.number, bin(peer.held), story)

    def reads_are_accounted_for(self) -> None:
        """What one keeper had read twice, it counted (or another kept the task meanwhile)."""
        world = self.world
        by_keeper: dict[tuple[PeerId, object], list[tuple[VersionId, int]]] = {}
        for read in world.origin.reads:
            by_keeper.setdefault(read.granted_by, []).append((read.version, read.piece))
        counted: Counter[PeerId] = Counter()
        for core in world.cores:
            for counters in core.counted(world.origin.task).values():
                counted[core.own] += counters
        twice: Counter[PeerId] = Counter()
        for (keeper, _), reads in by_keeper.items():
            twice[keeper] += len(reads) - len(set(reads))
        for keeper, reads_again in twice.items():
            number = world.peers[keeper].number
            # How far a resolver that is gone read on, where all is one response, nobody knows.
            most = counted[keeper] * (1 if world.origin.ranged else PIECES)
            assert reads_again <= most, (number, reads_again, counted[keeper])


EXAMPLES = settings(
    max_examples=150, stateful_step_count=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip

TestKeepersUnderFaults = KeepersUnderFaults.TestCase
TestKeepersUnderFaults.settings = EXAMPLES


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_keepers_under_faults_for_long() -> None:
    run_state_machine_as_test(
        KeepersUnderFaults,
        settings=settings(EXAMPLES, max_examples=1000, stateful_step_count=50),
    )


def test_the_world_repeats_itself() -> None:
    """A failing run can be run again from its seed."""

    def run() -> list[tuple[float, PeerId, int]]:
        world = World(7, 8, Origin(40))
        for number in range(1, 9):
            world.at(number * 0.01, world[number].get)
        world.run(10, lambda: world.now > 0.1 and world.all_done())
        return [(read.at, read.reader, read.piece) for read in world.origin.reads]

    assert run() == run()
    assert key(1).peer_id in {peer for _, peer, _ in run()}
