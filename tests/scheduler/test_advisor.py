"""Whom a leader names to whom: near, idle, with what is lacked; and never more than a hint."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import Report, SwarmReport, ZoneReport
from peerd.scheduler.advisor import Advisor, AdvisorConfig
from peerd.scheduler.evaluator import (
    BAD,
    WORDS,
    Candidate,
    Child,
    Evaluator,
    Why,
    evaluate,
    reasons,
)
from peerd.scheduler.topology import Topology

TASK = TaskId("ab" * 32)


def candidate(**facts: object) -> Candidate:
    known: dict[str, object] = {
        "zone": "eu/fra", "seed": False, "wants": True, "progress": 0.5, "load_percent": 20,
        "children": 4, "border": None,
    }  # fmt: skip
    return Candidate(PeerId("c"), **(known | facts))  # type: ignore[arg-type]


CHILD = Child(PeerId("child"), "eu/fra", 0.2)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"children": 1}, {"children": 15}),
        ({"load_percent": 5}, {"load_percent": 95}),
        ({"zone": "eu/fra"}, {"zone": "eu/ams"}),
        ({"zone": "eu/ams"}, {"zone": "us/nyc"}),
        ({"zone": "us/nyc", "border": 1.0}, {"zone": "us/nyc", "border": 0.1}),
        ({"progress": 0.9, "wants": False}, {"progress": 0.3, "wants": False}),
        ({"wants": True}, {"wants": False}),
        ({"seed": True}, {"seed": False}),
    ],
)
def test_what_makes_a_better_parent(better: dict[str, object], worse: dict[str, object]) -> None:
    one, other = evaluate(CHILD, [candidate(**better), candidate(**worse)])
    assert one > other >= 0


def test_who_has_nothing_or_no_place_left_is_none() -> None:
    scores = evaluate(
        CHILD, [candidate(progress=0.0), candidate(children=20, load_percent=95), candidate()]
    )
    assert [score < 0 for score in scores] == [True, True, False]
    assert scores[0] == BAD


@pytest.mark.parametrize(
    ("apart", "why"),
    [
        ({"children": 0, "load_percent": 0}, Why.IDLE),
        ({"zone": "eu/fra"}, Why.NEAR),
        ({"progress": 1.0}, Why.AHEAD),
        ({"progress": 0.2}, Why.EXCHANGE),
        ({"seed": True}, Why.SEED),
    ],
)
def test_the_reason_is_what_sets_it_apart_from_the_others(
    apart: dict[str, object], why: Why
) -> None:
    usual: dict[str, object] = {"zone": "eu/ams", "progress": 0.6, "children": 8, "wants": True}
    if why is Why.AHEAD:
        usual["wants"] = False
    others = [candidate(**usual) for _ in range(5)]
    assert reasons(CHILD, [*others, candidate(**(usual | apart))])[-1] is why
    assert set(WORDS) == set(Why)


def test_nothing_is_said_of_one_that_is_like_the_others() -> None:
    alike = [candidate() for _ in range(4)]
    worse = candidate(zone="us/nyc", children=16)
    assert reasons(CHILD, [*alike, worse])[-1] is Why.SCORE
    assert set(reasons(CHILD, alike)) == {Why.SCORE}


def report(name: str, *, held: int = 50, wants: bool = True, children: int = 0) -> Report:
    swarm = SwarmReport(TASK, 100, 1 << 18, held, wants, True, 6, 1_000)
    return Report(PeerId(name), 10, 0, 0, 0, children, (swarm,), (), (), ())


class Desk:
    """A leader that sees some peers of one swarm."""

    def __init__(self, evaluator: Evaluator = evaluate, **config: object) -> None:
        self.seen = Topology()
        self.advisor = Advisor(Random(1), evaluator, AdvisorConfig(**config))  # type: ignore[arg-type]
        self.now = 0.0

    def says(self, name: str, zone: str = "", **facts: object) -> None:
        said = report(name, **facts)  # type: ignore[arg-type]
        self.seen.report(said, zone, self.now)
        if said.swarms[0].wants:
            self.advisor.noticed(TASK, said.peer)

    def advised(self) -> dict[PeerId, tuple[PeerId, ...]]:
        found = self.advisor.advise(self.seen, self.now)
        return {each.peer: tuple(parent.peer for parent in each.parents) for each in found}


def test_all_who_want_it_are_advised_and_nobody_is_named_to_itself() -> None:
    desk = Desk()
    for number in range(12):
        desk.says(f"p{number}")
    desk.says("done", held=100, wants=False)
    found = desk.advised()
    assert len(found) == 12
    assert PeerId("done") not in found
    for peer, parents in found.items():
        assert peer not in parents
        assert len(parents) == len(set(parents)) == 8


def test_again_when_its_time_has_come_and_newcomers_first() -> None:
    desk = Desk(at_once_max=1)
    desk.says("a")
    desk.says("b")
    assert set(desk.advised()) == {"a"}
    assert set(desk.advised()) == {"b"}
    assert desk.advised() == {}
    assert desk.advisor.deadline() == 5.0
    desk.now = 5.0
    desk.says("c")
    assert set(desk.advised()) == {"c"}
    assert set(desk.advised()) == {"a"}


def test_who_finds_nobody_with_anything_is_looked_after_again_soon() -> None:
    desk = Desk()
    desk.says("a", held=0)
    desk.says("b", held=0)
    assert desk.advised() == {}
    assert desk.advisor.deadline() == 1.0
    desk.now = 1.0
    desk.says("b", held=1)
    assert desk.advised() == {"a": ("b",)}


def test_who_left_or_is_done_is_advised_no_more() -> None:
    desk = Desk()
    for name in ("a", "b", "c"):
        desk.says(name)
    desk.advised()
    desk.says("a", held=100)
    desk.seen.forget(PeerId("b"))
    desk.now = 5.0
    assert set(desk.advised()) == {"c"}
    desk.now = 10.0
    desk.says("b")
    assert set(desk.advised()) == {"b", "c"}, "it is back"


def test_half_of_a_large_swarms_sample_is_near() -> None:
    desk = Desk()
    for number in range(200):
        desk.says(f"near{number}", zone="eu")
        desk.says(f"far{number}", zone="us")
        desk.says(f"out{number}", zone="asia")
    drawn = desk.seen.sample(TASK, "eu", 24, Random(3))
    assert sum(peer.startswith("near") for peer in drawn) == 12
    assert 20 <= len(drawn) <= 24
    parents = desk.advised()[PeerId("near7")]
    assert all(peer.startswith("near") for peer in parents), "they are as good, and nearer"


def test_what_crosses_a_border_best_is_named_first() -> None:
    desk = Desk()
    for number in range(4):
        desk.says(f"fast{number}", zone="fast")
        desk.says(f"slow{number}", zone="slow")
    desk.says("child", zone="here", held=1)
    measured = (ZoneReport("fast", 10_000, 5), ZoneReport("slow", 100, 5))
    desk.seen.report(Report(PeerId("child"), 0, 0, 0, 0, 0, (), (), measured, ()), "here", 0.0)
    parents = desk.advised()[PeerId("child")]
    kinds = [peer[:4] for peer in parents]
    assert kinds == sorted(kinds)
    assert {"fast", "slow"} == set(kinds)


def test_an_evaluator_of_an_operators_own_is_asked_and_may_say_too_little() -> None:
    def by_name(child: Child, candidates: Sequence[Candidate]) -> list[float]:
        return [float(each.peer[1:]) - 2 for each in candidates][:-1]

    desk = Desk(by_name)
    for number in range(6):
        desk.says(f"p{number}")
    parents = desk.advised()[PeerId("p0")]
    assert list(parents) == sorted(parents, reverse=True)
    assert PeerId("p1") not in parents, "below 0"


def test_one_that_comes_into_another_swarm_hears_of_its_place_in_both_at_once() -> None:
    desk, other = Desk(), TaskId("e" * 64)
    for name in ("a", "b"):
        desk.says(name)
    assert set(desk.advised()) == {"a", "b"}
    swarm = SwarmReport(other, 100, 1 << 18, 99, True, True, 6, 0)
    both = Report(PeerId("a"), 10, 0, 0, 0, 0, (swarm,), (), (), ())
    desk.now = 1.0
    desk.seen.report(both, "", desk.now)
    desk.advisor.noticed(other, both.peer)
    found = desk.advisor.advise(desk.seen, desk.now)
    assert {(each.task, each.place) for each in found} == {(other, 0), (TASK, 1)}
    assert {each.peer for each in found} == {"a"}, "nobody else's order has changed"
    desk.now = 5.9
    again = desk.advisor.advise(desk.seen, desk.now)
    assert [each.peer for each in again if each.task == TASK] == ["b"], "a heard it since"
    desk.now = 6.0
    assert TASK in {each.task for each in desk.advisor.advise(desk.seen, desk.now)}


def test_who_leads_no_more_advises_nobody() -> None:
    desk = Desk()
    desk.says("a")
    desk.says("b")
    desk.advisor.clear()
    assert desk.advised() == {}
    assert desk.advisor.deadline() == float("inf")


def test_decisions_a_second_are_those_of_the_last_ten() -> None:
    seen, advisor = Topology(), Advisor(Random(1))
    for number in range(20):
        seen.report(report(f"p{number}"), "eu/fra", 0.0)
        advisor.noticed(TASK, PeerId(f"p{number}"))
    advisor.advise(seen, 0.0)
    assert advisor.per_s(5.0) == 2.0
    assert advisor.per_s(11.0) == 0.0
