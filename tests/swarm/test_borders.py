"""What a member does with a right to bring a piece into its zone."""

from __future__ import annotations

from random import Random

from peerd.ids import PieceIndex
from peerd.link.messages import LeaseInfo, LeaseKind, Outcome
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.parents import STALL_OVER_BORDER_S, STALL_S
from tests.swarm.test_download import ANN, BOB, OWN, PIECE, requests, version


def far_and_near(near_has: tuple[int, ...]) -> Download:
    """Ann is beyond the border and has all; Bob is beside us."""
    core = Download(OWN, Random(1), "eu/ams")
    core.handle(ev.VersionOpened(version(8), PieceSet(8)), 0.0)
    core.handle(ev.ParentJoined(ANN, PieceSet.full(8), "us"), 0.0)
    core.handle(ev.ParentJoined(BOB, PieceSet(8, near_has), "eu/ams"), 0.0)
    return core


def granted(core: Download, first: int, count: int) -> list[ev.Order]:
    info = LeaseInfo(5, LeaseKind.BRING, OWN, first, count, 10.0)
    return core.handle(ev.BringGranted("eu", info), 1.0)


def test_what_turned_up_on_this_side_is_not_brought() -> None:
    core = far_and_near(near_has=(3,))
    assert ev.ReportBring("eu", 5, Outcome.RETURNED) in granted(core, 3, 1)
    assert 3 not in requests(core.expire(2.0)).get(ANN, [])


def test_of_an_extent_only_what_is_not_on_this_side_is_brought() -> None:
    core = far_and_near(near_has=(3,))
    assert requests(granted(core, 3, 2))[ANN] == [4]


def on_its_way(bob_lies_in: str) -> tuple[Download, int]:
    """Ann, beyond the border, sent one of two pieces in two seconds; Bob joins. Returns the other,
    which Ann still owes."""
    core = Download(OWN, Random(1), "eu")
    core.handle(ev.VersionOpened(version(12), PieceSet(12)), 0.0)
    core.handle(ev.ParentJoined(ANN, PieceSet(12, (0, 1)), "us"), 0.0)
    info = LeaseInfo(5, LeaseKind.BRING, OWN, 0, 2, 60.0)
    sent, owed = requests(core.handle(ev.BringGranted("eu", info), 2.0))[ANN]
    core.handle(ev.PieceArrived(ANN, PieceIndex(sent), PIECE), 4.0)
    core.handle(ev.ParentJoined(BOB, PieceSet(12, (owed,)), bob_lies_in), 4.0)
    return core, owed


def test_what_comes_over_a_border_is_not_asked_for_over_it_again() -> None:
    """Bob may be as slow: it is the border that both share."""
    core, owed = on_its_way("us")
    orders = core.expire(4.5)
    assert owed not in requests(orders).get(BOB, [])
    core.parents.joined[BOB].rate_bytes_s = PIECE / 1.5
    assert owed not in requests(core.expire(5.0)).get(BOB, [])
    core.validate()


def test_but_of_one_beyond_that_is_far_faster_it_is_and_of_the_first_no_more() -> None:
    core, owed = on_its_way("us")
    core.parents.joined[BOB].rate_bytes_s = 100.0 * PIECE
    orders = core.expire(4.5)
    assert requests(orders)[BOB] == [owed]
    assert ev.CancelPieces(ANN, (owed,)) in orders
    core.validate()


def test_one_on_this_side_is_asked_for_it_as_always() -> None:
    core, owed = on_its_way("eu")
    orders = core.expire(4.5)
    assert ev.CancelPieces(ANN, (owed,)) in orders
    assert requests(orders)[BOB] == [owed]


def test_who_is_silent_beyond_a_border_has_twice_the_time() -> None:
    core, _ = on_its_way("us")
    early, late = core.expire(4.0 + STALL_S + 1.0), core.expire(4.0 + 4 * STALL_OVER_BORDER_S)
    assert not any(isinstance(order, ev.Complain) for order in early)
    assert ev.Complain(ANN, "it stalls") in late
