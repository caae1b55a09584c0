"""Reading along: bytes in order while they still come, and never a last one that may be wrong."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from random import Random
from typing import Any

import pytest
import trio

from peerd.errors import (
    Cancelled,
    DigestMismatch,
    OriginChanged,
    PeerdError,
    RemoteProtocolError,
    StoreDamaged,
)
from peerd.ids import PieceIndex
from peerd.origin.memory import MemoryOrigin
from peerd.store.memory import MemoryVersion
from peerd.swarm.along import News, Source, opened, parts
from peerd.task import ask_for
from peerd.units import KIB, MIB
from tests.swarm.network import Node
from tests.swarm.test_review import LENGTH, PIECES, hold, info_of, stored_version
from tests.swarm.test_swarm import CONTENT, DIGEST, SIZE, URL, check_right, content_of, get, group

PIECE = 256 * KIB


class Read:
    """What one reader got, when its first and its last byte came, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.first_at = self.quarter_at = self.ended_at = 0.0
        self.error: PeerdError | None = None

    async def read(self, run: Source, first: int = 0, last: int | None = None) -> None:
        began_at = trio.current_time()
        try:
            stored = await opened(run)
            async with aclosing(parts(run, stored, first, last)) as found:
                async for part in found:
                    buffer = memoryview(bytearray(part.size_bytes))
                    part.stored.read_into(part.index, part.offset_bytes, buffer)
                    self.first_at = self.first_at or trio.current_time() - began_at
                    self.data += buffer
                    if (
                        not self.quarter_at
                        and len(self.data) >= (stored.info.length_bytes or 0) / 4
                    ):
                        self.quarter_at = trio.current_time() - began_at
        except PeerdError as error:
            self.error = error
        self.ended_at = trio.current_time() - began_at


async def read_while_it_comes(
    node: Node, ask: Any, *ranges: tuple[int, int | None]
) -> tuple[Any, list[Read]]:
    readers = [Read() for _ in ranges]
    async with node.swarm.wanted(ask) as run, trio.open_nursery() as nursery:
        for reader, (first, last) in zip(readers, ranges, strict=True):
            nursery.start_soon(reader.read, run, first, last)
        with trio.fail_after(600):
            await run.finished.wait()
    return run, readers


async def test_alone_the_origin_is_read_where_readers_wait(autojump_clock: Any) -> None:
    content = Random(1).randbytes(32 * MIB)
    origin = MemoryOrigin({URL: content}, rate_bytes_s=MIB, delay_s=0.01)
    first, last = 20 * MIB, 21 * MIB - 1
    async with group(1, origin) as (_, (node,)):
        run, (whole, some) = await read_while_it_comes(node, ask_for(URL), (0, None), (first, last))
        check_right({node: run}, content)
    assert whole.data == content
    assert some.data == content[first : last + 1]
    assert whole.quarter_at < 0.6 * whole.ended_at
    assert some.ended_at < 0.4 * whole.ended_at


@pytest.mark.parametrize("digest", [DIGEST, None])
async def test_it_comes_in_order_long_before_all_is_here(
    autojump_clock: Any, digest: str | None
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=2 * MIB)
    async with group(1, origin) as (_, (node,)):
        run, (whole,) = await read_while_it_comes(node, ask_for(URL, digest=digest), (0, None))
    assert whole.error is None
    assert whole.data == CONTENT == content_of(run)
    assert whole.first_at < whole.ended_at / 4


async def test_a_range_is_fetched_first_and_ends_long_before_the_rest(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=64 * MIB, delay_s=0.01)
    first, last = 5 * MIB + 17, 6 * MIB
    async with group(2, origin) as (_, nodes):
        async with nodes[0].swarm.wanted(ask_for(URL)) as run:
            await run.finished.wait()
        run, (some, none) = await read_while_it_comes(
            nodes[1], ask_for(URL), (first, last), (SIZE, None)
        )
        check_right({nodes[1]: run})
    assert some.data == CONTENT[first : last + 1]
    assert (none.data, none.error) == (b"", None), "there is nothing behind the end"
    assert run.core.picker is not None
    assert run.core.picker.urgent == {}, "nobody waits any more"


async def test_who_stops_reading_is_waited_for_no_more(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=MIB)
    async with group(1, origin) as (_, (node,)), node.swarm.wanted(ask_for(URL)) as run:
        with trio.move_on_after(1.0):
            await Read().read(run)
        assert run.core.picker is not None
        assert run.core.picker.urgent == {}
        assert not run.finished.is_set(), "the download goes on"


