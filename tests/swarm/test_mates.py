"""What other peers say while a version is still being opened here is not lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from peerd.ids import PeerId
from peerd.link import messages as msg
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.mates import Mates
from tests.swarm.test_review import PEER, info_of, stored_version


@dataclass
class Run:
    """A run whose version is not open yet."""

    core: Download = field(default_factory=lambda: Download(PeerId("own"), Random(1)))
    stored: Any = None
    keeper: PeerId | None = None
    posted: list[ev.Event] = field(default_factory=list)

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)

    def note(self, words: str) -> None:
        """Nobody reads it."""


class Links:
    def least_round_trip_s(self, peer: PeerId) -> float:
        return 0.001

    def send(self, peer: PeerId, message: msg.Message) -> None:
        """It goes nowhere."""


def early() -> tuple[Run, Mates]:
    run = Run()
    near: Any = SimpleNamespace(links=Links(), inbound=None, zone="")
    return run, Mates(run, near)


async def opened(run: Run, mates: Mates, **facts: Any) -> None:
    run.stored = await stored_version(info_of(**facts))
    mates.version_opened()


async def test_pieces_said_before_the_version_is_open_count() -> None:
    """Seen with real daemons: four pieces that were said too early were waited for, for ever."""
    run, mates = early()
    info = info_of(8)
    mates.joined(PEER, msg.Join(info, bytes(1)))
    mates.says(PEER, msg.Have(info.version, (0, 3)))
    mates.says(PEER, msg.Have(info.version, (1, 900)))
    await opened(run, mates)
    assert run.posted == [ev.ParentJoined(PEER, PieceSet(8, (0, 1, 3)), "", 0.001)]


async def test_the_same_of_unknown_length() -> None:
    run, mates = early()
    info = info_of(length_known=False)
    mates.joined(PEER, msg.Join(info, b""))
    mates.says(PEER, msg.Have(info.version, (9,)))
    await opened(run, mates, length_known=False)
    [joined] = run.posted
    assert isinstance(joined, ev.ParentJoined)
    assert list(joined.have) == [9]


async def test_who_departed_before_the_version_is_open_is_not_in() -> None:
    run, mates = early()
    info = info_of(8)
    mates.joined(PEER, msg.Join(info, bytes(1)))
    mates.says(PEER, msg.Depart(info.version))
    await opened(run, mates)
    assert not run.posted


async def test_what_is_said_of_another_version_changes_nothing() -> None:
    run, mates = early()
    info, other = info_of(8), info_of(7)
    mates.joined(PEER, msg.Join(info, bytes(1)))
    mates.says(PEER, msg.Have(other.version, (1,)))
    await opened(run, mates)
    assert run.posted == [ev.ParentJoined(PEER, PieceSet(8), "", 0.001)]
