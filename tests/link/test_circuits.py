"""The table of circuits: what ends and relays may do, whatever comes in which order."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.circuits import (
    MESSAGE_MIN_COST_BYTES,
    Arrived,
    CircuitLimits,
    Circuits,
    Closed,
    LegId,
    Offered,
    Opened,
    Order,
    Pass,
    Room,
    Say,
    cost_bytes,
)
from peerd.link.own_messages import (
    CREDIT_MIN_BYTES,
    WINDOW_BYTES,
    CircuitClose,
    CircuitCredit,
    CircuitData,
    CircuitMessage,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
)
from peerd.units import KIB
from tests.link.helper import KEYS

A, B, R, S = (key.peer_id for key in KEYS[:4])
LIMITS = CircuitLimits(relayed_max=4, asked_max=2, ends_max=4, offered_max=3)


def relay() -> Circuits:
    """R's table, linked with A and B. A asked for B (circuit 0), and B took it (1)."""
    table = Circuits(R)
    table.link_up(A)
    table.link_up(B)
    assert table.heard(A, CircuitOpen(0, B)) == [Say(B, CircuitOffer(1, A))]
    assert table.heard(B, CircuitOpened(1)) == [Say(A, CircuitOpened(0))]
    return table


def test_a_relay_passes_data_and_credit_on_and_holds_both_to_the_window() -> None:
    table, data = relay(), bytes(64 * KIB)
    for _ in range(WINDOW_BYTES // len(data)):
        assert table.heard(A, CircuitData(0, data)) == [Pass(B, CircuitData(1, data))]
    with pytest.raises(RemoteProtocolError, match="more bytes than were allowed"):
        table.heard(A, CircuitData(0, b"x"))
    credit = CREDIT_MIN_BYTES
    assert table.heard(B, CircuitCredit(1, credit)) == [Say(A, CircuitCredit(0, credit))]
    assert table.heard(A, CircuitData(0, data)) == [Pass(B, CircuitData(1, data))]
    with pytest.raises(RemoteProtocolError, match="credit for what was not sent"):
        table.heard(B, CircuitCredit(1, WINDOW_BYTES))
    with pytest.raises(RemoteProtocolError, match="credit for what was not sent"):
        table.heard(A, CircuitCredit(0, credit))


def test_a_window_is_few_messages_as_well() -> None:
    table = relay()
    for _ in range(WINDOW_BYTES // MESSAGE_MIN_COST_BYTES):
        table.heard(A, CircuitData(0, b"x"))
    with pytest.raises(RemoteProtocolError):
        table.heard(A, CircuitData(0, b"x"))


def test_a_place_is_free_again_only_when_both_links_have_read_the_last_of_it() -> None:
    table = relay()
    table.heard(A, CircuitData(0, bytes(64 * KIB)))
    orders = table.heard(A, CircuitClose(0, "enough"))
    assert orders == [Pass(A, CircuitClose(0, "closed")), Pass(B, CircuitClose(1, "enough"))]
    assert table.relayed == 1, "what b has not read still waits here"
    assert table.heard(B, CircuitData(1, b"late")) == []
    assert table.heard(B, CircuitClose(1, "closed")) == []
    assert table.relayed == 0
    with pytest.raises(RemoteProtocolError, match="is not open"):
        table.heard(B, CircuitData(1, b"after its last word"))


def test_nobody_sends_before_it_is_open_and_nobody_opens_it_but_who_was_asked() -> None:
    table = Circuits(R)
    table.link_up(A)
    table.link_up(B)
    table.heard(A, CircuitOpen(0, B))
    with pytest.raises(RemoteProtocolError):
        table.heard(A, CircuitData(0, b"early"))
    with pytest.raises(RemoteProtocolError):
        table.heard(A, CircuitOpened(0))


def test_numbers_are_of_who_opens_and_used_once_at_a_time() -> None:
    table = relay()
    for wrong in (1, 0):
        with pytest.raises(RemoteProtocolError, match="is not one to open"):
            table.heard(A, CircuitOpen(wrong, B))
    with pytest.raises(RemoteProtocolError, match="is relayed itself"):
        table.heard(S, CircuitOpen(1, B))


@pytest.mark.parametrize("far", [A, R, S])
def test_a_relay_says_at_once_to_whom_it_has_no_link(far: PeerId) -> None:
    table = relay()
    (order,) = table.heard(A, CircuitOpen(2, far))
    assert order == Say(A, CircuitClose(2, "it has no direct link to that peer"))
    assert table.heard(A, CircuitClose(2, "given up")) == [], "it crossed the refusal"


def test_when_a_link_ends_its_circuits_end_at_the_other_side_too() -> None:
    table = relay()
    (order,) = table.link_down(A)
    assert isinstance(order, Pass)
    assert (order.peer, type(order.message)) == (B, CircuitClose)
    assert table.link_down(B) == []
    assert table.relayed == 0


class Network(RuleBasedStateMachine):
    """Four peers, all linked but for A and B; messages wait in each direction of each link."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = {peer: Circuits(peer, LIMITS) for peer in (A, B, R, S)}
        self.up: set[frozenset[PeerId]] = set()
        self.control: dict[tuple[PeerId, PeerId], deque[CircuitMessage]] = {}
        self.bulk: dict[tuple[PeerId, PeerId], deque[CircuitMessage]] = {}
        self.read: dict[tuple[PeerId, LegId], deque[int]] = {}
        self.live: set[tuple[PeerId, LegId]] = set()
        for one, two in ((A, R), (B, R), (A, S), (B, S), (R, S)):
            self._connect(one, two)

    def _connect(self, one: PeerId, two: PeerId) -> None:
        self.up.add(frozenset((one, two)))
        for near, far in ((one, two), (two, one)):
            self.tables[near].link_up(far)
            self.control[near, far], self.bulk[near, far] = deque(), deque()

    def _obey(self, peer: PeerId, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Say(peer=far, message=message):
                    self.control[peer, far].append(message)
                case Pass(peer=far, message=message):
                    self.bulk[peer, far].append(message)
                case Offered(leg=leg) | Opened(leg=leg):
                    self.live.add((peer, leg))
                    self.read[peer, leg] = deque()
                case Arrived(leg=leg, data=data):
                    if (peer, leg) in self.live:
                        self.read[peer, leg].append(cost_bytes(data))
                case Closed(leg=leg):
                    self.live.discard((peer, leg))
                case Room():
                    pass

    @rule(pair=st.sampled_from(((A, R, B), (B, R, A), (A, S, B), (A, R, S), (R, A, S), (A, R, A))))
    def ask(self, pair: tuple[PeerId, PeerId, PeerId]) -> None:
        own, through, far = pair
        if frozenset((own, through)) in self.up:
            asked = self.tables[own].ask(through, far)
            if asked is not None:
                self._obey(own, asked[1])

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0), size=st.sampled_from((0, 1, 3000, 64 * KIB)))
    def send(self, choice: int, size: int) -> None:
        peer, leg = sorted(self.live)[choice % len(self.live)]
        table = self.tables[peer]
        for _ in range(8):
            if table.room_bytes(leg) >= cost_bytes(bytes(size)):
                self._obey(peer, table.send(leg, bytes(size)))

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0))
    def take(self, choice: int) -> None:
        peer, leg = sorted(self.live)[choice % len(self.live)]
        while self.read[peer, leg]:
            self._obey(peer, self.tables[peer].took(leg, self.read[peer, leg].popleft()))

    @precondition(lambda self: self.live)
    @rule(choice=st.integers(0))
    def close(self, choice: int) -> None:
        peer, leg = sorted(self.live)[choice % len(self.live)]
        self.live.discard((peer, leg))
        self._obey(peer, self.tables[peer].close(leg, "enough"))

    @rule(choice=st.integers(0), bulk=st.booleans(), most=st.integers(1, 30))
    def deliver(self, choice: int, bulk: bool, most: int) -> None:
        """Honest peers never break a rule: no RemoteProtocolError may come of this."""
        pairs = sorted(self.control)
        near, far = pairs[choice % len(pairs)]
        for _ in range(most):
            queue = self.control[near, far] or (self.bulk[near, far] if bulk else None)
            if not queue:
                return
            self._obey(far, self.tables[far].heard(near, queue.popleft()))

    @rule(pair=st.sampled_from(((A, R), (B, R), (A, S), (R, S))))
    def cut(self, pair: tuple[PeerId, PeerId]) -> None:
        one, two = pair
        self.up.discard(frozenset(pair))
        for near, far in ((one, two), (two, one)):
            self.control[near, far], self.bulk[near, far] = deque(), deque()
        for near, far in ((one, two), (two, one)):
            self._obey(near, self.tables[near].link_down(far))
        self._connect(one, two)

    @invariant()
    def all_hold(self) -> None:
        for table in self.tables.values():
            table.validate()

    @invariant()
    def a_relay_holds_a_window_for_each_direction_at_most(self) -> None:
        for (near, _), queue in self.bulk.items():
            costs: dict[int, int] = {}
            for message in queue:
                if isinstance(message, CircuitData):
                    costs.setdefault(message.circuit, 0)
                    costs[message.circuit] += cost_bytes(message.data)
            assert all(cost <= WINDOW_BYTES for cost in costs.values())
            limits = LIMITS.relayed_max + LIMITS.ends_max
            assert len(costs) <= limits, near

    @rule()
    def settle(self) -> None:
        for _ in range(6):
            for near, far in sorted(self.control):
                for queue in (self.control[near, far], self.bulk[near, far]):
                    while queue:
                        self._obey(far, self.tables[far].heard(near, queue.popleft()))

    def teardown(self) -> None:
        """When all is delivered and all ends have closed, nothing is left anywhere."""
        for peer, leg in sorted(self.live):
            self._obey(peer, self.tables[peer].close(leg, "the end"))
        self.live.clear()
        for _ in range(4):
            self.settle()
            for peer, leg in sorted(self.live):
                self._obey(peer, self.tables[peer].close(leg, "the end"))
            self.live.clear()
        for table in self.tables.values():
            assert (table.relayed, table.ends) == (0, 0)


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_reader_credits_by_quarters_of_the_window() -> None:
    table = Circuits(A)
    table.link_up(R)
    asked = table.ask(R, B)
    assert asked is not None
    leg = asked[0]
    assert asked[1] == [Say(R, CircuitOpen(leg.number, B))]
    assert table.room_bytes(leg) == 0
    assert table.heard(R, CircuitOpened(leg.number)) == [Opened(leg)]
    data, credits = bytes(64 * KIB), []
    for _ in range(8):
        table.heard(R, CircuitData(leg.number, data))
        credits += table.took(leg, len(data))
    assert credits == [Say(R, CircuitCredit(leg.number, CREDIT_MIN_BYTES))] * 2