async def test_the_last_piece_waits_for_the_whole_digest_and_never_comes_if_it_is_wrong(
    autojump_clock: Any,
) -> None:
    wrong = "sha256:" + hashlib.sha256(b"something else").hexdigest()
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=4 * MIB)
    async with group(1, origin) as (_, (node,)):
        _, (whole, some) = await read_while_it_comes(
            node, ask_for(URL, digest=wrong), (0, None), (0, PIECE - 1)
        )
    assert isinstance(whole.error, DigestMismatch)
    assert SIZE // 4 < len(whole.data) <= SIZE - SIZE % PIECE
    assert CONTENT.startswith(whole.data)
    assert (some.data, some.error) == (CONTENT[:PIECE], None), "as its attester said"


async def test_a_download_that_ends_too_soon_ends_its_readers_with_its_error(
    autojump_clock: Any,
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=MIB / 4)
    early, late = Read(), Read()
    async with group(1, origin) as (_, (node,)), trio.open_nursery() as nursery:
        async with node.swarm.wanted(ask_for(URL)) as run:
            nursery.start_soon(early.read, run)
            await trio.sleep(2.5)
        await run.finished.wait()
        await late.read(run)
    assert isinstance(early.error, Cancelled)
    assert isinstance(late.error, Cancelled)
    assert 0 < len(early.data) < SIZE
    assert CONTENT.startswith(early.data)
    assert late.data == b""


async def test_another_version_never_goes_on_where_one_began(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=MIB / 2)
    reader = Read()
    async with group(4, origin) as (_, nodes), trio.open_nursery() as nursery:
        runs: dict[Node, Any] = {}
        for node in nodes[1:]:
            nursery.start_soon(get, node, ask_for(URL), runs)
        async with nodes[0].swarm.wanted(ask_for(URL)) as run:
            nursery.start_soon(reader.read, run)
            await opened(run)
            await trio.sleep(0.6)
            origin.contents[URL] = CONTENT[::-1]
            await run.finished.wait()
        assert content_of(run) == CONTENT[::-1]
    assert isinstance(reader.error, OriginChanged)
    assert len(reader.data) < SIZE
    assert CONTENT.startswith(reader.data)


async def test_what_the_disk_has_damaged_meanwhile_is_not_read(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT})
    reader = Read()
    async with group(1, origin) as (_, (node,)), node.swarm.wanted(ask_for(URL)) as run:
        await run.finished.wait()
        stored: Any = run.stored
        stored.lose_power()
        stored._bytes[1][0] ^= 0xFF
        await reader.read(run)
    assert isinstance(reader.error, StoreDamaged)
    assert reader.data == CONTENT[:PIECE]


class Slowly:
    """A download whose pieces come when the test says so."""

    def __init__(self, stored: MemoryVersion) -> None:
        self.stored: Any = stored
        self.error: PeerdError | None = None
        self.finished, self.news = trio.Event(), News()
        self.posted: list[object] = []

    def post(self, event: object) -> None:
        self.posted.append(event)


async def test_who_was_given_what_a_liar_vouched_for_never_gets_to_the_end(
    autojump_clock: Any,
) -> None:
    """It was found out while others still came: all is right in the end, but not what was given."""
    stored = await stored_version(info_of(), held=2)
    await stored.drop([PieceIndex(1)])
    await hold(stored, 1, bytes(LENGTH))
    source, reader = Slowly(stored), Read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, source)
        await trio.sleep(1.0)
        assert reader.data == PIECES[0] + bytes(LENGTH)
        await stored.drop([PieceIndex(1)])
        for index in range(1, 8):
            await hold(stored, index, PIECES[index])
        source.news.tell()
        await trio.sleep(1.0)
        assert len(reader.data) == 7 * LENGTH, "the whole is not known to be right yet"
        await stored.finish()
        source.finished.set()
        source.news.tell()
    assert isinstance(reader.error, RemoteProtocolError)
    assert "piece 1 was vouched for wrongly" in str(reader.error)
    assert len(reader.data) == 7 * LENGTH


class DropsOnce:
    """A stored version: a verdict comes while its first piece is looked at."""

    def __init__(self, stored: MemoryVersion) -> None:
        self._stored, self._dropped = stored, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stored, name)

    async def check(self, index: PieceIndex) -> bool:
        if not self._dropped:
            self._dropped = True
            await self._stored.drop([index])
        return index in self._stored.held


async def test_a_piece_that_is_dropped_while_it_is_looked_at_comes_again(
    autojump_clock: Any,
) -> None:
    stored = await stored_version(info_of(), held=1)
    source, reader = Slowly(stored), Read()
    source.stored = DropsOnce(stored)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read, source, 0, LENGTH - 1)
        await trio.sleep(1.0)
        assert reader.data == b""
        await hold(stored, 0, PIECES[0])
        source.news.tell()
    assert (reader.data, reader.error) == (PIECES[0], None)
