"""What a leader advises from what uplinks were seen to do: who is fed first."""

from __future__ import annotations

from random import Random

import pytest

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import AdvisedPeer, Report, SwarmReport
from peerd.scheduler.advisor import Advisor
from peerd.scheduler.topology import Topology

TASK, OTHER = TaskId("a" * 64), TaskId("b" * 64)
MIB = 1 << 20


class Desk:
    """A leader that sees one swarm; each peer is told of by its name."""

    def __init__(self) -> None:
        self.seen, self.advisor = Topology(), Advisor(Random(1))

    def says(
        self, name: str, *, up: int, zone: str = "", wants: bool = True,
        tasks: tuple[TaskId, ...] = (TASK,), held: int = 50,
    ) -> None:  # fmt: skip
        swarms = tuple(SwarmReport(x, 100, MIB, held, wants, True, 6, 0) for x in tasks)
        said = Report(PeerId(name), 0, 0, up, up, 0, swarms, (), (), ())
        self.seen.report(said, zone, 0.0)

    def decides(self, name: str) -> AdvisedPeer:
        peer = PeerId(name)
        return self.advisor.decide(self.seen, TASK, peer, self.seen.tasks[TASK][peer], 0.0)


def test_what_is_read_goes_first_to_those_that_pass_it_on_fastest() -> None:
    desk = Desk()
    desk.says("reader", up=10 * MIB)
    for number in range(3):
        desk.says(f"fast{number}", up=10 * MIB)
        desk.says(f"slow{number}", up=MIB)
    desk.says("done", up=10 * MIB, wants=False)
    desk.says("far", up=10 * MIB, zone="elsewhere")
    assert set(desk.decides("reader").first) == {"fast0", "fast1", "fast2"}
    assert set(desk.decides("fast0").first) == {"reader", "fast1", "fast2"}, "never itself"


def test_who_shares_its_uplink_with_another_swarm_counts_for_half() -> None:
    desk = Desk()
    for number in range(4):
        desk.says(f"p{number}", up=10 * MIB)
    desk.says("busy", up=15 * MIB, tasks=(TASK, OTHER))
    desk.says("slow", up=MIB)
    assert desk.decides("p0").first[:3] == ("p3", "p2", "p1")


@pytest.mark.parametrize("others", [(10 * MIB, 8 * MIB, 6 * MIB), (0, 0, 0)])
def test_nobody_is_named_where_all_are_alike_or_nothing_was_seen(others: tuple[int, ...]) -> None:
    desk = Desk()
    desk.says("reader", up=10 * MIB)
    for number, up in enumerate(others):
        desk.says(f"p{number}", up=up)
    assert desk.decides("reader").first == ()


def test_who_is_fed_first_is_said_while_nobody_has_anything_yet() -> None:
    desk = Desk()
    for number in range(3):
        desk.says(f"fast{number}", up=10 * MIB, held=0)
        desk.says(f"slow{number}", up=MIB, held=0)
    desk.advisor.noticed(TASK, PeerId("fast0"))
    (advised,) = desk.advisor.advise(desk.seen, 0.0)
    assert advised.parents == ()
    assert set(advised.first) == {"fast1", "fast2"}
