"""What a peer tells of itself: what it downloads, what it serves though it has all, and rates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio

from peerd.daemon.facts import FactsOfPeer
from peerd.ids import PeerId, TaskId, VersionId

ONE, OTHER = TaskId("a" * 64), TaskId("b" * 64)


class Here:
    """A daemon's swarm, links and membership, as far as facts look at them."""

    def __init__(self) -> None:
        self.going: dict[TaskId, Any] = {}
        self.stored: dict[VersionId, Any] = {}
        self.asked_for: list[VersionId] = []
        self.piece_bytes_out = 0
        self.counters = self.near = self.store = self.serving = self
        self.children = 3
        self.busy = 0.0
        self.kept: dict[TaskId, int] = {}

    def runs(self) -> dict[TaskId, Any]:
        return self.going

    def serves(self, now: float) -> list[VersionId]:
        return self.asked_for

    def find(self, version: VersionId) -> Any:
        return self.stored.get(version)

    def busy_s(self, now: float) -> float:
        return self.busy

    def stands(self, task: TaskId) -> bool:
        return task == ONE

    def origins(self) -> dict[TaskId, int]:
        return self.kept

    def member(self, peer: PeerId) -> Any:
        return None if peer == "unknown" else SimpleNamespace(zone=peer.partition("-")[0])


def stored(task: TaskId, pieces: int, held: int) -> Any:
    return SimpleNamespace(
        info=SimpleNamespace(task=task, piece_count=pieces, piece_length_bytes=1 << 18),
        held=range(held),
    )


def run(task: TaskId, held: int, parents: list[Any] | None = None, origin: int = 0) -> Any:
    return SimpleNamespace(
        stored=stored(task, 10, held), priority=6, going=lambda: True,
        core=SimpleNamespace(parents=parents),
        tally=SimpleNamespace(from_origin=origin, from_peers={}),
    )  # fmt: skip


def parent(peer: str, rate: float | None, round_trip_s: float = 0.01) -> Any:
    return SimpleNamespace(peer=PeerId(peer), rate_bytes_s=rate, round_trip_s=round_trip_s)


async def test_what_it_downloads_and_how_fast(autojump_clock: trio.testing.MockClock) -> None:
    here: Any = Here()
    used = [0.0]
    facts = FactsOfPeer(here, here, here, here, lambda: used[0])
    here.going[ONE] = run(ONE, 4, [], origin=1_000)
    await trio.sleep(1)
    assert facts().swarms[ONE].down_bytes_s == 0, "nothing to compare with"
    here.going[ONE].tally.from_origin = 5_000
    here.piece_bytes_out, used[0] = 600, 1.0
    await trio.sleep(2)
    told = facts()
    assert (told.load_percent, told.up_bytes_s, told.children) == (50, 300, 3)
    (said,) = told.swarms.values()
    assert (said.pieces, said.held, said.wants, said.down_bytes_s) == (10, 4, True, 2_000)


async def test_what_it_has_and_was_asked_for_is_told_as_wanted_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here: Any = Here()
    facts = FactsOfPeer(here, here, here, here)
    version = VersionId("c" * 64)
    here.stored[version] = stored(OTHER, 10, 10)
    assert not facts().swarms, "nobody asks for it"
    here.asked_for = [version, VersionId("d" * 64)]
    (said,) = facts().swarms.values()
    assert (said.task, said.held, said.wants) == (OTHER, 10, False)
    here.going[OTHER] = run(OTHER, 4, [])
    assert facts().swarms[OTHER].wants, "a download of it says more"


async def test_what_parents_of_a_zone_bring_counts_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here: Any = Here()
    facts = FactsOfPeer(here, here, here, here)
    parents = [
        parent("eu-1", 1_000.0, 0.03), parent("eu-2", 500.0, 0.02), parent("us-1", 200.0, 0.1),
        parent("us-2", None), parent("unknown", 9_000.0),
    ]  # fmt: skip
    here.going[ONE] = run(ONE, 4, parents)
    zones = facts().zones
    assert {name: (each.down_bytes_s, each.round_trip_ms) for name, each in zones.items()} == {
        "eu": (1_500, 20), "us": (200, 100),
    }  # fmt: skip


async def test_what_its_uplink_can_do_is_known_once_it_served_several(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here: Any = Here()
    facts = FactsOfPeer(here, here, here, here)
    for rate, busy_s, full in ((2_000, 0.1, 0), (1_000, 1.0, 1_000), (10, 0.0, 1_000)):
        here.piece_bytes_out, here.busy = here.piece_bytes_out + rate, here.busy + busy_s
        await trio.sleep(1)
        told = facts()
        assert (told.up_bytes_s, told.up_full_bytes_s) == (rate, full)
        assert told.up_most_bytes_s == 2_000


async def test_what_it_keeps_and_where_it_stands_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here: Any = Here()
    facts = FactsOfPeer(here, here, here, here)
    here.going = {ONE: run(ONE, 4, []), OTHER: run(OTHER, 4, [])}
    here.kept = {ONE: 7}
    await trio.sleep(1)
    told = facts()
    assert told.keeps == {ONE: 7}
    assert [told.swarms[task].stands for task in (ONE, OTHER)] == [True, False]
    assert told.swarms[ONE].piece_bytes == 1 << 18
