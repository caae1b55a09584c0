"""When a member asks for a hedge: where the swarm will be slower than a plain download."""

from __future__ import annotations

import itertools

from peerd.ids import PieceIndex
from peerd.link.messages import LeaseInfo, LeaseKind
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.watchdog import FIRST_S, HEDGED_MAX, PAUSE_MAX_S
from tests.swarm.test_download import ANN, BOB, OWN, PIECE, opened

PIECES = 100
HELD = range(PIECES - 4)
"""All but the last four came from the origin, 10 ms each."""


def read_up_to_the_last() -> Download:
    core = opened(PIECES)
    core.handle(ev.LeaseGranted(LeaseInfo(1, LeaseKind.READ, OWN, 0, len(HELD), 9.0)), 0.0)
    for index in HELD:
        core.handle(ev.PieceRead(PieceIndex(index)), 0.01 * (index + 1))
    return core


def asked(core: Download, now: float) -> list[ev.AskHedge]:
    orders = core.expire(now)
    core.validate()
    return [order for order in orders if isinstance(order, ev.AskHedge)]


def test_what_only_a_slow_parent_has_is_asked_for_once_nothing_is_read_any_more() -> None:
    core = read_up_to_the_last()
    core.handle(ev.ParentJoined(ANN, PieceSet.full(PIECES)), 0.0)
    core.handle(ev.PieceArrived(ANN, PieceIndex(97), PIECE), 1.0)  # One a second.
    assert not asked(core, 1.1), "its own lease is not over"
    core.handle(ev.LeaseOver(1), 1.1)
    assert core.deadline(1.1) <= 1.1 + FIRST_S
    (ask,) = asked(core, 1.2)
    assert set(ask.indices) == {96, 98, 99}
    assert ask.lacking == PIECES
    assert list(ask.expected_s) == sorted(ask.expected_s, reverse=True)
    assert 2.0 < ask.expected_s[-1] < 3.0, "the next one second after the last"
    assert 4.0 < ask.expected_s[0] < 5.0


def test_nothing_is_asked_while_parents_are_as_fast_as_the_origin() -> None:
    core = read_up_to_the_last()
    core.handle(ev.LeaseOver(1), 0.96)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(PIECES)), 0.96)
    core.handle(ev.PieceArrived(ANN, PieceIndex(97), PIECE), 0.98)
    assert not asked(core, 0.99)


def test_a_fast_parent_that_has_it_too_is_enough() -> None:
    core = read_up_to_the_last()
    core.handle(ev.LeaseOver(1), 0.96)
    for peer in (ANN, BOB):
        core.handle(ev.ParentJoined(peer, PieceSet.full(PIECES)), 0.96)
    core.parents.joined[ANN].rate_bytes_s = PIECE / 10.0
    core.parents.joined[BOB].rate_bytes_s = PIECE / 0.02
    assert not asked(core, 0.98)
    core.handle(ev.ParentGone(BOB), 0.98)
    assert asked(core, 1.1), "then Ann alone has it"


def test_what_nobody_has_is_not_its_business() -> None:
    core = read_up_to_the_last()
    core.handle(ev.LeaseOver(1), 0.96)
    core.handle(ev.ParentJoined(ANN, PieceSet(PIECES, HELD)), 0.96)
    assert not asked(core, 9.0)


def test_far_from_the_end_it_says_nothing() -> None:
    core = opened(10 * HEDGED_MAX)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(10 * HEDGED_MAX)), 0.0)
    core.parents.joined[ANN].rate_bytes_s = PIECE / 10.0
    assert not asked(core, 2.0)


def test_it_repeats_itself_less_and_less_often() -> None:
    core = read_up_to_the_last()
    core.handle(ev.LeaseOver(1), 0.96)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(PIECES)), 0.96)
    core.handle(ev.PieceArrived(ANN, PieceIndex(97), PIECE), 2.0)
    at = [now / 50 for now in range(100, 1000) if asked(core, now / 50)]
    pauses = [round(after - before, 1) for before, after in itertools.pairwise(at)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) <= PAUSE_MAX_S + 0.1


def test_who_read_nothing_itself_asks_when_pieces_take_long() -> None:
    core = opened(PIECES, held=tuple(HELD))
    core.handle(ev.ParentJoined(ANN, PieceSet.full(PIECES)), 0.0)
    assert not asked(core, 0.4)
    (ask,) = asked(core, 0.8)
    assert ask.lacking == 4
