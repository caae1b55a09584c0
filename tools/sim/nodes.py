"""Whole nodes, services and all, over memory instead of a network, under a clock that jumps.

Always: every node that is asked ends, right or with an error, or is counted as failed; time is
virtual, and says nothing about rates: this level is for what shells do, `run` for how fast it is.
"""

from __future__ import annotations

import hashlib
import os
from random import Random
from typing import Any

import trio
import trio.testing

from peerd.origin.memory import MemoryOrigin
from peerd.scheduler.keeper import KeeperCore
from peerd.swarm.run import TaskRun
from peerd.task import Ask, ask_for
from tools.sim.nodes_net import Net, Node

URL = "http://origin/content"
PATIENCE_S = 600.0
"""Of virtual time: a download that takes longer is stuck."""


def run_nodes(count: int, size_bytes: int, kills: int, seed: int) -> dict[str, Any]:
    """`count` nodes want the same content at once; `kills` of them die soon after."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_crowd, count, size_bytes, kills, seed, clock=clock)


async def _crowd(count: int, size_bytes: int, kills: int, seed: int) -> dict[str, Any]:
    rng = Random(seed)
    content = rng.randbytes(size_bytes)
    ask = ask_for(URL, digest="sha256:" + hashlib.sha256(content).hexdigest())
    origin = MemoryOrigin({URL: content}, delay_s=0.01, rate_bytes_s=12.5e6)
    runs: dict[int, TaskRun] = {}
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery, seed)
        nodes = [await net.add() for _ in range(count)]
        begin_s = trio.current_time()
        victims = nodes[:kills]
        async with trio.open_nursery() as askers:
            for number, node in enumerate(nodes):
                askers.start_soon(_get, node, ask, runs, number)
            for victim in victims:
                await trio.sleep(0.02)
                net.kill(victim)
        seconds = trio.current_time() - begin_s
        cells = sum(_cells_kept(node.keepers.core) for node in nodes)
        nursery.cancel_scope.cancel()
    wanted = [run for number, run in runs.items() if nodes[number] not in victims]
    return {
        "peers": count,
        "killed": kills,
        "failed": sum(run.error is not None or not run.finished.is_set() for run in wanted),
        "right": sum(_content(run) == content for run in wanted),
        "origin_copies": round(origin.bytes_read / size_bytes, 4),
        "cells": cells,
        "seconds": round(seconds, 3),
        "seed": seed,
    }


def _cells_kept(core: KeeperCore) -> int:
    kept = (core.kept(task) for task in core.tasks_kept())
    return sum(1 for each in kept if each is not None and each.cell)


async def _get(node: Node, ask: Ask, runs: dict[int, TaskRun], number: int) -> None:
    async with node.swarm.wanted(ask) as run:
        runs[number] = run
        with trio.move_on_after(PATIENCE_S):
            await run.finished.wait()


def _content(run: TaskRun) -> bytes | None:
    if run.error is not None or run.stored is None or not run.stored.complete:
        return None
    descriptor = run.stored.descriptor()
    try:
        return os.pread(descriptor, 1 << 30, 0)
    finally:
        os.close(descriptor)
