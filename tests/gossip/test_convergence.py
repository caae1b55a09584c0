"""Any order, loss and duplication of messages: in the end all agree on each owner's last word.

The state machine has four peers and a network that loses, doubles, reorders and delays what it
likes; owners change, leave, restart with or without their data directory. After the network is
whole again everybody must hold every living owner's newest record and nothing that was withdrawn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from peerd.gossip.events import (
    Arrived,
    Hold,
    Leave,
    NeighbourDown,
    NeighbourUp,
    Order,
    Send,
    Update,
)
from peerd.gossip.exchange import Exchange
from peerd.gossip.membership import Past
from peerd.gossip.records import Signed, Version
from peerd.ids import PeerId, TaskId
from tests.gossip.builders import FACTS, key, membership, record, signed, task
from tests.gossip.simnet import verify_once

PEERS = 4
HEAL_STEPS_S = [0.5] * 60 + [5.0] * 100
"""Mostly a second is enough; who left while every goodbye was lost goes with its record."""
numbers = st.integers(0, PEERS - 1)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_records_in_any_order_with_any_loss_and_doubles_never_go_back(data: st.DataObject) -> None:
    said = [
        signed(owner, record(owner, generation, counter, left=left))
        for owner in (1, 2)
        for generation in (1, 2)
        for counter, left in ((0, False), (1, False), (2, True))
    ]
    heard = data.draw(st.lists(st.sampled_from(said), max_size=40))
    one = membership()
    newest: dict[PeerId, Version] = {}
    for item in heard:
        one.hear(item, key(9).peer_id, 1.0)
        one.validate()
        for peer in (key(1).peer_id, key(2).peer_id):
            held = one.table.get(peer)
            if held is not None:
                assert held.version >= newest.get(peer, held.version)
                newest[peer] = held.version
    two = membership(3)
    for item in data.draw(st.permutations(heard)):
        two.hear(item, key(9).peer_id, 1.0)
    for owner in (1, 2):
        assert one.record(key(owner).peer_id) == two.record(key(owner).peer_id)


class Gossiping(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.cores: dict[int, Exchange] = {}
        self.mail: list[tuple[int, PeerId, bytes]] = []
        self.boots = 0
        self.held: dict[int, tuple[TaskId, ...]] = {}
        self.claims: dict[int, int] = {}

    @initialize()
    def everybody_starts(self) -> None:
        for number in range(PEERS):
            self._start(number, Past(), 1000)
        for number in range(PEERS):
            self._meet(number)

    # --- what happens to the network

    @rule(data=st.data())
    def a_message_arrives_in_any_order(self, data: st.DataObject) -> None:
        if self.mail:
            self._deliver(data.draw(st.integers(0, len(self.mail) - 1)))

    @rule(data=st.data())
    def a_message_is_doubled(self, data: st.DataObject) -> None:
        if self.mail:
            self.mail.append(self.mail[data.draw(st.integers(0, len(self.mail) - 1))])

    @rule(data=st.data())
    def a_message_is_lost(self, data: st.DataObject) -> None:
        if self.mail:
            del self.mail[data.draw(st.integers(0, len(self.mail) - 1))]

    @rule(one=numbers, two=numbers)
    def a_connection_drops_and_comes_back(self, one: int, two: int) -> None:
        if one != two and {one, two} <= set(self.cores):
            for here, there in ((one, two), (two, one)):
                self._tell(here, NeighbourDown(key(there).peer_id))
            for here, there in ((one, two), (two, one)):
                self._tell(here, NeighbourUp(key(there).peer_id))

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for number in list(self.cores):
            self._carry(number, self.cores[number].expire(self.now))

    # --- what owners do

    @rule(number=numbers, port=st.integers(1, 9))
    def somebody_moves(self, number: int, port: int) -> None:
        if number in self.cores:
            addresses = (f"10.0.0.{number}:{port}",)
            self._tell(number, Update(structs.replace(FACTS, link_addresses=addresses)))

    @rule(number=numbers, tasks=st.lists(st.integers(0, 5), max_size=3, unique=True))
    def somebody_holds_other_tasks(self, number: int, tasks: Sequence[int]) -> None:
        if number in self.cores:
            self.held[number] = tuple(task(name) for name in tasks)
            self._tell(number, Hold(self.held[number], ()))

    @rule(number=numbers)
    def somebody_leaves(self, number: int) -> None:
        if number in self.cores and len(self.cores) > 2:
            self._tell(number, Leave())
            self._stop(number)

    @rule(number=numbers, with_data=st.booleans(), wall_s=st.sampled_from([5, 1000, 5000]))
    def somebody_restarts(self, number: int, with_data: bool, wall_s: int) -> None:
        past = Past()
        if number in self.cores:
            if with_data:
                past = self.cores[number].membership.past()
            self._stop(number)
        self._start(number, past, wall_s)
        self._meet(number)

    # --- what always holds

    @invariant()
    def every_core_is_sound(self) -> None:
        for core in self.cores.values():
            core.validate()
            assert core.deadline() > self.now or core.expire(self.now) is not None

    def teardown(self) -> None:
        if not self.cores:
            return
        complaints = ["not healed"]
        for step_s in HEAL_STEPS_S:
            self._whole_network(step_s)
            complaints = self._disagreements()
            if not complaints:
                return
        raise AssertionError("; ".join(complaints))

    def _disagreements(self) -> list[str]:
        everybody = {core.membership.peer for core in self.cores.values()}
        found = []
        for number, core in self.cores.items():
            seen = {member.peer for member in core.membership.live()}
            if seen != everybody:
                found.append(f"{number} sees {len(seen)} of {len(everybody)}")
            for other, owner in self.cores.items():
                if other != number and not self._agree(core, owner, other):
                    found.append(f"{number} has an old word of {other}")
        return found

    def _agree(self, core: Exchange, owner: Exchange, number: int) -> bool:
        peer = owner.membership.peer
        said = owner.availability.of(peer)
        if core.membership.record(peer) != owner.membership.record(peer):
            return False
        for name in (task(index) for index in range(6)):
            holds = said is not None and said.may_hold(bytes.fromhex(name))
            if (peer in core.holders(name)) != holds or (name in self.held[number] and not holds):
                return False
        return True

    # --- how it is driven

    def _start(self, number: int, past: Past, wall_s: int) -> None:
        self.boots += 1
        self.held[number] = ()
        self.cores[number] = Exchange(
            key(number),
            FACTS,
            boot=self.boots.to_bytes(16, "big"),
            past=past,
            wall_s=wall_s,
            bootstrap=(),
            known=(),
            rng=Random(self.boots),
            now=self.now,
            verifier=verify_once,
        )

    def _stop(self, number: int) -> None:
        del self.cores[number]
        # What it had sent to others may still arrive, or not: the rules decide.
        self.mail = [letter for letter in self.mail if letter[0] != number]
        for other in list(self.cores):
            self._tell(other, NeighbourDown(key(number).peer_id))

    def _meet(self, number: int) -> None:
        for other in list(self.cores):
            if other != number:
                self._tell(number, NeighbourUp(key(other).peer_id))
                self._tell(other, NeighbourUp(key(number).peer_id))

    def _tell(
        self, number: int, event: NeighbourUp | NeighbourDown | Update | Hold | Leave
    ) -> None:
        self._carry(number, self.cores[number].handle(event, self.now))

    def _carry(self, number: int, orders: list[Order]) -> None:
        owners = {key(other).peer_id: other for other in self.cores}
        for order in orders:
            if isinstance(order, Send) and order.peer in owners:
                self.mail.append((owners[order.peer], key(number).peer_id, order.payload))

    def _deliver(self, index: int) -> None:
        number, sender, payload = self.mail.pop(index)
        self._carry(number, self.cores[number].handle(Arrived(sender, payload), self.now))

    def _whole_network(self, step_s: float) -> None:
        """Some time in which all connections stand and nothing is lost."""
        for number in list(self.cores):
            self._meet(number)
        while self.mail:
            self._deliver(0)
        self.now += step_s
        for number in list(self.cores):
            self._carry(number, self.cores[number].expire(self.now))


def test_newest_item_wins_even_if_it_was_signed_by_a_run_with_its_clock_set_back() -> None:
    """The order of versions is not the order of time: the greater generation is the owner's."""
    one = membership()
    old: Signed = signed(1, record(1, generation=9))
    new: Signed = signed(1, record(1, generation=10))
    for item in (new, old, new):
        one.hear(item, key(2).peer_id, 1.0)
    held = one.record(key(1).peer_id)
    assert held is not None
    assert held.generation == 10


TestGossiping = Gossiping.TestCase
TestGossiping.settings = settings(
    max_examples=int(os.environ.get("PEERD_FUZZ_EXAMPLES", "15")),
    stateful_step_count=25,
    deadline=None,
    # Shrinking many minutes of virtual time takes minutes of ours; the steps are printed anyway.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
