"""Pieces that somebody holds, read again for a member that would be slower than directly."""

from __future__ import annotations

from collections.abc import Iterable

from peerd.ids import PieceIndex
from peerd.link import messages as m
from peerd.link.messages import LeaseKind
from peerd.scheduler.keeper_events import KeeperConfig
from tests.scheduler.desk import Desk

PIECES = 400
BUDGET = 4
"""One percent."""


class Late:
    """`holder` has the first ten pieces and cannot read; `member` reads, one piece each 10 ms."""

    def __init__(self, members: int = 3, read: bool = True) -> None:
        self.desk = desk = Desk(range(1, members + 1), config=KeeperConfig(audit_share=0.0))
        self.holder, self.member, *self.others = desk.order
        self.version = desk.version(self.holder, PIECES)
        desk.enrol(
            self.holder, room=0, version=self.version, have=range(10), access=m.Access.REFUSED
        )
        desk.later(1.0)
        for number in (self.member, *self.others):
            desk.enrol(number, room=4 if number == self.member and read else None)
        for _ in range(20):
            self.desk.later(0.01)
            for lease in self.reads()[:1]:
                desk.finish(self.member, lease)

    def reads(self, number: int | None = None) -> list[m.LeaseInfo]:
        return [
            x for x in self.desk.leases(number or self.member)
            if x.kind is LeaseKind.READ
        ]  # fmt: skip

    def hedged(self, number: int | None = None) -> set[int]:
        """Pieces leased to it that the holder has."""
        covered = {
            x for each in self.reads(number) for x in range(each.first, each.first + each.count)
        }
        return covered & set(range(10))

    def ask(self, indices: Iterable[int], expected_s: float, number: int | None = None) -> None:
        wanted = tuple(PieceIndex(index) for index in indices)
        kept = self.desk.core.kept(self.desk.task)
        assert kept is not None
        self.desk.hear(
            number or self.member,
            m.HedgeAsk(
                self.desk.task, kept.term, self.version.version, wanted,
                (expected_s,) * len(wanted), PIECES,
            ),
        )  # fmt: skip


def test_pieces_that_would_come_late_are_granted_within_the_budget() -> None:
    late = Late()
    assert not late.hedged()
    late.ask(range(1, 10), 1000.0)
    assert len(late.hedged()) == BUDGET
    assert late.desk.core.unneeded_reads(late.desk.task) == {"hedge": BUDGET}
    late.ask(range(1, 10), 2000.0)
    assert len(late.hedged()) == BUDGET, "it is spent"


def test_what_comes_in_time_is_not_read_again() -> None:
    late = Late()
    late.ask(range(1, 10), 0.5)
    assert not late.hedged()


def test_a_piece_is_hedged_once_for_all() -> None:
    late = Late(members=4)
    late.ask([3], 1000.0)
    late.ask([3], 1000.0, late.others[0])
    assert late.hedged() == {3}
    assert not late.hedged(late.others[0])


def test_what_most_members_lack_goes_first() -> None:
    late = Late(members=5)
    have = sum(1 << index for index in range(1, 6))
    data = have.to_bytes((PIECES + 7) // 8, "little")
    for number in late.others:
        late.desk.hear(number, m.Progress(late.desk.task, late.version.version, data))
    late.ask(range(1, 10), 1000.0)
    assert late.hedged() == {6, 7, 8, 9}


def test_audits_and_hedges_draw_on_one_budget() -> None:
    late = Late()
    kept = late.desk.core.kept(late.desk.task)
    assert kept is not None
    assert kept.audits.spend(3) == 3
    late.ask(range(1, 10), 1000.0)
    assert len(late.hedged()) == BUDGET - 3


def test_where_nobody_has_read_yet_one_piece_tells_how_fast_the_origin_is() -> None:
    late = Late(read=False)
    late.ask(range(1, 10), 0.9 * PIECES)
    assert not late.hedged()
    late.ask(range(1, 10), 1.1 * PIECES)
    late.ask(range(1, 10), 1.1 * PIECES)
    assert len(late.hedged()) == 1


def test_who_may_not_read_is_granted_none() -> None:
    late = Late()
    late.ask([12], 1000.0, late.holder)
    assert not late.reads(late.holder)


def test_another_version_is_not_hedged() -> None:
    late = Late()
    late.version = late.desk.version(late.holder, PIECES + 1)
    late.ask(range(1, 10), 1000.0)
    assert not late.hedged()
