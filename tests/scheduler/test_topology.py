"""What a leader sees: what peers said, of members alone, for as long as they speak, and no more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import KeptReport, Report, SwarmReport, ZoneReport
from peerd.scheduler.topology import Topology, TopologyConfig


def task(number: int) -> TaskId:
    return TaskId(f"{number:064x}")


def report(
    number: int, *, held: int = 0, tasks: tuple[int, ...] = (1,), gone: tuple[int, ...] = (),
    zones: tuple[ZoneReport, ...] = (), load: int = 0, up: int = 0, keeps: tuple[int, ...] = (),
) -> Report:  # fmt: skip
    swarms = tuple(SwarmReport(task(n), 100, 1 << 18, held, True, True, 6, 1_000) for n in tasks)
    kept = tuple(KeptReport(task(n), 7) for n in keeps)
    left = tuple(map(task, gone))
    return Report(PeerId(f"p{number}"), load, 500, up, up, 2, swarms, left, zones, kept)


def test_it_knows_who_is_in_which_swarm_and_how_far() -> None:
    seen = Topology()
    seen.report(report(1, held=25, load=40), "eu", 0.0)
    seen.report(report(2, held=100, tasks=(1, 2)), "us", 1.0)
    seen.validate()
    assert set(seen.tasks) == {task(1), task(2)}
    assert seen.tasks[task(1)][PeerId("p1")].progress == 0.25
    assert seen.peers[PeerId("p1")].load_percent == 40
    assert seen.peers[PeerId("p2")].zone == "us"
    assert seen.heard_at == 1.0


def test_a_report_says_what_changed_and_the_rest_stands() -> None:
    seen = Topology()
    seen.report(report(1, held=25, tasks=(1, 2)), "", 0.0)
    seen.report(report(1, held=50, tasks=(2,)), "", 1.0)
    assert [seen.tasks[task(n)][PeerId("p1")].held for n in (1, 2)] == [25, 50]
    seen.report(report(1, tasks=(), gone=(1,)), "", 2.0)
    seen.validate()
    assert set(seen.tasks) == {task(2)}


def test_more_pieces_than_there_are_is_all_of_them() -> None:
    seen = Topology()
    seen.report(report(1, held=1_000), "", 0.0)
    assert seen.tasks[task(1)][PeerId("p1")].progress == 1.0


def test_who_says_nothing_is_forgotten_and_who_goes_on_is_not() -> None:
    seen = Topology()
    seen.report(report(1), "", 0.0)
    seen.report(report(2), "", 0.0)
    seen.report(report(2, tasks=()), "", 10.0)
    seen.expire(seen.deadline())
    seen.validate()
    assert set(seen.peers) == {PeerId("p2")}
    assert set(seen.tasks[task(1)]) == {PeerId("p2")}
    assert seen.deadline() == 25.0
    seen.expire(25.0)
    assert not seen.peers
    assert not seen.tasks


def test_of_what_crosses_a_border_the_best_counts_until_it_is_old() -> None:
    seen = Topology()

    def measured(rate: int, now: float) -> float:
        seen.report(report(1, zones=(ZoneReport("us", rate, 80),)), "eu", now)
        return seen.borders["us", "eu"].down_bytes_s

    assert measured(1_000, 0.0) == 1_000
    assert measured(2_000, 1.0) == 2_000
    assert 1_700 < measured(1_000, 2.0) < 2_000, "one slow receiver is not the border's rate"
    assert measured(500, 100.0) == 500
    assert seen.borders["us", "eu"].round_trip_s == 0.08
    assert ("eu", "us") not in seen.borders


def test_who_stands_by_from_now_on_is_told_all() -> None:
    seen, other = Topology(), Topology()
    zones = tuple(ZoneReport(f"z{n}", n, n) for n in range(8))
    for number in range(1, 5):
        seen.report(report(number, held=number, tasks=(1, 2), zones=zones), "eu", 0.0)
    for first in range(0, 20, 8):
        seen.report(report(9, tasks=tuple(range(first, min(20, first + 8)))), "us", 0.0)
    for said in seen.as_reports():
        other.report(said, seen.peers[said.peer].zone, 1.0)
    other.validate()
    assert other.tasks == seen.tasks
    assert other.peers.keys() == seen.peers.keys()
    assert other.borders.keys() == seen.borders.keys()


def test_there_is_no_more_than_there_is_room_for() -> None:
    seen = Topology(TopologyConfig(peers_max=3, swarms_of_peer_max=2, zones_max=1))
    for number in range(5):
        zones = (ZoneReport(f"z{number}", 1, 1),)
        seen.report(report(number, tasks=(1, 2, 3), zones=zones), "eu", 0.0)
        seen.validate()
    assert len(seen.peers) == 3
    assert set(seen.tasks) == {task(1), task(2)}
    assert len(seen.borders) == 1


def test_who_leads_no_more_forgets_all() -> None:
    seen = Topology()
    seen.report(report(1), "", 0.0)
    seen.clear()
    seen.validate()
    assert not seen.peers
    assert not seen.tasks
    assert seen.deadline() == float("inf")


@settings(deadline=None)
@given(st.data())
def test_whatever_is_said_the_picture_fits_together(data: st.DataObject) -> None:
    seen = Topology(TopologyConfig(peers_max=4, swarms_of_peer_max=3, zones_max=2))
    numbers = st.integers(1, 6)
    now = 0.0
    for _ in range(40):
        now += data.draw(st.sampled_from([0.0, 0.5, 5.0, 16.0]))
        seen.expire(now)
        if data.draw(st.booleans()):
            seen.forget(PeerId(f"p{data.draw(numbers)}"))
        else:
            few = st.lists(numbers, max_size=4).map(tuple)
            zones = tuple(
                ZoneReport(f"z{n}", data.draw(st.integers(0, 9)), 1) for n in data.draw(few)
            )
            said = report(
                data.draw(numbers), held=data.draw(st.integers(0, 200)), tasks=data.draw(few),
                gone=data.draw(few), zones=zones,
            )  # fmt: skip
            seen.report(said, data.draw(st.sampled_from(["", "eu", "us"])), now)
        seen.validate()


def test_what_an_uplink_can_do_is_remembered_of_those_who_fell_silent() -> None:
    seen = Topology(TopologyConfig(peers_max=2))
    seen.report(report(1, up=500), "", 0.0)
    seen.expire(100.0)
    assert not seen.peers
    assert seen.uplinks == {PeerId("p1"): (500, 500)}
    seen.report(report(2, up=600), "", 100.0)
    seen.report(report(1, up=0), "", 100.0)
    assert seen.uplinks[PeerId("p1")] == (500, 500), "nothing new is known of it"
    seen.report(report(2, up=700), "", 100.0)
    seen.report(report(1, up=900), "", 100.0)
    seen.validate()
    assert seen.uplinks == {PeerId("p2"): (700, 700), PeerId("p1"): (900, 900)}


def test_who_keeps_a_task_is_known_until_it_keeps_it_no_more_or_falls_silent() -> None:
    seen = Topology()
    seen.report(report(1, keeps=(1, 2)), "", 0.0)
    seen.report(report(2, keeps=(2,)), "", 1.0)
    seen.validate()
    assert seen.keepers == {task(1): PeerId("p1"), task(2): PeerId("p2")}
    seen.report(report(1), "", 2.0)
    assert seen.keepers == {task(2): PeerId("p2")}, "of two the last one counts"
    seen.expire(100.0)
    seen.validate()
    assert not seen.keepers
