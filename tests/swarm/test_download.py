"""The core of a download: unit stories, and a whole swarm's worth of random events."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link.messages import LeaseInfo, LeaseKind, RosterPeer
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.consequences import LEASES_WANTED
from peerd.swarm.download import Download
from peerd.swarm.parents import STALL_S
from peerd.swarm.picker import IllegalStep, Picker, PieceState
from peerd.swarm.requests import BEHIND_MAX, LATE_MIN_S
from peerd.units import KIB

OWN, ANN, BOB = PeerId("own"), PeerId("ann"), PeerId("bob")
PIECE = 256 * KIB


def version(pieces: int, known: bool = True) -> VersionInfo:
    length = pieces * PIECE if known else None
    return VersionInfo(
        TaskId("a" * 64), VersionId("b" * 64), length, PIECE, '"e"', known, None, ANN, b"\0" * 64
    )


def roster(peer: PeerId, held: int = 0, complete: bool = False) -> RosterPeer:
    return RosterPeer(peer, (f"{peer}:1",), "", held, complete, False)


def opened(pieces: int = 8, held: tuple[int, ...] = ()) -> Download:
    core = Download(OWN, Random(1))
    core.handle(ev.VersionOpened(version(pieces), PieceSet(pieces, held)), 0.0)
    return core


def requests(orders: list[ev.Order]) -> dict[PeerId, list[int]]:
    found: dict[PeerId, list[int]] = {}
    for order in orders:
        if isinstance(order, ev.RequestPieces):
            found.setdefault(order.peer, []).extend(order.indices)
    return found


def test_a_version_makes_the_download_ask_for_leases_and_for_links() -> None:
    core = Download(OWN, Random(1))
    core.handle(ev.PeersNamed((roster(ANN, complete=True), roster(OWN))), 0.0)
    orders = core.handle(ev.VersionOpened(version(8), PieceSet(8)), 0.0)
    assert ev.AskLeases(LEASES_WANTED) in orders
    assert [o for o in orders if isinstance(o, ev.Connect)] == [ev.Connect(ANN, ("ann:1",))]


def test_a_parent_is_asked_for_what_it_has_the_rarest_first() -> None:
    core = opened(12, held=(8, 9, 10, 11))
    core.handle(ev.ParentJoined(ANN, PieceSet(12)), 0.0)
    core.handle(ev.ParentJoined(BOB, PieceSet(12)), 0.0)
    core.parents.joined[ANN].paused_until = 9.0
    core.handle(ev.ParentHas(ANN, (0, 1, 2, 3, 4, 5, 6)), 0.0)
    core.parents.joined[BOB].paused_until = 9.0
    core.handle(ev.ParentHas(BOB, (5, 6, 7)), 0.0)
    core.parents.joined[BOB].paused_until = 0.0
    assert requests(core.expire(0.0))[BOB][0] == 7, "only Bob has it"


def test_pieces_that_arrive_are_announced_and_more_are_asked_for() -> None:
    core = opened(8)
    asked = requests(core.handle(ev.ParentJoined(ANN, PieceSet.full(8)), 0.0))[ANN]
    orders = core.handle(ev.PieceArrived(ANN, PieceIndex(asked[0]), PIECE), 0.02)
    assert ev.Announce(PieceIndex(asked[0]), ANN) in orders
    assert requests(orders)[ANN], "its window has room again"


def rooms(orders: list[ev.Order]) -> list[int]:
    return [order.room for order in orders if isinstance(order, ev.AskLeases)]


def test_a_keeper_reads_its_next_piece_once_others_have_the_last() -> None:
    """Killed, it takes the roster with it; not pieces that only it has read."""
    core = opened(64, held=tuple(range(8)))
    for peer in (ANN, BOB):
        core.handle(ev.ParentJoined(peer, PieceSet(64, range(48))), 0.0)
    assert core.picker is not None
    assert core.picker.requested
    assert rooms(core.asked_again(OWN)) == [1]
    assert rooms(core.handle(ev.PieceRead(PieceIndex(60)), 0.1)) == [0]
    assert rooms(core.handle(ev.ParentHas(ANN, (60,)), 0.2)) == [1]
    assert rooms(core.handle(ev.PieceRead(PieceIndex(61)), 0.3)) == [0]
    assert rooms(core.asked_again(BOB)) == [LEASES_WANTED], "another keeps it now"


def test_a_keeper_that_gets_nothing_from_others_reads_on() -> None:
    core = opened(64, held=tuple(range(8)))
    core.handle(ev.ParentJoined(ANN, PieceSet(64)), 0.0)
    assert rooms(core.asked_again(OWN)) == [LEASES_WANTED], "they are two"
    core.handle(ev.ParentJoined(BOB, PieceSet(64)), 0.0)
    assert rooms(core.asked_again(OWN)) == [1]
    assert 0 not in rooms(core.handle(ev.PieceRead(PieceIndex(60)), 0.1)), "nothing comes"
    for index in (61, 62, 63):
        core.handle(ev.PieceRead(PieceIndex(index)), 0.2)
    assert rooms(core.asked_again(OWN))[0] > 1, "it reads most of it, be it alone to reach it"


def test_behind_another_download_little_is_asked_for_until_that_ends() -> None:
    core = opened(64)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(64)), 0.0)
    for index in (0, 1, 2):
        core.handle(ev.PieceArrived(ANN, PieceIndex(index), PIECE), 0.01 * index)
    assert rooms(core.handle(ev.ComesBehind(until=10.0), 0.1)) == [1]
    owed = list(core.parents.joined[ANN].in_flight)
    for index in owed:
        core.handle(ev.PieceArrived(ANN, PieceIndex(index), PIECE), 0.2)
    core.handle(ev.ParentJoined(BOB, PieceSet.full(64)), 0.3)
    assert sum(len(parent.in_flight) for parent in core.parents) == BEHIND_MAX
    assert core.deadline(0.3) <= 10.0
    assert len(requests(core.expire(10.0))[BOB]) >= 1, "what was said counts no more"
    core.handle(ev.ComesBehind(until=20.0), 10.0)
    orders = core.handle(ev.ComesBehind(until=-math.inf), 10.0)
    assert LEASES_WANTED in rooms(orders)
    core.validate()


def test_all_held_is_said_once() -> None:
    core = opened(2, held=(0,))
    core.handle(ev.ParentJoined(ANN, PieceSet.full(2)), 0.0)
    orders = core.handle(ev.PieceArrived(ANN, PieceIndex(1), PIECE), 0.1)
    assert orders.count(ev.AllHeld()) == 1
    assert ev.AllHeld() not in core.expire(9.0)


def test_empty_content_is_complete_at_once() -> None:
    core = Download(OWN, Random(1))
    assert ev.AllHeld() in core.handle(ev.VersionOpened(version(0), PieceSet(0)), 0.0)


def test_a_stalled_parent_is_robbed_and_another_is_asked() -> None:
    core = opened(4)
    owed = requests(core.handle(ev.ParentJoined(ANN, PieceSet.full(4)), 0.0))[ANN]
    assert core.deadline(0.0) <= STALL_S
    core.handle(ev.ParentJoined(BOB, PieceSet(4, owed)), STALL_S)
    orders = core.expire(STALL_S + 0.1)
    assert any(isinstance(o, ev.CancelPieces) and o.peer == ANN for o in orders)
    assert sorted(requests(orders).get(BOB, [])) == sorted(owed)
    assert core.parents.stall_counts()[ANN] == 1
    core.validate()


def test_a_slow_but_moving_parent_is_not_robbed() -> None:
    core = opened(4)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(4)), 0.0)
    core.handle(ev.ParentActive(ANN), STALL_S - 0.1)
    assert not any(isinstance(o, ev.CancelPieces) for o in core.expire(STALL_S + 0.1))


def test_a_liar_is_blocked_for_good() -> None:
    core = opened(4)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(4)), 0.0)
    orders = core.handle(ev.PieceBad(ANN, PieceIndex(0), "wrong digest"), 0.1)
    assert ev.Drop(ANN, "wrong digest") in orders
    again = core.handle(ev.ParentJoined(ANN, PieceSet.full(4)), 99.0)
    assert not requests(again)
    assert any(isinstance(o, ev.Drop) for o in again)
    core.validate()


def test_a_granted_extent_is_read_even_if_a_parent_was_asked() -> None:
    core = opened(4)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(4)), 0.0)
    info = LeaseInfo(7, LeaseKind.READ, OWN, 0, 2, 4.0)
    orders = core.handle(ev.LeaseGranted(info), 0.1)
    assert ev.StartRead(info, (0, 1)) in orders
    core.handle(ev.PieceRead(PieceIndex(0)), 0.2)
    core.handle(ev.LeaseOver(7), 0.3)
    assert core.picker is not None
    assert core.picker.state(0) is PieceState.HELD
    assert core.picker.state(1) in (PieceState.WANTED, PieceState.REQUESTED)
    core.validate()


def test_the_endgame_asks_a_second_parent_and_cancels_the_loser() -> None:
    core = opened(1)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(1)), 0.0)
    assert not requests(core.handle(ev.ParentJoined(BOB, PieceSet.full(1)), 0.0)).get(BOB)
    assert requests(core.expire(LATE_MIN_S))[BOB] == [0]
    orders = core.handle(ev.PieceArrived(BOB, PieceIndex(0), PIECE), 0.4)
    assert ev.CancelPieces(ANN, (0,)) in orders
    core.handle(ev.PieceArrived(ANN, PieceIndex(0), PIECE), 0.5)
    assert core.wasted_bytes == PIECE


def test_content_of_unknown_length_grows_until_its_end_is_known() -> None:
    core = Download(OWN, Random(1))
    core.handle(ev.VersionOpened(version(0, known=False), PieceSet(0)), 0.0)
    core.handle(ev.ParentJoined(ANN, PieceSet(8)), 0.0)
    asked = requests(core.handle(ev.ParentHas(ANN, (0, 1, 2, 9)), 0.0))[ANN]
    assert set(asked) <= {0, 1, 2, 9}, "9 is a lie, which the end brings out"
    for index in (0, 1, 2):
        core.handle(ev.PieceArrived(ANN, PieceIndex(index), PIECE), 0.1)
    orders = core.handle(ev.LengthKnown(version(3)), 0.2)
    assert ev.AllHeld() in orders


def test_an_illegal_step_tells_its_story() -> None:
    picker = Picker(2, PieceSet(2, [0]), Random(1))
    with pytest.raises(IllegalStep, match="piece 0: held → requested"):
        picker.request(0, ANN)


PEERS = [PeerId(f"peer{n}") for n in range(5)]


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: the invariants hold, and honest parents are enough."""

    @initialize(count=st.integers(0, 24), seed=st.integers(0, 99), data=st.data())
    def start(self, count: int, seed: int, data: st.DataObject) -> None:
        self.now, self.count, self.lease = 0.0, count, 0
        held = data.draw(st.sets(st.integers(0, max(0, count - 1)))) if count else set()
        self.core = Download(OWN, Random(seed))
        self.all_held = 0
        self._post(ev.VersionOpened(version(count), PieceSet(count, held)))

    def _post(self, event: ev.Event) -> None:
        self._note(self.core.handle(event, self.now))

    def _note(self, orders: list[ev.Order]) -> None:
        self.all_held += orders.count(ev.AllHeld())
        for order in orders:
            if isinstance(order, ev.RequestPieces):
                assert order.peer not in self.core.parents.blocked

    @rule(peer=st.sampled_from(PEERS), bits=st.integers(0))
    def join(self, peer: PeerId, bits: int) -> None:
        have = PieceSet(self.count, [i for i in range(self.count) if bits >> i & 1])
        self._post(ev.ParentJoined(peer, have))

    @rule(peer=st.sampled_from(PEERS), index=st.integers(0, 30))
    def has(self, peer: PeerId, index: int) -> None:
        self._post(ev.ParentHas(peer, (index, index)))

    @rule(peer=st.sampled_from(PEERS))
    def gone(self, peer: PeerId) -> None:
        self._post(ev.ParentGone(peer))

    @rule(peer=st.sampled_from(PEERS), how=st.sampled_from(["arrived", "bad", "rejected"]))
    def answer(self, peer: PeerId, how: str) -> None:
        parent = self.core.parents.joined.get(peer)
        if parent is None or not parent.in_flight:
            return
        index = PieceIndex(next(iter(parent.in_flight)))
        if how == "arrived":
            self._post(ev.PieceArrived(peer, index, PIECE))
        elif how == "bad":
            self._post(ev.PieceBad(peer, index, "lie"))
        else:
            self._post(ev.PieceRejected(peer, (index, 99)))

    @precondition(lambda self: self.count > 0)
    @rule(data=st.data(), take=st.integers(1, 4))
    def grant(self, data: st.DataObject, take: int) -> None:
        self.lease += 1
        first = data.draw(st.integers(0, self.count - 1))
        self._post(ev.LeaseGranted(LeaseInfo(self.lease, LeaseKind.READ, OWN, first, take, 4.0)))

    @rule(data=st.data(), read=st.booleans())
    def read(self, data: st.DataObject, read: bool) -> None:
        if not self.core.leases:
            return
        info = data.draw(st.sampled_from(list(self.core.leases.values())))
        last = min(self.count, info.first + info.count)
        for index in range(info.first, last) if read else ():
            self._post(ev.PieceRead(PieceIndex(index)))
        self._post(ev.LeaseOver(info.lease))

    @precondition(lambda self: self.count > 0)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self._post(ev.PieceLost(PieceIndex(data.draw(st.integers(0, self.count - 1)))))

    @rule(seconds=st.floats(0.01, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._note(self.core.expire(self.now))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "core"):
            self.core.validate()

    def teardown(self) -> None:
        """An honest parent that has all ends it, whatever went before."""
        if not hasattr(self, "core"):
            return
        for lease in list(self.core.leases):
            self._post(ev.LeaseOver(lease))
        honest = PeerId("honest")
        self._post(ev.ParentJoined(honest, PieceSet.full(self.count)))
        for _ in range(200 + 4 * self.count):
            self.now += 1.0
            self._note(self.core.expire(self.now))
            parent = self.core.parents.joined[honest]
            for index in list(parent.in_flight):
                self._post(ev.PieceArrived(honest, PieceIndex(index), PIECE))
            if self.core.picker and self.core.picker.complete():
                break
        assert self.core.picker
        assert self.core.picker.complete(), self.core.story()[-20:]
        assert self.all_held >= 1


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
