"""What a leader tells keepers: whom to grant last, how many may read; and the order of tasks."""

from __future__ import annotations

from random import Random

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import AdvisedKeeper, KeptReport, Report, SwarmReport
from peerd.scheduler.advisor import Advisor
from peerd.scheduler.advisor_readers import READERS_BEHIND, last_readers
from peerd.scheduler.topology import Topology

ONE, OTHER, THIRD = (TaskId(letter * 64) for letter in "abc")
ORIGIN, ELSEWHERE = 1, 2


class Desk:
    """A leader that sees peers in swarms, and who keeps what."""

    def __init__(self) -> None:
        self.seen, self.advisor, self.now = Topology(), Advisor(Random(1)), 0.0

    def says(
        self, name: str, *tasks: TaskId, up: int = 0, most: int = 0,
        keeps: dict[TaskId, int] | None = None, left: int = 100, stands: bool = True,
        wants: bool = True, priority: int = 6,
    ) -> None:  # fmt: skip
        swarms = tuple(
            SwarmReport(task, 100, 1 << 18, 100 - left, wants, stands, priority, 0)
            for task in tasks
        )
        kept = tuple(KeptReport(*each) for each in (keeps or {}).items())
        self.seen.report(
            Report(PeerId(name), 0, 0, up, max(up, most), 0, swarms, (), (), kept), "", self.now
        )
        for task in tasks:
            self.advisor.noticed(task, PeerId(name))

    def last(self, task: TaskId = ONE, *, new: bool = False) -> set[str]:
        return set(last_readers(self.seen, task, Random(1), new=new))

    def keepers(self) -> dict[TaskId, AdvisedKeeper]:
        return {each.task: each for each in self.advisor.keepers(self.seen, self.now)}

    def places(self) -> dict[str, list[TaskId]]:
        """The tasks of each peer in their order."""
        found: dict[str, dict[int, TaskId]] = {}
        for each in self.advisor.advise(self.seen, self.now):
            found.setdefault(each.peer, {})[each.place] = each.task
        return {peer: [order[n] for n in sorted(order)] for peer, order in found.items()}


def names(word: str, count: int) -> set[str]:
    return {f"{word}{number}" for number in range(count)}


def test_those_who_can_send_far_less_than_most_of_what_is_sent_come_last() -> None:
    desk = Desk()
    for number in range(12):
        desk.says(f"p{number}", ONE, up=(1_000_000, 100_000, 10_000)[number % 3])
    assert desk.last() == {f"p{number}" for number in range(12) if number % 3}


def test_of_a_task_kept_since_now_whoever_was_seen_before_is_named() -> None:
    desk = Desk()
    for number in range(12):
        desk.says(f"p{number}", OTHER, up=1_000_000 if number else 10_000)
    desk.places()
    assert desk.advisor.deadline() > desk.now
    desk.says("keeper", keeps={ONE: ORIGIN})
    desk.advisor.kept([ONE])
    assert desk.advisor.deadline() < desk.now
    assert desk.keepers()[ONE].last == ("p0",), "it may come in a moment"
    assert desk.advisor.deadline() == desk.now + 1.0
    desk.advisor.kept([ONE])
    assert desk.advisor.deadline() == desk.now + 1.0, "it is known"
    desk.now += 1.0
    desk.says("p1", ONE)
    assert desk.keepers()[ONE].last == (), "by now it would have"
    assert desk.last(new=True) == {"p0"}


def test_of_peers_that_are_alike_or_unknown_nobody_is_named() -> None:
    desk = Desk()
    for number in range(12):
        desk.says(f"p{number}", ONE)
    assert not desk.last()
    for number in range(12):
        desk.says(f"p{number}", ONE, up=1_000_000 + 100_000 * (number % 3))
    assert not desk.last()


def test_who_was_never_asked_for_all_it_can_send_may_be_as_good_as_any() -> None:
    desk = Desk()
    for number in range(8):
        desk.says(f"slow{number}", ONE, up=1_000)
    for number in range(4):
        desk.says(f"fast{number}", ONE, most=1_000_000)
    desk.says("new", ONE)
    assert desk.last() == names("slow", 8)


def test_an_uplink_is_shared_by_the_swarms_of_its_peer() -> None:
    desk = Desk()
    for number in range(4):
        desk.says(f"free{number}", ONE, up=1_000_000)
        desk.says(f"busy{number}", ONE, OTHER, THIRD, TaskId("d" * 64), up=300_000)
    assert desk.last() == names("busy", 4)


def test_only_who_stands_at_the_keeper_and_wants_the_content_counts() -> None:
    desk = Desk()
    for number in range(4):
        desk.says(f"fast{number}", ONE, up=1_000_000)
        desk.says(f"slow{number}", ONE, up=1_000)
    desk.says("in a cell", ONE, up=1_000, stands=False)
    desk.says("has it", ONE, up=9_000_000_000, wants=False)
    assert desk.last() == names("slow", 4)


def test_one_alone_is_never_all_that_reads() -> None:
    desk = Desk()
    desk.says("fast", ONE, up=100_000_000)
    for number in range(8):
        desk.says(f"slow{number}", ONE, up=1_000)
    assert not desk.last()


def test_one_that_is_far_slower_comes_after_all_others() -> None:
    desk = Desk()
    desk.says("slow", ONE, up=10_000)
    for number in range(15):
        desk.says(f"p{number}", ONE, up=1_000_000)
    assert desk.last() == {"slow"}


def test_what_comes_later_in_order_leaves_their_common_origin_to_what_comes_first() -> None:
    desk = Desk()
    desk.says("a", ONE, left=90, keeps={ONE: ORIGIN})
    desk.says("b", OTHER, left=10, keeps={OTHER: ORIGIN})
    desk.says("c", THIRD, left=95, keeps={THIRD: ELSEWHERE})
    readers = {task: said.readers for task, said in desk.keepers().items()}
    assert readers == {OTHER: 0, ONE: READERS_BEHIND, THIRD: 0}
    desk.says("b", OTHER, left=10)
    assert desk.keepers()[ONE].readers == 0, "the one before it is read"


def test_the_urgent_come_first_then_those_with_the_least_left() -> None:
    desk = Desk()
    desk.says("a", ONE, left=80)
    desk.says("b", OTHER, left=10)
    desk.says("c", THIRD, left=90, priority=6)
    for name, task in (("a", ONE), ("b", OTHER)):
        desk.says(name, task, left={ONE: 80, OTHER: 10}[task], priority=3)
    desk.now = 1.0
    assert list(desk.advisor.order(desk.seen, desk.now)) == [THIRD, OTHER, ONE]


def test_two_that_are_about_as_far_do_not_take_turns() -> None:
    desk = Desk()
    desk.says("a", ONE, left=80)
    desk.says("b", OTHER, left=80)
    orders = []
    for step in range(1, 6):
        desk.now = float(step)
        desk.says("a", ONE, left=80 - step)
        desk.says("b", OTHER, left=79 - step)
        orders.append(list(desk.advisor.order(desk.seen, desk.now)))
    assert orders == [[ONE, OTHER]] * 5


def test_who_is_in_several_swarms_hears_their_order_also_of_those_it_only_serves() -> None:
    desk = Desk()
    desk.says("other", ONE, left=20)
    desk.says("another", OTHER, left=80)
    desk.says("both", OTHER, ONE, left=0, wants=False)
    assert desk.places()["both"] == [ONE, OTHER]
    desk.now = 2.0
    assert "both" not in desk.places(), "it was told"
    desk.now = 6.0
    assert desk.places()["both"] == [ONE, OTHER]
