"""Groups in several zones, in virtual time: each byte enters a zone once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
import trio

from peerd.origin.memory import MemoryOrigin
from peerd.swarm.run import TaskRun
from peerd.task import Ask, ask_for
from peerd.zones import scopes, seat_id
from tests.swarm.network import Net, Node
from tests.swarm.test_swarm import CONTENT, DIGEST, SIZE, URL, all_get, get

COPIES_MAX = 1.05


@asynccontextmanager
async def zoned(
    *zones: str, rate_bytes_s: float | None = None
) -> AsyncIterator[tuple[Net, list[Node]]]:
    async with trio.open_nursery() as nursery:
        net = Net(MemoryOrigin({URL: CONTENT}, rate_bytes_s=rate_bytes_s), nursery)
        nodes = [await net.add(zone=zone) for zone in zones]
        yield net, nodes
        nursery.cancel_scope.cancel()


def copies_into(net: Net, runs: dict[Node, TaskRun]) -> dict[str, float]:
    """By scope: what came from outside it, be it from peers or from the origin, in contents."""
    total = dict(net.entered_bytes)
    for node, run in runs.items():
        for scope in scopes(node.member.zone):
            total[scope] = total.get(scope, 0) + run.tally.from_origin
    return {scope: count / SIZE for scope, count in total.items()}


def all_right(nodes: Iterable[Node], runs: dict[Node, TaskRun]) -> None:
    for node in nodes:
        stored = runs[node].stored
        assert runs[node].error is None, runs[node].error
        assert stored is not None
        assert stored.complete


@pytest.mark.parametrize("digest", [DIGEST, None], ids=["digest", "etag"])
async def test_two_zones_each_get_one_copy(autojump_clock: object, digest: str | None) -> None:
    async with zoned(*["a"] * 4, *["b"] * 4) as (net, nodes):
        runs = await all_get(nodes, ask_for(URL, digest=digest))
        all_right(nodes, runs)
        copies = copies_into(net, runs)
        assert copies.keys() == {"a", "b"}
        assert max(copies.values()) <= COPIES_MAX, copies
        assert sum(run.tally.from_origin for run in runs.values()) <= 1.02 * SIZE


async def test_a_zone_of_one_is_no_special_case(autojump_clock: object) -> None:
    async with zoned("a", "b", "b", "c") as (net, nodes):
        runs = await all_get(nodes, ask_for(URL, digest=DIGEST))
        all_right(nodes, runs)
        assert max(copies_into(net, runs).values()) <= COPIES_MAX, copies_into(net, runs)


async def test_zones_nest(autojump_clock: object) -> None:
    """Two sites of one region, and another region: a byte enters region and site once each."""
    async with zoned(*["eu/ams"] * 3, *["eu/fra"] * 3, *["us/nyc"] * 3) as (net, nodes):
        runs = await all_get(nodes, ask_for(URL, digest=DIGEST))
        all_right(nodes, runs)
        copies = copies_into(net, runs)
        assert copies.keys() == {"eu", "eu/ams", "eu/fra", "us", "us/nyc"}
        assert max(copies.values()) <= COPIES_MAX, copies


async def test_a_newcomer_takes_it_from_its_own_zone(autojump_clock: object) -> None:
    async with zoned(*["a"] * 3, *["b"] * 3) as (net, nodes):
        runs = await all_get(nodes, ask_for(URL, digest=DIGEST))
        before = dict(net.entered_bytes)
        late = await net.add(zone="b")
        runs[late] = await get(late, ask_for(URL, digest=DIGEST))
        all_right([late], runs)
        assert runs[late].tally.from_origin == 0
        assert net.entered_bytes == before


async def test_the_keeper_of_a_zone_dies(autojump_clock: object) -> None:
    """Others keep it; what was being brought is not brought again by everybody."""
    async with zoned(*["a"] * 4, *["b"] * 5) as (net, nodes):
        ask = ask_for(URL, digest=DIGEST)
        runs: dict[Node, TaskRun] = {}
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_get_to_the_end, node, ask, runs)
            victim = await _keeper_of(nodes, runs, "b")
            net.kill(victim)
        left = [node for node in nodes if node is not victim]
        all_right(left, runs)
        lost = runs[victim].tally
        brought = copies_into(net, runs)["b"] - sum(lost.from_peers.values()) / SIZE
        assert brought <= COPIES_MAX + lost.from_origin / SIZE, copies_into(net, runs)


async def test_what_anybody_read_its_zone_knows_at_once(autojump_clock: object) -> None:
    """Before it is in sight of those who would bring it in."""
    async with zoned(*["a"] * 2, *["b"] * 3, rate_bytes_s=SIZE / 8) as (_, nodes):
        ask, inside = ask_for(URL, digest=DIGEST), nodes[2:]
        runs: dict[Node, TaskRun] = {}
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_get_to_the_end, node, ask, runs)
            keeper = await _keeper_of(nodes, runs, "b")
            looked = 0
            while not all(runs[node].finished.is_set() for node in inside):
                held = 0
                for node in inside:
                    stored = runs[node].stored
                    held |= stored.held.bits if stored is not None else 0
                await trio.sleep(0.03)
                assert not held & ~_covered(keeper, runs[keeper], "b")
                looked += held > 0
        assert looked > 3


async def test_who_says_that_a_zone_holds_what_nobody_there_has_only_delays(
    autojump_clock: object,
) -> None:
    """A holder went without a word: what it had is brought again, after a while."""
    async with zoned(*["a"] * 2, *["b"] * 2) as (_, nodes):
        ask = ask_for(URL, digest=DIGEST)
        runs = {nodes[2]: await get(nodes[2], ask)}
        await trio.sleep(1)
        await nodes[2].swarm.remove(runs[nodes[2]].task)
        runs[nodes[3]] = await get(nodes[3], ask)
        all_right([nodes[3]], runs)


async def _get_to_the_end(node: Node, ask: Ask, runs: dict[Node, TaskRun]) -> None:
    """However it ends: a killed one ends with an error."""
    async with node.swarm.wanted(ask) as run:
        runs[node] = run
        with trio.move_on_after(600):
            await run.finished.wait()
        assert run.finished.is_set(), run.story()


def _covered(keeper: Node, run: TaskRun, scope: str) -> int:
    """What the keeper of a scope knows to be held in it."""
    assert run.stored is not None
    kept = keeper.keepers.core.kept(seat_id(run.stored.info.version, scope))
    assert kept is not None
    return kept.roster.covered


async def _keeper_of(nodes: list[Node], runs: dict[Node, TaskRun], scope: str) -> Node:
    """Once something was brought into the scope: who keeps it."""
    while True:
        await trio.sleep(0.005)
        for node in nodes:
            stored = runs[node].stored if node in runs else None
            if stored is None or not stored.held:
                continue
            kept = node.keepers.core.kept(seat_id(stored.info.version, scope))
            if kept is not None and kept.book.by_holder:
                return node
