"""What a member does with a right to bring a piece into its zone."""

from __future__ import annotations

from random import Random

from peerd.link.messages import LeaseInfo, LeaseKind, Outcome
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from tests.swarm.test_download import ANN, BOB, OWN, requests, version


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
