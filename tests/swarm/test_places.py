"""Which of a peer's tasks comes first, as a leader said, for as long as that counts."""

from __future__ import annotations

from math import inf
from typing import Any

import trio

from peerd.ids import PeerId, TaskId
from peerd.origin.memory import MemoryOrigin
from peerd.scheduler.advising import PeerAdvice
from peerd.swarm.places import Places
from peerd.task import ask_for, task_id
from peerd.units import MIB
from tests.swarm.test_swarm import CONTENT, URL, get, group

URGENT = "http://origin/urgent"
ONE, TWO, THREE = (TaskId(letter * 64) for letter in "abc")


def test_who_comes_behind_whom_and_until_when() -> None:
    places = Places()
    assert places.told(TWO, 1, until=20.0, now=0.0) == {TWO: 1}
    assert places.behind_until(TWO, [ONE, TWO]) == -inf, "nothing was said of the other"
    assert places.told(ONE, 0, until=10.0, now=0.0) == {TWO: 1, ONE: 0}
    assert places.behind_until(TWO, [ONE, TWO]) == 10.0
    assert places.behind_until(ONE, [ONE, TWO]) == -inf, "it is the first"
    assert places.behind_until(TWO, [TWO, THREE]) == -inf, "the first one has ended"
    assert places.told(THREE, 2, until=30.0, now=15.0) == {TWO: 1, THREE: 2}, "10 s are over"


async def test_it_goes_on_as_usual_when_the_one_before_it_has_ended(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT, URGENT: CONTENT[:MIB]}, delay_s=0.05)
    async with group(1, origin) as (_, (node,)), trio.open_nursery() as nursery:
        asks = {URL: ask_for(URL), URGENT: ask_for(URGENT)}
        for ask in asks.values():
            nursery.start_soon(get, node, ask)
        await trio.sleep(0.1)
        runs = {url: node.swarm.runs()[task_id(ask, b"")] for url, ask in asks.items()}
        until = trio.current_time() + 60.0
        for place, url in enumerate((URGENT, URL)):
            leader = PeerId("leader")
            node.swarm.advised(PeerAdvice(runs[url].task, leader, 1, until, place))
        await trio.testing.wait_all_tasks_blocked()
        assert [runs[url].core.comes_behind for url in (URGENT, URL)] == [False, True]
        await runs[URGENT].finished.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not runs[URL].finished.is_set()
        assert not runs[URL].core.comes_behind
