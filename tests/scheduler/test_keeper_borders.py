"""The keeper of a scope grants each piece to one bringer, and takes it back when it is late."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link import messages as m
from peerd.scheduler.keeper_borders import FIRST, LATE_S, SOON_S
from peerd.scheduler.keeper_events import MembersChanged
from peerd.zones import seat_id
from tests.scheduler.desk import Desk
from tests.scheduler.world import key, member, version_of

PIECES = 16
SCOPE = "eu"


class Border(Desk):
    """The core keeps scope `eu` of one version; `far` peers are elsewhere."""

    def __init__(
        self, near: Iterable[int] = (1, 2, 3), far: Iterable[int] = (7, 8), rng_seed: int = 1
    ) -> None:
        self.info = version_of(key(7), PIECES)
        self.near, self.far = list(near), list(far)
        super().__init__(self.near, rng_seed=rng_seed)
        self.task = seat_id(self.info.version, SCOPE)
        self.own = self.rank(self.near)[0]
        self.core.own = self.id(self.own)

    def members(self, numbers: Iterable[int], synced: bool = True) -> None:
        live = [member(n, zone="eu/ams") for n in self.near]
        live += [member(n, zone="us") for n in self.far]
        self.event(MembersChanged(tuple(live), synced))

    def join(
        self, number: int, *, zone: str = "eu/ams", have: int = 0, scope: str = SCOPE,
        cell_keeper: int | None = None,
    ) -> None:  # fmt: skip
        below = None if cell_keeper is None else self.id(cell_keeper)
        bitmap = have.to_bytes(2, "little")
        self.hear(
            number,
            m.Enrol(self.task, None, (), (), 0, True, m.Access.UNKNOWN, zone, False, self.info,
                    bitmap, (), scope, None, False, below),
        )  # fmt: skip

    def holds(self, number: int, have: int) -> None:
        said = have.to_bytes(2, "little")
        self.hear(number, m.Progress(self.task, self.info.version, said))

    def cell_holds(self, number: int, have: int) -> None:
        said = have.to_bytes(2, "little")
        self.hear(number, m.CellHolds(self.task, self.info.version, said))

    def wants(self, number: int, seen: int, room: int = 4) -> None:
        self.hear(number, m.BringAsk(self.task, 1, room, seen.to_bytes(2, "little")))

    def told(self, number: int, lease: int, outcome: m.Outcome) -> None:
        self.hear(number, m.LeaseReport(self.task, 1, lease, outcome, (), "", ""))

    def brought(self, number: int) -> list[m.LeaseInfo]:
        return [x.info for x in self.grants(number) if x.info.kind is m.LeaseKind.BRING]

    def open(self) -> Border:
        for number in self.near:
            self.join(number)
            self.later(1.0)  # Whoever ranks next was asked whether it keeps it.
        return self


def unmet() -> Border:
    """Peer 2 asks for piece 0, which peer 1 is said to hold on this side."""
    desk = Border()
    desk.join(1, have=0b1)
    desk.later(1.0)
    desk.join(2)
    desk.wants(2, 0b1)
    return desk


def test_no_two_bring_the_same_piece() -> None:
    desk = Border((1, 2, 3, 4)).open()
    for number in desk.near:
        desk.wants(number, 0xFFFF, room=16)
    pieces = [info.first for number in desk.near for info in desk.brought(number)]
    assert sorted(pieces) == list(range(PIECES))
    assert {info.count for number in desk.near for info in desk.brought(number)} == {1}


def in_hand(desk: Border, number: int) -> list[m.LeaseInfo]:
    held = desk.core.leases(desk.task, desk.now)
    return [info for info in held if info.holder == desk.id(number)]


def bring_one(desk: Border, number: int, after_s: float) -> None:
    """The oldest is done after that time; a word of progress each second keeps the others."""
    for _ in range(int(after_s)):
        desk.later(1.0)
        for info in in_hand(desk, number):
            desk.told(number, info.lease, m.Outcome.PROGRESS)
    desk.later(after_s % 1)
    desk.told(number, in_hand(desk, number)[0].lease, m.Outcome.DONE)


def test_more_at_once_where_each_comes_soon() -> None:
    desk = Border().open()
    desk.wants(1, 0xFFFF, room=16)
    assert len(in_hand(desk, 1)) == FIRST
    for _ in range(3):
        bring_one(desk, 1, SOON_S / 4)
    assert len(in_hand(desk, 1)) == FIRST + 3


def test_fewer_at_once_where_each_comes_late_and_one_in_the_end() -> None:
    """They wait behind each other on a slow link; more of them would be taken for stalled."""
    desk = Border().open()
    desk.wants(1, 0xFFFF, room=16)
    for _ in range(FIRST + 2):
        bring_one(desk, 1, LATE_S + 0.5)
    assert len(in_hand(desk, 1)) == 1


def test_only_what_was_seen_and_is_not_held_is_granted() -> None:
    desk = Border()
    desk.join(1, have=0b1)
    desk.later(1.0)
    desk.join(2)
    desk.wants(2, 0b0111)
    assert sorted(info.first for info in desk.brought(2)) == [1, 2]


def test_what_was_brought_is_held_and_the_rest_goes_to_another() -> None:
    desk = Border().open()
    desk.wants(1, 0b11, room=2)
    done, failed = desk.brought(1)
    desk.told(1, done.lease, m.Outcome.DONE)
    desk.told(1, failed.lease, m.Outcome.RETURNED)
    desk.wants(2, 0b11)
    assert [info.first for info in desk.brought(2)] == [failed.first]


def test_a_bringer_that_is_late_loses_its_right() -> None:
    desk = Border().open()
    desk.wants(1, 0b1)
    desk.wants(2, 0b1)
    assert not desk.brought(2)
    desk.later(desk.core.config.lease_default_s + 1.0)
    assert [info.first for info in desk.brought(2)] == [0]
    assert desk.to(1, m.LeaseRevoked)


def test_a_renewed_lease_lives_on() -> None:
    desk = Border().open()
    desk.wants(1, 0b1)
    for _ in range(4):
        desk.later(2.0)
        desk.told(1, desk.brought(1)[0].lease, m.Outcome.PROGRESS)
    desk.wants(2, 0b1)
    desk.later(1.0)
    assert not desk.brought(2)


def test_what_cannot_be_found_on_this_side_may_be_brought_after_a_while() -> None:
    desk = unmet()
    assert not desk.brought(2)
    desk.later(desk.core.config.bring_trust_s + 0.1)
    assert [info.first for info in desk.brought(2)] == [0]


def test_who_gets_other_pieces_waits_longer_for_what_others_are_said_to_hold() -> None:
    """In a large zone a piece takes its time to get round: it is not lacked yet."""
    desk = unmet()
    trust_s = desk.core.config.bring_trust_s
    desk.later(trust_s - 1)
    desk.holds(2, 0b10)
    desk.later(2.0)
    assert not desk.brought(2)
    desk.holds(2, 0b10)  # Nothing more than before.
    desk.later(trust_s - 1.9)
    assert [info.first for info in desk.brought(2)] == [0]


def test_what_it_asked_for_in_vain_turned_up_and_other_pieces_are_lacked_now() -> None:
    """It does not ask in vain for those yet; and nothing is due for ever (Desk.later)."""
    desk = unmet()
    trust_s = desk.core.config.bring_trust_s
    desk.later(trust_s - 0.2)
    desk.holds(1, 0b11)
    desk.wants(2, 0b11)
    desk.holds(2, 0b01)
    desk.later(trust_s - 0.1)
    assert not desk.brought(2)
    desk.later(0.2)
    assert [info.first for info in desk.brought(2)] == [1]


def test_a_piece_that_does_not_get_round_is_brought_again_though_others_come() -> None:
    desk = unmet()
    most_s = desk.core.config.bring_trust_max_s
    for got in range(1, 12):
        desk.holds(2, (1 << got) - 1 << 1)
        desk.later(most_s / 12)
    assert not desk.brought(2)
    desk.later(most_s / 12 + 0.1)
    assert [info.first for info in desk.brought(2)] == [0]


def test_what_a_cell_of_the_scope_holds_is_not_brought() -> None:
    desk = Border()
    desk.join(1, cell_keeper=3)
    desk.later(1.0)
    desk.join(2)
    desk.cell_holds(3, 0b01)
    desk.cell_holds(2, 0b10)  # It keeps no cell that has delegates here.
    desk.wants(2, 0b11)
    assert [info.first for info in desk.brought(2)] == [1]
    desk.later(desk.core.config.bring_trust_s + 0.1)
    assert [info.first for info in desk.brought(2)] == [1, 0], "nor is it to be starved by it"


def test_a_cell_that_is_gone_holds_nothing() -> None:
    desk = Border()
    desk.join(1, cell_keeper=3)
    desk.later(1.0)
    desk.cell_holds(3, 0b01)
    desk.hear(1, m.Withdraw(desk.task))
    desk.join(2, cell_keeper=7)
    desk.cell_holds(7, 0b00)
    desk.wants(2, 0b01)
    assert [info.first for info in desk.brought(2)] == [0]


@pytest.mark.parametrize("seed", range(4))
def test_what_was_brought_only_now_is_not_what_it_asked_for_in_vain(seed: int) -> None:
    desk = Border(rng_seed=seed)
    desk.join(1, have=0b1)
    desk.later(1.0)
    desk.join(2)
    desk.join(3)
    desk.wants(3, 0b10, room=1)
    desk.later(0.1)
    desk.wants(2, 0b11)
    desk.told(3, desk.brought(3)[0].lease, m.Outcome.DONE)
    desk.later(desk.core.config.bring_trust_s + 0.1)
    assert [info.first for info in desk.brought(2)] == [0], "of the other it has just heard"


@pytest.mark.parametrize("seed", range(4))
def test_what_it_got_meanwhile_is_not_granted_to_it(seed: int) -> None:
    desk = Border(rng_seed=seed)
    desk.join(1, have=0b11)
    desk.later(1.0)
    desk.join(2)
    desk.wants(2, 0b11)
    desk.hear(2, m.Progress(desk.task, desk.info.version, (0b01).to_bytes(2, "little")))
    desk.later(desk.core.config.bring_trust_s + 0.1)
    assert [info.first for info in desk.brought(2)] == [1]


def test_a_keeper_that_follows_knows_what_is_being_brought() -> None:
    desk = Border().open()
    desk.wants(1, 0b1)
    lease = desk.brought(1)[0]
    after = Border(near=(1, 2), rng_seed=2)
    after.join(2)
    after.hear(
        1,
        m.Enrol(after.task, None, (), (), 1, True, m.Access.UNKNOWN, "eu/ams", False, after.info,
                bytes(2), (lease,), SCOPE),
    )  # fmt: skip
    after.later(2.0)
    after.wants(2, 0b11)
    assert [info.first for info in after.brought(2)] == [1]


@pytest.mark.parametrize(("zone", "scope"), [("us", "eu"), ("eu/ams", "us"), ("eu/ams", "eu/ams")])
def test_who_does_not_lie_in_the_scope_is_refused(zone: str, scope: str) -> None:
    desk = Border()
    with pytest.raises(RemoteProtocolError):
        desk.join(1, zone=zone, scope=scope)


def test_only_members_of_the_scope_rank_for_its_seat() -> None:
    """Far peers, whatever their weight, are neither asked nor told."""
    desk = Border(far=range(7, 40)).open()
    desk.wants(1, 0b1)
    desk.later(5.0)
    near: set[PeerId] = {desk.id(number) for number in desk.near}
    assert {send.peer for send in desk.sent} <= near
