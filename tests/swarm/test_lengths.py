"""Members that say different lengths of content known by its digest: a lie, or a wrong URL.

The whole digest keeps wrong bytes from being reported; these stories are about the right ones
arriving all the same, and about who is named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio

from peerd.errors import DigestMismatch, NoSpace, OriginChanged
from peerd.origin.memory import MemoryOrigin
from peerd.swarm.run import TaskRun
from peerd.task import ask_for
from peerd.units import KIB, MIB
from tests.swarm.network import Net, Node
from tests.swarm.test_swarm import CONTENT, DIGEST, SIZE, URL, check_right, get

ASK = ask_for(URL, digest=DIGEST)


@asynccontextmanager
async def with_a_liar(
    honest: int, length: int, *, net_seed: int = 1, capacity_bytes: int | None = None
) -> AsyncIterator[tuple[Net, Node, list[Node]]]:
    """The liar finds other content at the origin, of that length; all others what is there."""
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=4 * MIB)
    false = MemoryOrigin({URL: Random(length).randbytes(length)}, rate_bytes_s=MIB / 4)
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery, net_seed)
        liar = await net.add(origin=false)
        others = [await net.add(capacity_bytes=capacity_bytes) for _ in range(honest)]
        yield net, liar, others
        nursery.cancel_scope.cancel()


async def liar_first(liar: Node, others: list[Node]) -> dict[Node, TaskRun]:
    """The liar's word is the first; then all others ask at once. Returns the others' runs."""
    runs: dict[Node, TaskRun] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, liar, ASK)
        await trio.sleep(0.05)
        for node in others:
            nursery.start_soon(get, node, ASK, runs)
    return runs


@pytest.mark.parametrize("net_seed", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 256 * KIB, SIZE - 1, SIZE + 1, 2 * SIZE])
async def test_a_lie_about_the_length_is_outvoted(
    autojump_clock: Any, length: int, net_seed: int
) -> None:
    """Whoever keeps the task (the net's seed decides), the liar among others."""
    async with with_a_liar(3, length, net_seed=net_seed) as (net, liar, others):
        runs = await liar_first(liar, others)
        check_right(runs)
        if length > 1:  # Of a single byte it sees the digest itself before anybody asks.
            assert any(liar.own in run.blocked() for run in runs.values()), "it is named"
        assert net.origin.bytes_read <= 1.5 * SIZE


async def test_the_liar_gets_it_too(autojump_clock: Any) -> None:
    """It may only have been given a wrong URL: what it asked for has a digest."""
    runs: dict[Node, TaskRun] = {}
    async with with_a_liar(3, 2 * SIZE) as (_, liar, others), trio.open_nursery() as nursery:
        for node in (liar, *others):
            nursery.start_soon(get, node, ASK, runs)
    check_right(runs)


@pytest.mark.parametrize("net_seed", [1, 2, 3, 4])
async def test_of_two_alone_the_honest_one_is_right_or_told_of_an_error(
    autojump_clock: Any, net_seed: int
) -> None:
    """One word against another: the keeper believes its own eyes. Never wrong bytes."""
    async with with_a_liar(1, 2 * SIZE, net_seed=net_seed) as (_, liar, [honest]):
        runs = await liar_first(liar, [honest])
        run = runs[honest]
        if honest.keepers.core.kept(run.task) is not None:
            check_right(runs)
        assert run.error is None or isinstance(run.error, DigestMismatch | OriginChanged)


async def test_a_length_that_fits_on_no_disk_is_doubted(autojump_clock: Any) -> None:
    async with with_a_liar(3, 4 * SIZE, capacity_bytes=2 * SIZE) as (_, liar, others):
        check_right(await liar_first(liar, others))


async def test_what_really_does_not_fit_is_said(autojump_clock: Any) -> None:
    """Those with room get it; the one without is told so, and holds up nobody."""
    origin = MemoryOrigin({URL: CONTENT})
    runs: dict[Node, TaskRun] = {}
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        small = await net.add(capacity_bytes=MIB)
        others = [await net.add() for _ in range(3)]
        async with trio.open_nursery() as asking:
            for node in (small, *others):
                asking.start_soon(get, node, ASK, runs)
        nursery.cancel_scope.cancel()
    assert isinstance(runs.pop(small).error, NoSpace)
    check_right(runs)


async def test_an_origin_that_stops_answering_ranges_gives_no_wrong_bytes(
    autojump_clock: Any,
) -> None:
    """Pieces are cut by their place: a whole answer to a question for a part is not one."""
    ask = ask_for(URL)
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=2 * MIB)
    runs: dict[Node, TaskRun] = {}
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        nodes = [await net.add() for _ in range(3)]
        async with trio.open_nursery() as asking:
            for node in nodes:
                asking.start_soon(get, node, ask, runs)
            await trio.sleep(0.5)
            origin.ranged = False
        nursery.cancel_scope.cancel()
    check_right(runs)


async def test_a_journal_that_is_full_fails_that_download_alone(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """When the keeper's version was confirmed is journalled, too."""
    ask = ask_for(URL)
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=2 * MIB)
    runs: dict[Node, TaskRun] = {}

    async def no_room(version: object, at_wall_s: float) -> None:
        await trio.lowlevel.checkpoint()
        raise NoSpace("no space for the journal")

    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        full, *others = [await net.add() for _ in range(3)]
        full.store.set_validated = no_room  # type: ignore[method-assign]
        async with trio.open_nursery() as asking:
            for node in (full, *others):
                asking.start_soon(get, node, ask, runs)
        nursery.cancel_scope.cancel()
    assert isinstance(runs.pop(full).error, NoSpace)
    check_right(runs)
    assert "internal error" not in caplog.text
