"""The gate: what strangers may cost, whatever they do."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from peerd.link.gate import Begin, Drop, Gate, GateLimits, Order, Ticket


def began(orders: list[Order]) -> list[Ticket]:
    return [order.ticket for order in orders if isinstance(order, Begin)]


def dropped(orders: list[Order]) -> list[Ticket]:
    return [order.ticket for order in orders if isinstance(order, Drop)]


def knock(gate: Gate, address: str, now: float = 0.0) -> tuple[Ticket, list[Order]]:
    ticket = gate.issue()
    return ticket, gate.arrived(ticket, address, now)


def test_sixteen_at_once_and_the_next_when_one_has_finished() -> None:
    gate = Gate()
    tickets = [knock(gate, f"10.0.0.{n}")[0] for n in range(16)]
    waiting, orders = knock(gate, "10.0.1.1")
    assert orders == []
    assert gate.finished(tickets[3], 0.1) == [Begin(waiting)]


def test_a_handshake_has_two_seconds() -> None:
    gate = Gate()
    ticket, orders = knock(gate, "10.0.0.1")
    assert began(orders) == [ticket]
    assert gate.deadline() == 2.0
    assert gate.expire(1.9) == []
    assert dropped(gate.expire(2.0)) == [ticket]
    assert gate.deadline() == float("inf")


def test_who_fills_all_places_in_silence_yields_to_those_who_wait() -> None:
    gate = Gate()
    silent = [knock(gate, f"10.6.6.{n}")[0] for n in range(16)]
    honest, _ = knock(gate, "10.0.0.1", 0.2)
    assert gate.deadline() == 1.0
    orders = gate.expire(1.0)
    assert dropped(orders) == silent[:1]
    assert began(orders) == [honest]


def test_an_address_with_many_waits_behind_one_with_none() -> None:
    gate = Gate()
    flood = [knock(gate, "10.6.6.6")[0] for _ in range(20)]
    honest, _ = knock(gate, "10.0.0.1")
    assert gate.finished(flood[0], 0.1) == [Begin(honest)]


def test_who_fills_the_waiting_room_makes_room_for_others() -> None:
    gate = Gate(GateLimits(waiting_max=4))
    flood = [knock(gate, "10.6.6.6")[0] for _ in range(20)]
    honest, orders = knock(gate, "10.0.0.1")
    assert dropped(orders) == flood[-1:]
    assert gate.finished(flood[0], 0.1) == [Begin(honest)]
    _, orders = knock(gate, "10.6.6.6")
    assert orders == []
    last, orders = knock(gate, "10.6.6.6")
    assert dropped(orders) == [last]


def test_an_address_has_a_bucket_of_its_own() -> None:
    gate = Gate(GateLimits(burst=3, per_s=1.0))
    for _ in range(3):
        ticket, _ = knock(gate, "10.6.6.6")
        gate.finished(ticket, 0.0)
    fourth, orders = knock(gate, "10.6.6.6", 0.5)
    assert dropped(orders) == [fourth]
    other, orders = knock(gate, "10.0.0.1", 0.5)
    assert began(orders) == [other]
    later, orders = knock(gate, "10.6.6.6", 1.6)
    assert began(orders) == [later]


class GateMachine(RuleBasedStateMachine):
    """Any crowd: bounds hold, and nobody is kept beyond the time that the gate states."""

    def __init__(self) -> None:
        super().__init__()
        limits = GateLimits(at_once_max=3, waiting_max=4, burst=5, per_s=2.0, addresses_max=3)
        self.gate = Gate(limits)
        self.now = 0.0
        self.going: dict[Ticket, float] = {}
        self.waiting: dict[Ticket, float] = {}

    def obey(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Begin(ticket=ticket):
                    del self.waiting[ticket]
                    self.going[ticket] = self.now
                case Drop(ticket=ticket):
                    assert (ticket in self.going) != (ticket in self.waiting)
                    self.going.pop(ticket, None)
                    self.waiting.pop(ticket, None)

    @rule(address=st.sampled_from("abcdefg"))
    def arrive(self, address: str) -> None:
        ticket = self.gate.issue()
        self.waiting[ticket] = self.now
        self.obey(self.gate.arrived(ticket, address, self.now))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        here = sorted({**self.going, **self.waiting})
        if here:
            ticket = data.draw(st.sampled_from(here))
            self.going.pop(ticket, None)
            self.waiting.pop(ticket, None)
            self.obey(self.gate.finished(ticket, self.now))

    @rule(seconds=st.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.gate.deadline() <= until:
            self.now = max(self.now, self.gate.deadline())
            self.obey(self.gate.expire(self.now))
        self.now = until

    @invariant()
    def holds(self) -> None:
        self.gate.validate()
        assert len(self.going) == self.gate.going
        assert len(self.waiting) == self.gate.waiting
        for since in (*self.going.values(), *self.waiting.values()):
            assert self.now <= since + 2.0


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
