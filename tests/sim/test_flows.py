"""Shared uplinks and pipes, against sums done by hand."""

from __future__ import annotations

import pytest

from tools.sim.clock import START_S, Clock, Timer
from tools.sim.flows import Pipe, Uplink, mathis_bytes_s


class Blocks:
    """A flow with some blocks; notes when each was sent."""

    def __init__(self, clock: Clock, sizes: list[int]) -> None:
        self.clock, self.sizes = clock, sizes
        self.flow_end, self.begun_at, self.flowing = 0.0, 0.0, False
        self.sent_at: list[float] = []

    def begin(self, uplink: Uplink) -> None:
        uplink.start(self, self.sizes[0])

    def block_sent(self) -> int:
        self.sent_at.append(round(self.clock.now - START_S, 6))
        del self.sizes[0]
        return self.sizes[0] if self.sizes else 0


def run(clock: Clock) -> None:
    clock.run(START_S + 1e6, lambda: False)


def test_flows_share_the_rate_evenly_and_the_rest_gets_what_is_free() -> None:
    clock = Clock()
    uplink = Uplink(clock, 100.0)
    short, long = Blocks(clock, [100]), Blocks(clock, [200, 100])
    short.begin(uplink)
    long.begin(uplink)
    run(clock)
    # Both at 50 a second until 2 s; then 100 for the one that is left: 100 of 200, then 100.
    assert short.sent_at == [2.0]
    assert long.sent_at == [3.0, 4.0]


def test_one_that_comes_later_and_one_that_stops() -> None:
    clock = Clock()
    uplink = Uplink(clock, 100.0)
    first, second = Blocks(clock, [150]), Blocks(clock, [1000])
    first.begin(uplink)
    clock.after(1.0, second.begin, uplink)
    clock.after(1.5, uplink.stop, second)
    run(clock)
    # 100 alone, 25 together, and the last 25 alone.
    assert first.sent_at == [1.75]
    assert second.sent_at == []


def test_a_rate_that_changes_counts_from_then_on() -> None:
    clock = Clock()
    uplink = Uplink(clock, 100.0)
    flow = Blocks(clock, [200])
    flow.begin(uplink)
    clock.after(1.0, uplink.set_rate, 0.0)
    clock.after(5.0, uplink.set_rate, 50.0)
    run(clock)
    assert flow.sent_at == [7.0]


def test_a_pipe_never_passes_more_than_its_rate() -> None:
    pipe = Pipe(100.0)
    assert pipe.through(50, 10.0, 9.5) == 10.0, "idle: it was passed on while it was sent"
    assert pipe.through(50, 10.0, 9.5) == 10.5
    assert pipe.through(50, 10.1, 9.6) == 11.0
    assert pipe.through(50, 20.0, 19.5) == 20.0
    sent_side_by_side = [pipe.through(25, 40.0, 39.0) for _ in range(5)]
    assert sent_side_by_side == [40.0, 40.0, 40.0, 40.0, 40.25], "five at a quarter of the rate"
    assert pipe.carried_bytes == 325


def test_a_timer_runs_once_at_its_newest_time() -> None:
    clock, ran = Clock(), []
    timer = Timer(clock, lambda: ran.append(clock.now - START_S))
    timer.set(START_S + 5.0)
    timer.set(START_S + 1.0)
    timer.set(START_S + 3.0)
    run(clock)
    assert ran == [3.0]
    timer.set(float("inf"))
    run(clock)
    assert ran == [3.0]


@pytest.mark.parametrize("count", [1, 7])
def test_steps_of_one_time_run_in_their_order(count: int) -> None:
    clock, ran = Clock(), list[int]()
    for number in range(count):
        clock.after(1.0, ran.append, number)
    run(clock)
    assert ran == list(range(count))


def test_a_lossy_connection_carries_what_mathis_says() -> None:
    assert mathis_bytes_s(0.01, 0.08) == pytest.approx(221_700, rel=0.001), "1.8 Mbit/s"
    assert mathis_bytes_s(0.04, 0.08) == pytest.approx(mathis_bytes_s(0.01, 0.08) / 2)
    assert mathis_bytes_s(0.01, 0.04) == pytest.approx(mathis_bytes_s(0.01, 0.08) * 2)
