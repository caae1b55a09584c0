"""What a peer says of itself: what changed, once a second at most, and nothing when it is idle."""

from __future__ import annotations

from random import Random

from peerd.codec import encode
from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import (
    KEPT_MAX,
    REPORTS_MAX,
    SWARMS_MAX,
    ZONES_MAX,
    KeptReport,
    Report,
    SwarmReport,
    ZoneReport,
)
from peerd.scheduler.reporting import Facts, Relay, Reporter, ReporterConfig, Uplink

OWN = PeerId("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")


def task(number: int) -> TaskId:
    return TaskId(f"{number:064x}")


def facts(
    held: dict[int, int],
    *,
    rate: int = 1_000,
    load: int = 0,
    zones: dict[str, int] | None = None,
    keeps: dict[TaskId, int] | None = None,
) -> Facts:
    swarms = {
        task(n): SwarmReport(task(n), 100, 1 << 18, has, True, True, 6, rate)
        for n, has in held.items()
    }
    seen = {zone: ZoneReport(zone, rate, 10) for zone, rate in (zones or {}).items()}
    return Facts(load, 0, 0, 0, 0, swarms, seen, keeps or {})


class Desk:
    """A reporter whose leader was just found."""

    def __init__(self) -> None:
        self.reporter = Reporter(OWN, Random(1))
        self.now = 100.0
        self.reporter.anew(self.now)

    def next(self, known: Facts) -> Report | None:
        self.now = self.reporter.deadline()
        return self.reporter.look(known, self.now)


def test_all_is_said_to_a_new_leader_after_a_pause_by_chance() -> None:
    desk = Desk()
    assert 100.0 <= desk.reporter.deadline() <= 101.0
    said = desk.next(facts({1: 5, 2: 7}, zones={"eu": 9}))
    assert said is not None
    assert [swarm.held for swarm in said.swarms] == [5, 7]
    assert [zone.zone for zone in said.zones] == ["eu"]


def test_then_what_changed_once_a_second() -> None:
    desk = Desk()
    desk.next(facts({1: 5, 2: 7}))
    before = desk.now
    said = desk.next(facts({1: 5, 2: 8}))
    assert said is not None
    assert [swarm.task for swarm in said.swarms] == [task(2)]
    assert desk.now == before + 1.0
    assert desk.reporter.look(facts({1: 6}), desk.now + 0.5) is None, "not so soon"


def test_nothing_changed_is_not_said_but_that_it_is_there() -> None:
    desk = Desk()
    known = facts({1: 5}, zones={"eu": 1_000})
    desk.next(known)
    assert [desk.next(known) is not None for _ in range(41)].count(True) == 2, "in ten seconds"


def test_rates_that_differ_by_little_are_not_news() -> None:
    desk = Desk()
    desk.next(facts({1: 5}, rate=1_000, load=10))
    assert desk.next(facts({1: 5}, rate=1_200, load=15)) is None
    said = desk.next(facts({1: 5}, rate=1_500, load=15))
    assert said is not None
    assert said.swarms[0].down_bytes_s == 1_500
    said = desk.next(facts({1: 5}, rate=1_500, load=60))
    assert said is not None
    assert not said.swarms
    assert said.load_percent == 60


def test_who_is_in_no_swarm_says_so_once_and_then_nothing() -> None:
    desk = Desk()
    desk.next(facts({1: 5}))
    said = desk.next(facts({}, load=90, zones={"eu": 5}))
    assert said is not None
    assert said.gone == (task(1),)
    assert all(desk.next(facts({}, load=load)) is None for load in (0, 50, 100))


def test_without_a_leader_nothing_is_due() -> None:
    desk = Desk()
    desk.reporter.stop()
    assert desk.reporter.deadline() == float("inf")


def test_many_swarms_are_said_one_part_after_the_other() -> None:
    desk = Desk()
    known = facts(dict.fromkeys(range(20), 1), zones={f"z{n}": 1 for n in range(20)})
    told: set[TaskId] = set()
    for _ in range(3):
        said = desk.next(known)
        assert said is not None
        assert len(said.swarms) <= SWARMS_MAX
        assert len(said.zones) <= ZONES_MAX
        told.update(swarm.task for swarm in said.swarms)
    assert len(told) == 20


