"""Whose complaints count: of holders who give nothing."""

from __future__ import annotations

import pytest

from peerd.link import messages as m
from peerd.scheduler.ports import STALLS
from peerd.scheduler.roster import SLOW_ITSELF_S
from tests.scheduler.desk import Desk


def one_left(holders: int) -> tuple[Desk, int, list[int]]:
    """All hold everything but one, which has none of it."""
    desk = Desk(range(1, holders + 2))
    *having, wanting = desk.order
    version = desk.version(having[0], 64)
    for number in having:
        desk.enrol(number, version=version, wants=False, room=None)
    desk.enrol(wanting, version=version, have=[], room=8)
    desk.later(5.0)
    return desk, wanting, having


def complain(desk: Desk, by: int, about: int, words: str = STALLS) -> None:
    desk.hear(by, m.Complaint(desk.task, 1, desk.id(about), words))


def get(desk: Desk, number: int, pieces: list[int]) -> None:
    kept = desk.core.kept(desk.task)
    assert kept is not None
    assert kept.version is not None
    bits = sum(1 << index for index in pieces)
    desk.hear(number, m.Progress(desk.task, kept.version.version, bits.to_bytes(8, "little")))


def trusted(desk: Desk, numbers: list[int]) -> list[int]:
    kept = desk.core.kept(desk.task)
    assert kept is not None
    return [number for number in numbers if kept.roster.trusted(desk.id(number))]


def test_for_whom_most_holders_stall_while_pieces_come_is_slow_itself() -> None:
    """Seen in the lab: the last one of six, at 1 % of its rate, had all others count no more."""
    desk, wanting, having = one_left(5)
    desk.forget()
    for turn in range(3):
        get(desk, wanting, list(range(turn + 1)))
        for number in having:
            complain(desk, wanting, number)
        desk.later(SLOW_ITSELF_S / 4)
    assert len(trusted(desk, having)) > len(having) // 2
    assert not desk.grants(wanting), "nothing is read again"


def test_for_whom_nothing_comes_for_long_all_stall() -> None:
    desk, wanting, having = one_left(5)
    for number in having:
        complain(desk, wanting, number)
    assert trusted(desk, having)
    desk.later(SLOW_ITSELF_S)
    for number in having:
        complain(desk, wanting, number)
    assert not trusted(desk, having)


@pytest.mark.parametrize("words", ["its links fail", "sent a wrong piece"])
def test_other_complaints_count_from_one_alone(words: str) -> None:
    desk, wanting, having = one_left(3)
    for number in having:
        complain(desk, wanting, number, words)
    desk.later(2.0)
    assert not trusted(desk, having)


def test_the_only_holder_that_stalls_counts_no_more_at_once() -> None:
    desk, wanting, (holder,) = one_left(1)
    complain(desk, wanting, holder)
    assert not trusted(desk, [holder])
