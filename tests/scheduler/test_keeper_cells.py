"""The keeper of a cell: some stand for it, and what they are told above is told to all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from peerd import cells
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link import messages as m
from peerd.manifest import VersionInfo
from peerd.rendezvous import ranked
from peerd.scheduler.keeper_cells import HELD_EVERY_S, STUCK_S
from peerd.scheduler.keeper_events import MembersChanged, News, NewsFrom
from peerd.zones import seat_id
from tests.scheduler.desk import Desk
from tests.scheduler.world import SPEC, TASK, key, member

GROUP = range(1, 1001)
BITS = cells.bits_for(len(GROUP))
CELL = cells.path(key(1).peer_id, BITS)[0]
INSIDE = [n for n in GROUP if cells.lies_in(key(n).peer_id, "", f"#{CELL}")]
OUTSIDE = [n for n in GROUP if n not in INSIDE]
SEAT = cells.cell_seat(TASK, CELL)
ENOUGH = cells.delegates(CELL)
assert ENOUGH == 1, "five bits: one from each of 32"


class CellDesk(Desk):
    """The core keeps the cell of peer 1, in a group of a thousand."""

    def __init__(self, seeds: Iterable[int] = ()) -> None:
        best = ranked((key(n).peer_id for n in INSIDE), SEAT)
        by_id = {key(n).peer_id: n for n in INSIDE}
        super().__init__(GROUP, own=by_id[best[0]], seeds=seeds)
        self.task, self.order = SEAT, [by_id[peer] for peer in best]
        self.above = ranked((key(n).peer_id for n in GROUP), TASK)

    def join(
        self, number: int, *, wide: bool = True, scope: str = f"#{CELL}", delegate: bool = False,
        access: m.Access = m.Access.UNKNOWN, version: VersionInfo | None = None, have: int = 0,
        prior: int = 0,
    ) -> None:  # fmt: skip
        bitmap = have.to_bytes(2, "little") if version is not None else b""
        self.hear(
            number,
            m.Enrol(SEAT, SPEC, (), (), prior, True, access, "", number in self.seeds, version,
                    bitmap, (), scope, TASK if wide else None, delegate),
        )  # fmt: skip

    def open(self, numbers: Iterable[int] = INSIDE[:6]) -> CellDesk:
        for number in numbers:
            self.join(number)
        self.later(1.0)  # Those who rank next were asked.
        return self

    def standing(self) -> list[int]:
        return [n for n in INSIDE if self.to(n, m.Delegate)]

    def news(self, message: News, by: PeerId | None = None) -> None:
        self.event(NewsFrom(by or self.above[0], message))

    def told(self, number: int) -> list[VersionInfo]:
        """The versions that it heard of."""
        enrolled = [each.version for each in self.to(number, m.Enrolled)]
        updates = [each.version for each in self.to(number, m.RosterUpdate)]
        return [version for version in (*enrolled, *updates) if version is not None]


def info(number: int = 7, pieces: int = 16) -> VersionInfo:
    return Desk().version(number, pieces)


def test_some_stand_for_the_cell_and_nobody_is_granted_a_lease() -> None:
    desk = CellDesk().open()
    assert len(desk.standing()) == ENOUGH
    for number in INSIDE[:6]:
        desk.ask(number, 4)
    assert not any(desk.grants(number) for number in INSIDE)


def test_seed_peers_stand_besides_the_others() -> None:
    desk = CellDesk(seeds=INSIDE[4:6]).open()
    assert set(INSIDE[4:6]) < set(desk.standing())
    assert len(desk.standing()) == ENOUGH + 2


@pytest.mark.parametrize("why", ["left", "refused", "lost"])
def test_a_delegate_that_cannot_is_replaced(why: str) -> None:
    desk = CellDesk().open()
    first = desk.standing()[0]
    if why == "left":
        desk.hear(first, m.Withdraw(SEAT))
    elif why == "refused":
        desk.join(first, access=m.Access.REFUSED)
    else:
        desk.lost(first)
        desk.undelivered(first)
    assert len(set(desk.standing()) - {first}) == ENOUGH


def test_when_nothing_comes_more_stand_but_not_all() -> None:
    desk = CellDesk().open(INSIDE[:12])
    desk.later(STUCK_S + 0.1)
    assert len(desk.standing()) == ENOUGH + 1
    desk.later(10 * STUCK_S)
    assert len(desk.standing()) == 2 * ENOUGH


@pytest.mark.parametrize("part", range(12))
def test_it_is_never_due_again_at_the_time_that_it_was_due(part: int) -> None:
    """Sums of floats: 10 s in virtual time took for ever."""
    desk = CellDesk()
    desk.now += part / 7
    desk.open()
    desk.news(m.Enrolled(TASK, 5, info(), 0.0, ()))
    for _ in range(400):
        before = desk.now
        desk.later(max(0.0, desk.core.deadline() - desk.now))
        desk.later(1e-6)
        assert desk.core.deadline() > before
    assert desk.now > before


def test_what_the_wider_keeper_says_of_the_content_is_told_to_all() -> None:
    desk = CellDesk().open()
    version = info()
    desk.news(m.Enrolled(TASK, 5, version, 0.0, ()))
    assert all(version in desk.told(number) for number in INSIDE[:6])
    desk.join(INSIDE[8])
    assert version in desk.told(INSIDE[8])


def test_a_member_does_not_say_what_the_content_is_once_the_wider_keeper_has() -> None:
    desk = CellDesk().open()
    lie, version = info(3, 12), info(7, 16)
    desk.join(INSIDE[0], version=lie)
    desk.news(m.Enrolled(TASK, 5, version, 0.0, ()))
    assert desk.told(INSIDE[3])[-1] == version
    desk.join(INSIDE[0], version=lie)
    desk.join(INSIDE[9])
    assert desk.told(INSIDE[9]) == [version]


def test_news_count_from_who_can_keep_the_wider_seat_and_of_no_older_term() -> None:
    desk = CellDesk().open()
    desk.news(m.Enrolled(TASK, 5, info(), 0.0, ()), by=desk.above[500])
    assert not any(desk.told(number) for number in INSIDE)
    desk.news(m.Enrolled(TASK, 5, info(), 0.0, ()))
    desk.forget()
    desk.news(m.RosterUpdate(TASK, 4, info(3, 8), (), ()), by=desk.above[1])
    assert not any(desk.told(number) for number in INSIDE)


def test_a_version_of_other_content_is_refused() -> None:
    desk = CellDesk().open()
    other = m.RosterUpdate(TASK, 5, info().__class__(
        TASK[::-1], "b" * 64, 5, 262_144, None, True, None, key(7).peer_id, bytes(64)  # type: ignore[arg-type]
    ).signed(key(7)), (), ())  # fmt: skip
    with pytest.raises(RemoteProtocolError):
        desk.news(other)
    assert not any(desk.told(number) for number in INSIDE)


def test_a_verdict_from_above_reaches_all_who_are_and_who_come() -> None:
    desk = CellDesk().open()
    version, liar = info(), key(INSIDE[1]).peer_id
    desk.news(m.Enrolled(TASK, 5, version, 0.0, ()))
    for _ in range(2):
        desk.news(m.Verdict(TASK, 5, version.version, liar, "wrong bytes"))
    assert [len(desk.to(n, m.Verdict)) for n in INSIDE[:6]] == [1] * 6
    desk.join(INSIDE[8])
    assert desk.to(INSIDE[8], m.Verdict)[0].attester == liar


def test_who_is_refused_is_replaced_until_nobody_is_left() -> None:
    desk = CellDesk().open()
    desk.news(m.Unreadable(TASK, 5, "origin-refused", "401"))
    assert not any(desk.to(number, m.Unreadable) for number in INSIDE)
    desk.news(m.Unreadable(TASK, 5, "origin-not-found", "404"))
    assert all(desk.to(number, m.Unreadable) for number in INSIDE[:6])


def test_who_has_a_dispute_is_let_speak_for_itself_but_not_all_at_once() -> None:
    desk = CellDesk().open(INSIDE[:10])
    others = [n for n in INSIDE[:10] if n not in desk.standing()]
    for number in others:
        desk.hear(number, m.Dispute(SEAT, 1, info().version, ()))
        desk.hear(number, m.Dispute(SEAT, 1, info().version, ()))
    assert len([n for n in others if desk.to(n, m.Delegate)]) == 2


def test_a_keeper_that_follows_knows_who_stands_and_grants_it_to_nobody_else() -> None:
    desk = CellDesk()
    for number in INSIDE[:6]:
        desk.join(number, delegate=number in INSIDE[:ENOUGH], prior=3)
    desk.later(1.0)
    assert desk.standing() == []


def test_a_cell_that_holds_all_sends_nobody_up() -> None:
    desk = CellDesk()
    version = info()
    desk.join(INSIDE[0], version=version, have=0xFFFF)
    desk.later(1.0)
    desk.forget()
    desk.news(m.Enrolled(TASK, 5, version, 0.0, ()))
    desk.join(INSIDE[3])
    assert version in desk.told(INSIDE[3])
    assert not desk.to(INSIDE[3], m.Delegate)


@pytest.mark.parametrize(
    ("number", "scope", "wide"),
    [(INSIDE[0], CELL[:-1], True), (INSIDE[0], CELL, False), (OUTSIDE[0], CELL, True)],
)
def test_an_enrol_that_does_not_fit_is_refused(number: int, scope: str, wide: bool) -> None:
    desk = CellDesk()
    with pytest.raises(RemoteProtocolError):
        desk.join(number, scope=f"#{scope}", wide=wide)


# --- the wider keeper's side


class ZoneCellDesk(Desk):
    """The core keeps one cell of scope `eu` of a version, in a zone of a thousand."""

    def __init__(self) -> None:
        self.info = info()
        self.wide = seat_id(self.info.version, "eu")
        seat = cells.cell_seat(self.wide, CELL)
        best = ranked((key(n).peer_id for n in INSIDE), seat)[0]
        super().__init__(GROUP, own=next(n for n in INSIDE if key(n).peer_id == best))
        self.task, self.scope = seat, cells.scope_of("eu", CELL)
        self.above = ranked((key(n).peer_id for n in GROUP), self.wide)[0]
        for number in INSIDE[:6]:
            self.hear(
                number,
                m.Enrol(seat, None, (), (), 0, True, m.Access.UNKNOWN, "eu", False, self.info,
                        bytes(2), (), self.scope, self.wide),
            )  # fmt: skip
        self.later(1.0)
        self.event(NewsFrom(self.above, m.Enrolled(self.wide, 5, self.info, 0.0, ())))

    def members(self, numbers: Iterable[int], synced: bool = True) -> None:
        self.event(MembersChanged(tuple(member(n, zone="eu") for n in numbers), synced))

    def holds(self, number: int, have: int) -> None:
        held = have.to_bytes(2, "little")
        self.hear(number, m.Progress(self.task, self.info.version, held))

    def said(self) -> list[tuple[PeerId, m.CellHolds]]:
        return [(x.peer, x.message) for x in self.sent if isinstance(x.message, m.CellHolds)]


def test_the_cell_of_a_zone_says_above_what_it_holds_soon_and_not_twice() -> None:
    desk = ZoneCellDesk()
    assert not desk.said()
    desk.holds(INSIDE[0], 0b001)
    [(to, said)] = desk.said()
    assert (to, said) == (desk.above, m.CellHolds(desk.wide, desk.info.version, b"\x01\x00"))
    desk.holds(INSIDE[1], 0b001)
    desk.holds(INSIDE[2], 0b010)
    desk.holds(INSIDE[3], 0b100)
    desk.later(HELD_EVERY_S)
    assert [said.have for _, said in desk.said()] == [b"\x01\x00", b"\x07\x00"], (
        "gathered for a while"
    )
    desk.later(5.0)
    assert len(desk.said()) == 2, "nothing new"


def test_another_keeper_above_is_told_all_that_the_cell_holds() -> None:
    desk = ZoneCellDesk()
    desk.holds(INSIDE[0], 0b001)
    other = ranked((key(n).peer_id for n in GROUP), desk.wide)[1]
    desk.event(NewsFrom(other, m.Enrolled(desk.wide, 6, desk.info, 0.0, ())))
    desk.later(HELD_EVERY_S)
    assert [(to, said.have) for to, said in desk.said()] == [
        (desk.above, b"\x01\x00"),
        (other, b"\x01\x00"),
    ]


class WideDesk(Desk):
    """The core keeps the task in that group; delegates of cells enrol."""

    def __init__(self) -> None:
        super().__init__(GROUP)

    def stands(self, number: int, cell_keeper: int) -> None:
        self.hear(
            number,
            m.Enrol(TASK, SPEC, (), (), 0, True, m.Access.UNKNOWN, "", False, None, b"", (), "",
                    None, False, self.id(cell_keeper)),
        )  # fmt: skip


def test_the_keeper_of_a_cell_hears_what_its_delegates_hear() -> None:
    desk = WideDesk()
    desk.stands(OUTSIDE[0], OUTSIDE[1])
    desk.later(1.0)
    desk.ask(OUTSIDE[0], 4)
    version = desk.resolve(OUTSIDE[0], 16)
    told = [x.version for x in desk.to(OUTSIDE[1], m.RosterUpdate)]
    assert told == [version]
    desk.stands(OUTSIDE[2], OUTSIDE[3])
    assert desk.to(OUTSIDE[3], m.Enrolled)[0].version == version


def test_samples_of_cells_are_exchanged_over_the_wider_keeper() -> None:
    desk = WideDesk()
    desk.stands(OUTSIDE[0], OUTSIDE[1])
    desk.stands(OUTSIDE[2], OUTSIDE[3])
    desk.later(1.0)

    def sample(*numbers: int) -> m.Sample:
        forged = ("10.9.9.9:1",)
        named = (m.RosterPeer(desk.id(n), forged, "", 3, True, False) for n in numbers)
        return m.Sample(TASK, tuple(named), False)

    desk.hear(OUTSIDE[1], sample(*OUTSIDE[10:14]))
    desk.forget()
    desk.hear(OUTSIDE[3], sample(*OUTSIDE[20:24]))
    [back] = desk.to(OUTSIDE[3], m.Sample)
    assert back.back
    assert {x.peer for x in back.peers} == {desk.id(n) for n in (*OUTSIDE[10:14], OUTSIDE[0])}
    seen = {x.peer: x.addresses for x in back.peers}
    assert seen[desk.id(OUTSIDE[10])] == member(OUTSIDE[10]).link_addresses, "not as it was said"
    desk.forget()
    desk.hear(OUTSIDE[50], sample(*OUTSIDE[30:34]))
    assert not desk.to(OUTSIDE[50], m.Sample), "no delegate names it"


def test_a_cell_sends_a_sample_up_and_tells_its_members_of_others() -> None:
    desk = CellDesk().open()
    desk.news(m.Enrolled(TASK, 5, info(), 0.0, ()))
    [(up, sample)] = [(x.peer, x.message) for x in desk.sent if isinstance(x.message, m.Sample)]
    assert up == desk.above[0]
    assert sample.task == TASK
    assert not sample.back
    others = tuple(m.RosterPeer(desk.id(n), (), "", 0, False, False) for n in OUTSIDE[:20])
    desk.forget()
    number = next(n for n in GROUP if desk.id(n) == up)
    desk.hear(number, m.Sample(TASK, others, True))
    desk.later(0.2)
    named = {x.peer for update in desk.to(INSIDE[0], m.RosterUpdate) for x in update.peers}
    assert named & {x.peer for x in others}