def test_a_peer_says_less_than_two_kilobytes_a_second() -> None:
    """Issue 4, item 6: the largest report, and what a download of one task says each second."""
    zone = "x" * 128
    largest = Report(
        OWN, 100, (1 << 40) - 1, (1 << 40) - 1, (1 << 40) - 1, (1 << 31) - 1,
        tuple(
            SwarmReport(task(n), 1 << 22, 1 << 24, 1 << 22, True, True, 6, 1 << 39)
            for n in range(SWARMS_MAX)
        ),
        (), tuple(ZoneReport(zone, 1 << 39, 1 << 16) for _ in range(ZONES_MAX)),
        tuple(KeptReport(task(n), 1 << 61) for n in range(KEPT_MAX)),
    )  # fmt: skip
    assert len(encode(largest)) <= 2_000
    desk = Desk()
    desk.next(facts({1: 0}))
    said = [desk.next(facts({1: second}, rate=1_000 * 2**second)) for second in range(1, 20)]
    assert max(len(encode(each)) for each in said) <= 160


def test_what_is_passed_on_goes_in_batches_and_the_way_back_is_known() -> None:
    relay = Relay(ReporterConfig(waiting_max=150))
    reports = [
        Report(PeerId(f"p{number}"), 0, 0, 0, 0, 0, (), (), (), ())
        for number in range(2 * REPORTS_MAX)
    ]
    children = [PeerId("child"), PeerId("other")]
    relay.take(PeerId("child"), reports, 5.0, children)
    assert relay.due == 5.2
    relay.take(PeerId("other"), reports, 5.1, children)
    assert relay.dropped == 2 * len(reports) - 150
    assert [len(batch.reports) for batch in relay.flush()] == [64, 64, 22]
    assert relay.due == float("inf")
    assert relay.flush() == []
    assert relay.ways[PeerId("p127")] == PeerId("child")
    relay.take(PeerId("other"), reports[:1], 6.0, direct=[PeerId("p0")])
    assert relay.ways[PeerId("p0")] == PeerId("p0"), "it is subscribed here itself"
    relay.lost(PeerId("child"))
    assert PeerId("p127") not in relay.ways
    relay.flush()
    relay.take(OWN, reports[:1], 7.0)
    assert relay.due == 7.0, "with nobody who reports over this peer there is nothing to wait for"


def test_what_begins_is_said_soon_and_yet_no_more_than_one_report_a_second() -> None:
    desk = Desk()
    assert desk.next(facts({})) is None
    began = desk.now
    assert desk.next(facts({1: 0})) is not None
    assert desk.now - began <= 0.25
    said_at = desk.now
    assert desk.next(facts({1: 1})) is not None
    assert desk.now - said_at == 1.0


def test_a_download_that_found_its_keeper_is_said_at_once() -> None:
    desk = Desk()
    assert desk.next(facts({})) is None
    desk.reporter.began(desk.now)
    assert desk.reporter.deadline() == desk.now
    assert desk.next(facts({1: 0}, keeps={task(1): 7})) is not None
    desk.reporter.began(desk.now + 0.1)
    assert desk.reporter.deadline() == desk.now + 1.0, "but once a second at most"
    desk.reporter.stop()
    desk.reporter.began(desk.now)
    assert desk.reporter.deadline() == float("inf"), "nobody hears it"


def test_who_keeps_a_task_says_so_though_it_is_in_no_swarm() -> None:
    desk = Desk()
    said = desk.next(facts({}, keeps={task(1): 7}))
    assert said is not None
    assert said.keeps == (KeptReport(task(1), 7),)
    assert desk.next(facts({}, keeps={task(1): 7})) is None
    said = desk.next(facts({}))
    assert said is not None
    assert said.keeps == (), "it is read"
    assert [desk.next(facts({})) for _ in range(50)] == [None] * 50


def test_an_uplink_is_what_went_while_several_were_served() -> None:
    uplink = Uplink()
    for sent, busy_s in ((100, 0.0), (900, 0.3), (500, 0.5), (1_000, 1.0)):
        uplink.sent(sent, 1.0, busy_s)
    assert uplink.full_bytes_s == 1_000
    assert uplink.most_bytes_s == 1_000
    for _ in range(8):
        uplink.sent(200, 1.0, 1.0)
    assert 200 <= uplink.full_bytes_s < 220
    assert uplink.most_bytes_s == 1_000
