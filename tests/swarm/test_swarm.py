"""Whole groups in one process, in virtual time: real cores and shells over in-memory neighbours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio

from peerd.errors import DigestMismatch, OriginNotFound, OriginRefused
from peerd.origin.memory import MemoryOrigin
from peerd.rendezvous import ranked
from peerd.swarm.run import TaskRun
from peerd.task import Ask, ask_for, task_id
from peerd.units import KIB, MIB
from tests.swarm.network import Net, Node

URL = "http://origin/model"
SIZE = 8 * MIB + 12345
CONTENT = Random(7).randbytes(SIZE)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@asynccontextmanager
async def group(count: int, origin: MemoryOrigin) -> AsyncIterator[tuple[Net, list[Node]]]:
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        nodes = [await net.add() for _ in range(count)]
        yield net, nodes
        nursery.cancel_scope.cancel()


PATIENCE_S = 600.0
"""Of virtual time: a download that takes longer is stuck."""


async def get(node: Node, ask: Ask, runs: dict[Node, TaskRun] | None = None) -> TaskRun:
    async with node.swarm.wanted(ask) as run:
        if runs is not None:
            runs[node] = run
        with trio.move_on_after(PATIENCE_S):
            await run.finished.wait()
        kept = [line for each in node.net.nodes.values() for line in each.keepers.story(run.task)]
        assert run.finished.is_set(), "\n".join(
            [run.state, *run.story(), _core(run), "keepers:", *kept]
        )
    return run


async def all_get(nodes: Sequence[Node], ask: Ask) -> dict[Node, TaskRun]:
    runs: dict[Node, TaskRun] = {}
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(get, node, ask, runs)
    return runs


def _core(run: TaskRun) -> str:
    picker = run.core.picker
    lacking = list(picker.held.missing()) if picker else []
    return f"lacks {lacking}, parents {list(run.core.parents)}, known {run.core.parents.known}"


def content_of(run: TaskRun) -> bytes:
    assert run.error is None, run.story()
    assert run.stored is not None
    descriptor = run.stored.descriptor()
    try:
        return os.pread(descriptor, 1 << 30, 0)
    finally:
        os.close(descriptor)


def check_right(runs: dict[Node, TaskRun], content: bytes = CONTENT) -> None:
    for run in runs.values():
        assert content_of(run) == content, run.story()
        run.core.validate()


def copies(origin: MemoryOrigin, size: int = SIZE) -> float:
    return origin.bytes_read / size


AUDITS = 2 * 256 * KIB / SIZE
"""Of 33 pieces an audit or two is more than 1 %: allowed for, where audits can happen."""


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("digest", [DIGEST, None])
async def test_a_flash_crowd_reads_the_origin_once(
    autojump_clock: Any, ranged: bool, digest: str | None
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, ranged=ranged, delay_s=0.01)
    async with group(8, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL, digest=digest)))
        assert copies(origin) <= 1 + AUDITS


@pytest.mark.parametrize("size", [0, 1, 256 * KIB, 256 * KIB + 1])
async def test_small_contents(autojump_clock: Any, size: int) -> None:
    origin = MemoryOrigin({URL: CONTENT[:size]})
    async with group(3, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL)), CONTENT[:size])
        assert origin.bytes_read <= 2 * size


async def test_content_of_unknown_length(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, unknown_length=True, ranged=False)
    async with group(4, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL)))
        assert copies(origin) == 1


async def test_neither_length_nor_validator(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, unknown_length=True, ranged=False, validators=False)
    async with group(4, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL)))
        assert copies(origin) == 1


async def test_a_latecomer_reads_nothing_from_the_origin(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(3, origin) as (net, nodes):
        check_right(await all_get(nodes, ask_for(URL)))
        before = origin.bytes_read
        late = await net.add()
        await trio.sleep(1)
        run = await get(late, ask_for(URL))
        assert content_of(run) == CONTENT
        assert origin.bytes_read == before
        assert run.tally.from_origin == 0


async def test_a_second_get_is_from_the_store(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(1, origin) as (_, [node]):
        await get(node, ask_for(URL))
        run = await get(node, ask_for(URL))
        assert run.tally.from_store == SIZE
        assert copies(origin) == 1


async def test_old_content_is_revalidated_once_and_not_read_again(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(3, origin) as (_, nodes):
        await all_get(nodes, ask_for(URL))
        read = origin.bytes_read
        await trio.sleep(100)
        check_right(await all_get(nodes, ask_for(URL)))
        assert origin.bytes_read == read


async def test_a_newcomer_that_revalidates_for_the_group_reads_nothing(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(4, origin) as (_, nodes):
        await all_get(nodes[:3], ask_for(URL))
        read = origin.bytes_read
        await trio.sleep(100)
        check_right({nodes[3]: await get(nodes[3], ask_for(URL))})
        assert origin.bytes_read == read


async def test_changed_content_is_a_new_version(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(3, origin) as (_, nodes):
        await all_get(nodes, ask_for(URL))
        origin.contents[URL] = CONTENT[::-1]
        await trio.sleep(100)
        check_right(await all_get(nodes, ask_for(URL)), CONTENT[::-1])


async def test_content_that_changes_in_mid_download_is_never_mixed(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=MIB / 2)
    async with group(4, origin) as (_, nodes), trio.open_nursery() as nursery:
        runs: dict[Node, TaskRun] = {}
        for node in nodes:
            nursery.start_soon(get, node, ask_for(URL), runs)
        await trio.sleep(0.1)
        origin.contents[URL] = CONTENT[::-1]
    check_right(runs, CONTENT[::-1])


async def test_the_origin_is_down_and_what_is_known_is_given_with_its_age(
    autojump_clock: Any,
) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(2, origin) as (_, nodes):
        await all_get(nodes, ask_for(URL))
        await trio.sleep(100)
        origin.fail_next(OriginNotFound("gone"), times=1)
        origin.contents.clear()
        runs = await all_get(nodes, ask_for(URL))
        assert {type(run.error) for run in runs.values()} <= {type(None), OriginNotFound}


async def test_not_found_is_everybodys_error(autojump_clock: Any) -> None:
    origin = MemoryOrigin({})
    async with group(3, origin) as (_, nodes):
        runs = await all_get(nodes, ask_for(URL))
        assert {type(run.error) for run in runs.values()} == {OriginNotFound}


async def test_who_is_refused_gets_it_from_who_is_not(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, required_header=("x-token", "yes"))
    async with group(3, origin) as (_, nodes), trio.open_nursery() as nursery:
        runs: dict[Node, TaskRun] = {}
        allowed = ask_for(URL, digest=DIGEST, headers=[("X-Token", "yes")])
        for node, ask in zip(nodes, [allowed, allowed, ask_for(URL, digest=DIGEST)], strict=True):
            nursery.start_soon(get, node, ask, runs)
    check_right(runs)


async def test_refused_by_all_is_an_error(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, required_header=("x-token", "yes"))
    async with group(2, origin) as (_, nodes):
        runs = await all_get(nodes, ask_for(URL))
        assert {type(run.error) for run in runs.values()} == {OriginRefused}


async def test_credentials_without_a_digest_stay_on_one_machine(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, required_header=("x-token", "yes"))
    async with group(3, origin) as (_, nodes):
        ask = ask_for(URL, headers=[("X-Token", "yes")])
        check_right(await all_get(nodes, ask))
        assert copies(origin) == 3
        tasks = {task_id(ask, node.key.seed) for node in nodes}
        assert len(tasks) == 3
        known = {task for node in nodes for task in node.keepers.core.tasks_kept()}
        assert not known & tasks, "no keeper was told"
        assert not any(node.keepers._seekers for node in nodes), "and nothing goes on"


async def test_a_wrong_digest_is_said_and_nothing_is_kept(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(1, origin) as (_, [node]):
        run = await get(node, ask_for(URL, digest="sha256:" + "0" * 64))
        assert isinstance(run.error, DigestMismatch)
        assert not node.store.versions()


@pytest.mark.parametrize("place", [0, 1, 2, 5])
async def test_a_peer_dies_in_mid_download(autojump_clock: Any, place: int) -> None:
    """The keeper (place 0), its standbys, or any other."""
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=1 * MIB)
    async with group(6, origin) as (net, nodes), trio.open_nursery() as nursery:
        ask = ask_for(URL)
        runs: dict[Node, TaskRun] = {}
        order = ranked([node.own for node in nodes], task_id(ask, b""))
        for node in nodes:
            nursery.start_soon(get, node, ask, runs)
        await trio.sleep(0.6)
        dead = net.nodes[order[place]]
        lost = runs[dead].stored
        net.kill(dead)
    del runs[dead]
    check_right(runs)
    held = lost.info.bytes_of(lost.held) / SIZE if lost else 0
    assert copies(origin) <= 1 + AUDITS + held


class Corrupter(Node):
    def spoil(self, data: bytearray) -> None:
        data[len(data) // 2] ^= 1


async def test_a_corrupting_parent_is_blocked_and_named(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    async with group(3, origin) as (_, nodes):
        bad, *good = nodes
        await get(bad, ask_for(URL))
        bad.spoil = Corrupter.spoil.__get__(bad)  # type: ignore[method-assign]
        await trio.sleep(1)
        runs = await all_get(good, ask_for(URL))
        check_right(runs)
        assert any(bad.own in run.blocked() for run in runs.values())


async def test_a_caller_that_goes_leaves_what_it_fetched_to_others(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=1 * MIB)
    async with group(2, origin) as (_, [one, two]):
        with trio.move_on_after(0.6):
            await get(one, ask_for(URL))
        await trio.sleep(0.1)
        stored = one.store.versions()[0]
        held = stored.info.bytes_of(stored.held)
        assert held > 0
        run = await get(two, ask_for(URL))
        assert content_of(run) == CONTENT
        assert copies(origin) <= 1 + AUDITS, "what one had read was not read again"
        assert sum(run.tally.from_peers.values()) >= held * 0.9


async def test_errors_of_the_origin_pass(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    origin.cut_next(100_000, times=3)
    async with group(3, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL)))


@pytest.mark.parametrize("dead", [True, False])
async def test_seeds_that_are_dead_or_cannot_read_the_origin_cost_nothing(
    autojump_clock: Any, dead: bool
) -> None:
    """All take them for members: dead ones are silent, those that answer the origin refuses."""
    origin, walled = MemoryOrigin({URL: CONTENT}, rate_bytes_s=1 * MIB), MemoryOrigin({})
    walled.refused.add(URL)
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        seeds = [await net.add(seed=True, origin=walled) for _ in range(2)]
        nodes = [await net.add() for _ in range(4)]
        if dead:
            for seed in seeds:
                seed.scope.cancel()
        began = trio.current_time()
        check_right(await all_get(nodes, ask_for(URL)))
        assert copies(origin) <= 1 + AUDITS
        assert trio.current_time() - began < 2 * SIZE / MIB
        assert walled.bytes_read == 0
        nursery.cancel_scope.cancel()


async def test_seed_peers_are_enlisted_and_keep_it(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=1 * MIB)
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        seed = await net.add(seed=True)
        node = await net.add()
        run = await get(node, ask_for(URL))
        assert content_of(run) == CONTENT
        with trio.move_on_after(30):
            while not (seed.store.versions() and seed.store.versions()[0].complete):
                await trio.sleep(0.1)
        assert seed.store.versions()[0].complete
        assert copies(origin) <= 1 + AUDITS
        nursery.cancel_scope.cancel()
