"""Readers whose pieces reach nobody: others read instead, and what is stuck is read again."""

from __future__ import annotations

from peerd.link import messages as m
from peerd.link.messages import LeaseKind
from peerd.scheduler.keeper_events import KeeperConfig
from tests.scheduler.desk import Desk

PIECES = 400


def reads(desk: Desk, number: int) -> list[m.LeaseInfo]:
    return [x for x in desk.leases(number) if x.kind is LeaseKind.READ]


class Swarm:
    """All but the keeper read one piece each 100 ms, and fetch from each other but for `stuck`."""

    def __init__(self, numbers: int = 9, pieces: int = PIECES) -> None:
        self.desk = desk = Desk(range(1, numbers + 1), config=KeeperConfig(audit_share=0.0))
        self.readers = desk.order[1:]
        self.made: dict[int, set[int]] = {number: set() for number in self.readers}
        self.stuck: set[int] = set()
        first, *others = self.readers
        desk.enrol(first, room=4)
        desk.later(1.0)
        desk.ask(first, 4)
        self.version = desk.resolve(first, pieces)
        self.made[first].add(0)
        for number in others:
            desk.enrol(number, room=4)

    def turn(self) -> None:
        self.desk.later(0.1)
        for number in self.readers:
            for lease in reads(self.desk, number)[:1]:
                self.desk.finish(number, lease)
                self.made[number].add(lease.first)

    def tell(self) -> None:
        spread = {
            x for number in self.readers if number not in self.stuck for x in self.made[number]
        }
        for number in self.readers:
            have = sum(1 << index for index in spread | self.made[number])
            data = have.to_bytes((PIECES + 7) // 8, "little")
            self.desk.hear(number, m.Progress(self.desk.task, self.version.version, data))

    def run(self, seconds: float) -> None:
        for turn in range(round(seconds / 0.1)):
            self.turn()
            if turn % 5 == 4:
                self.tell()


def test_whose_pieces_do_not_spread_reads_no_more_and_is_read_for() -> None:
    swarm = Swarm()
    slow = swarm.readers[2]
    swarm.stuck = {slow}
    swarm.run(4.0)
    stuck = set(swarm.made[slow])
    assert len(stuck) <= 8, "what it read before anybody said what spread"
    assert all(len(swarm.made[x]) > 20 for x in swarm.readers if x != slow)
    swarm.run(3.0)
    assert swarm.made[slow] == stuck
    again = [x for x in stuck for n in swarm.readers if n != slow and x in swarm.made[n]]
    assert len(again) == 4, "one percent"
    assert swarm.desk.core.unneeded_reads(swarm.desk.task) == {"alone": 4}


def test_who_spreads_its_pieces_reads_on() -> None:
    swarm = Swarm()
    swarm.run(3.0)
    counts = [len(made) for made in swarm.made.values()]
    assert min(counts) * 2 > max(counts)
    assert not swarm.desk.core.unneeded_reads(swarm.desk.task)


def test_nobody_is_passed_over_where_all_are_equally_behind() -> None:
    swarm = Swarm()
    swarm.stuck = set(swarm.readers)
    swarm.run(3.0)
    assert all(len(made) > 15 for made in swarm.made.values())


def test_nor_who_reads_alone() -> None:
    swarm = Swarm(numbers=2)
    swarm.stuck = set(swarm.readers)
    swarm.run(3.0)
    assert len(swarm.made[swarm.readers[0]]) > 25


def test_nor_where_no_other_can_read() -> None:
    swarm = Swarm(numbers=3)
    one, other = swarm.readers
    swarm.stuck = {one}
    swarm.run(0.5)
    for lease in reads(swarm.desk, other):
        swarm.desk.report(other, lease.lease, m.Outcome.REFUSED)
    swarm.run(3.0)
    assert len(swarm.made[one]) > 25


def test_once_all_is_read_the_piece_that_one_alone_has_far_too_long_is_read_again() -> None:
    """It may have a piece to itself, but not while nothing else is left to wait for."""
    swarm = Swarm()
    slow = swarm.readers[2]
    swarm.stuck = {slow}
    swarm.turn()
    swarm.desk.ask(slow, 0)
    for lease in reads(swarm.desk, slow):
        swarm.desk.report(slow, lease.lease, m.Outcome.RETURNED)
    swarm.run(4.0)
    (stuck,) = swarm.made[slow]
    assert not any(stuck in swarm.made[x] for x in swarm.readers if x != slow)
    swarm.run(6.0)
    assert any(stuck in swarm.made[x] for x in swarm.readers if x != slow)
    assert swarm.desk.core.unneeded_reads(swarm.desk.task) == {"alone": 1}


def test_nothing_is_read_again_while_one_holder_feeds_those_who_come() -> None:
    """It alone has had all of it for long; what they lack is on its way."""
    desk = Desk(range(1, 7))
    _, holder, idle, *others = desk.order
    version = desk.version(holder, PIECES)
    desk.enrol(holder, version=version, wants=False, prior=1, room=None)
    desk.enrol(idle, version=version, have=(), wants=False, room=None)
    for _ in range(20):
        desk.later(1.0)
        desk.hear(idle, m.Progress(desk.task, version.version, bytes(PIECES // 8)))
    for number in others:
        desk.enrol(number, version=version, have=())
    for got in range(1, 40):
        desk.later(0.5)
        have = ((1 << got) - 1).to_bytes(PIECES // 8, "little")
        for number in others:
            desk.hear(number, m.Progress(desk.task, version.version, have))
        assert not any(desk.grants(number) for number in others)
