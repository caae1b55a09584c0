"""What waits to be sent on one link: who waits for room is told, however many they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from peerd.link.buffers import BufferPool
from peerd.link.frames import DirectionKey
from peerd.link.outgoing import CIRCUIT_ROOM_BYTES, Outgoing, Result
from peerd.link.pace import Pace
from peerd.rate import TokenBucket


async def inline(work: Callable[[], Result]) -> Result:
    await trio.lowlevel.checkpoint()
    result: Result = work()
    return result


def outgoing() -> Outgoing:
    return Outgoing(DirectionKey(b"k" * 32), BufferPool(), Pace(), TokenBucket(None), inline)


async def waiters(queue: Outgoing, nursery: trio.Nursery, count: int) -> list[int]:
    woken: list[int] = []

    async def wait(number: int) -> None:
        await queue.circuit_room()
        woken.append(number)

    for number in range(count):
        nursery.start_soon(wait, number)
    await wait_all_tasks_blocked()
    assert not woken, "there is no room"
    return woken


async def test_all_circuits_of_a_link_hear_that_there_is_room(autojump_clock: Any) -> None:
    queue = outgoing()
    queue.put_circuit(bytes(CIRCUIT_ROOM_BYTES))
    async with trio.open_nursery() as nursery:
        woken = await waiters(queue, nursery, 3)
        assert await queue.next_batch() is not None
        await wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]


async def test_all_circuits_of_a_link_hear_that_it_ended(autojump_clock: Any) -> None:
    queue = outgoing()
    queue.put_circuit(bytes(CIRCUIT_ROOM_BYTES))
    async with trio.open_nursery() as nursery:
        woken = await waiters(queue, nursery, 3)
        queue.abandon("over")
        await wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]
