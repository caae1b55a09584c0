"""Frames that came: in the order of the wire, and no hop to a thread for what is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from peerd.ids import PieceIndex
from peerd.link.assembler import SealedFrame
from peerd.link.buffers import BufferPool
from peerd.link.counters import Counters
from peerd.link.frames import (
    PIECE_HEAD_MAX_BYTES,
    SEAL_BYTES,
    DirectionKey,
    encode_attestation,
    message_frame,
    seal_frame,
    write_piece_head,
)
from peerd.link.incoming import Incoming
from peerd.link.messages import encode_message
from peerd.units import KIB
from tests.link.helper import KEYS, VERSION, Recorder, attested, have

Result = TypeVar("Result")


class Held:
    """An Offload whose work waits until it is let go."""

    def __init__(self) -> None:
        self.hops = 0
        self.go = trio.Event()

    async def __call__(self, work: Callable[[], Result]) -> Result:
        self.hops += 1
        await self.go.wait()
        return work()


class Wire:
    """Seals frames as the other side does."""

    def __init__(self) -> None:
        self._key = DirectionKey(b"k" * 32)

    def part(self, index: int, offset: int, count: int, size: int) -> SealedFrame:
        made = encode_attestation(attested(index)) if offset == 0 else b""
        buffer = bytearray(count + PIECE_HEAD_MAX_BYTES + SEAL_BYTES)
        with memoryview(buffer) as view:
            head = bytes.fromhex(VERSION), index, size, offset, made
            start = write_piece_head(view[4:], *head)
            view[4 + start : 4 + start + count] = bytes((index,)) * count
            return SealedFrame(buffer, seal_frame(self._key, view, start + count))

    def message(self, index: int) -> SealedFrame:
        frame = message_frame(self._key, encode_message(have(index)))
        return SealedFrame(frame, len(frame))


def incoming(told: Recorder, offload: Any) -> Incoming:
    key = DirectionKey(b"k" * 32)
    return Incoming(KEYS[0].peer_id, key, BufferPool(), told, offload, Counters())


async def test_only_the_end_of_a_piece_goes_to_a_thread(autojump_clock: Any) -> None:
    told, threads, wire = Recorder(), Held(), Wire()
    link = incoming(told, threads)
    for offset in (0, 60 * KIB, 120 * KIB):
        assert await link.put(wire.part(7, offset, 60 * KIB, 200 * KIB)) is None
    assert await link.put(wire.message(1)) == have(1), "nothing is before it"
    assert threads.hops == 0
    await link.put(wire.part(7, 180 * KIB, 20 * KIB, 200 * KIB))
    assert await link.put(wire.message(2)) is None, "it waits for the piece"
    threads.go.set()
    assert await link.next_message() == have(2)
    assert threads.hops == 1
    assert told.pieces == {PieceIndex(7): bytes((7,)) * 200 * KIB}


async def test_what_comes_behind_a_thread_s_work_waits_for_it(autojump_clock: Any) -> None:
    told, threads, wire = Recorder(), Held(), Wire()
    link = incoming(told, threads)
    messages = []

    async def deliver() -> None:
        while (message := await link.next_message()) is not None:
            messages.append((message, set(told.pieces)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        await link.put(wire.part(0, 0, 300 * KIB, 300 * KIB))
        await wait_all_tasks_blocked()
        assert threads.hops == 1
        for offset in (0, 60 * KIB):
            assert await link.put(wire.part(1, offset, 60 * KIB, 120 * KIB)) is None
        assert await link.put(wire.message(3)) is None
        await wait_all_tasks_blocked()
        assert told.pieces == {}
        threads.go.set()
        link.finish()
    assert messages == [(have(3), {0, 1})]
