"""What waits to be sent on one link: who waits for room is told, however many they are; what goes
in small frames is read in large parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from peerd.ids import PieceIndex
from peerd.link.buffers import BufferPool
from peerd.link.frames import DirectionKey, PieceFrame, open_frame, parse_plaintext
from peerd.link.outgoing import CIRCUIT_ROOM_BYTES, Outgoing, PieceJob, Result
from peerd.link.pace import Pace
from peerd.rate import TokenBucket
from peerd.units import KIB, MIB
from tests.link.helper import VERSION, attested


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


class Counted:
    """An Offload that counts the hops, and a PieceSource that counts the reads."""

    def __init__(self, data: bytes) -> None:
        self.hops = 0
        self.reads: list[tuple[int, int]] = []
        self._data = data

    async def __call__(self, work: Callable[[], Result]) -> Result:
        self.hops += 1
        return await inline(work)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.reads.append((offset_bytes, len(buffer)))
        buffer[:] = self._data[offset_bytes : offset_bytes + len(buffer)]


@pytest.mark.parametrize(
    ("rate", "frames", "reads"),
    [
        (MIB, 12, [(0, 256 * KIB), (262_140, 256 * KIB), (524_280, 88_072)]),
        (8 * MIB, 2, [(0, 419_430), (419_430, 192_922)]),
    ],
    ids=["small frames", "large frames"],
)
async def test_a_piece_in_small_frames_is_read_ahead(
    autojump_clock: Any, rate: int, frames: int, reads: list[tuple[int, int]]
) -> None:
    data = bytes(range(256)) * 2392
    disk = Counted(data)
    pace = Pace()
    pace.sent(rate, 1.0)
    sealing, opening = DirectionKey(b"k" * 32), DirectionKey(b"k" * 32)
    queue = Outgoing(sealing, BufferPool(), pace, TokenBucket(None), disk)
    job = PieceJob(VERSION, PieceIndex(0), len(data), attested(0), disk)
    queue.put_piece(job)
    came = b""
    for _ in range(frames):
        batch = await queue.next_batch()
        assert batch is not None
        part = parse_plaintext(open_frame(opening, memoryview(batch.buffer)[: batch.size_bytes]))
        assert isinstance(part, PieceFrame)
        assert part.offset_bytes == len(came)
        assert part.ends_piece == bool(batch.ends)
        came += part.data
    assert came == data
    assert disk.hops == len(disk.reads), "only for what has to be read"
    assert disk.reads == reads


async def test_what_cannot_be_read_fails_after_what_was_read_ahead(autojump_clock: Any) -> None:
    class Torn(Counted):
        def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
            if offset_bytes:
                raise OSError("the disk is gone")
            super().read_into(offset_bytes, buffer)

    disk = Torn(bytes(MIB))
    pace = Pace()
    pace.sent(MIB, 1.0)
    queue = Outgoing(DirectionKey(b"k" * 32), BufferPool(), pace, TokenBucket(None), disk)
    job = PieceJob(VERSION, PieceIndex(0), MIB, attested(0), disk)
    queue.put_piece(job)
    for _ in range(5):
        assert await queue.next_batch() is not None
        assert not job.done.is_set()
    with trio.move_on_after(1):
        await queue.next_batch()
    assert isinstance(job.error, OSError)
    assert job.done.is_set()
