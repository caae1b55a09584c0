"""One suite for both stores: on disk and in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from peerd.errors import RemoteProtocolError
from peerd.ids import PieceIndex, VersionId
from peerd.pieces import PieceSet
from peerd.store.disk import DiskStore
from peerd.store.memory import MemoryStore
from peerd.swarm.ports import PieceStore
from tests.store.helper import (
    BOOT,
    OTHER,
    ask_of,
    attested,
    content,
    info_of,
    piece,
    put,
    put_all,
    read,
    write,
)


@asynccontextmanager
async def opened(kind: str, directory: Path) -> AsyncIterator[PieceStore]:
    if kind == "memory":
        yield MemoryStore()
    else:
        async with DiskStore.open(directory, boot_id=BOOT) as store:
            yield store


@pytest.fixture(params=["disk", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PieceStore]:
    async with opened(request.param, tmp_path) as store:
        yield store


async def test_a_version_from_nothing_to_complete(store: PieceStore) -> None:
    info = info_of(length=1000, piece=256)
    stored = await store.create(ask_of(), info)
    assert stored.info == info
    assert not stored.held
    for index in (3, 0, 2, 1):
        await put(stored, index)
        assert index in stored.held
    await stored.finish()
    assert stored.complete
    assert b"".join(read(stored, i, info.span(i)[1]) for i in range(4)) == content(info)


async def test_a_piece_counts_only_once_it_is_acknowledged(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await write(stored, 1, piece(stored.info, 1, content(stored.info)))
    assert 1 not in stored.held
    assert stored.attestation(PieceIndex(1)) is None
    with pytest.raises(OSError, match="not held"):
        read(stored, 1, 256)


async def test_held_is_a_copy(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    stored.held.add(0)
    assert not stored.held


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257])
async def test_small_and_uneven_content(store: PieceStore, length: int) -> None:
    info = info_of(length=length, piece=256)
    stored = await store.create(ask_of(), info)
    await put_all(stored)
    assert stored.held.complete()
    await stored.finish()
    descriptor = stored.descriptor()
    try:
        assert os.pread(descriptor, 4096, 0) == content(info)
        assert os.fstat(descriptor).st_size == length
    finally:
        os.close(descriptor)


async def test_a_descriptor_cannot_be_written(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=10))
    await put_all(stored)
    await stored.finish()
    descriptor = stored.descriptor()
    try:
        with pytest.raises(OSError):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


async def test_an_incomplete_version_gives_no_descriptor_and_does_not_finish(
    store: PieceStore,
) -> None:
    stored = await store.create(ask_of(), info_of())
    await put(stored, 0)
    with pytest.raises(ValueError):
        stored.descriptor()
    with pytest.raises(ValueError):
        await stored.finish()


async def test_a_descriptor_outlives_the_removal(store: PieceStore) -> None:
    info = info_of()
    stored = await store.create(ask_of(), info)
    await put_all(stored)
    await stored.finish()
    descriptor = stored.descriptor()
    try:
        await store.remove(info.version)
        assert os.pread(descriptor, 4096, 0) == content(info)
    finally:
        os.close(descriptor)


async def test_removed_is_gone_and_late_hands_do_no_harm(store: PieceStore) -> None:
    info = info_of()
    old = await store.create(ask_of(), info)
    await put_all(old)
    await store.remove(info.version)
    assert store.versions() == []
    assert store.asked(info.task) is None
    assert not old.held
    assert not old.complete
    assert not await old.check(PieceIndex(0))
    with pytest.raises(OSError):
        read(old, 0, 256)
    again = await store.create(ask_of(), info)
    with pytest.raises(OSError):
        await write(old, 0, bytes(256))
    await old.acknowledge(PieceIndex(0), attested(info, 0, bytes(256)))
    assert not old.held
    assert not again.held
    await store.remove(VersionId("f" * 64))


async def test_wrong_sizes_and_places_are_our_mistake(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=1000, piece=256))
    for index, size in ((0, 255), (0, 257), (3, 256), (4, 1), (-1, 256)):
        with pytest.raises(ValueError):
            await write(stored, index, bytes(size))


async def test_nothing_has_a_place_in_empty_content(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=0))
    for index in (-1, 0):
        with pytest.raises(ValueError):
            await write(stored, index, b"")


async def test_reading_beyond_a_piece_is_refused(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=300, piece=256))
    await put_all(stored)
    assert read(stored, 1, 44) == content(stored.info)[256:]
    with pytest.raises(OSError):
        read(stored, 1, 45)
    with pytest.raises(OSError):
        stored.read_into(PieceIndex(0), 250, memoryview(bytearray(7)))
    with pytest.raises(OSError):
        stored.read_into(PieceIndex(1), -1, memoryview(bytearray(1)))
    tail = bytearray(6)
    stored.read_into(PieceIndex(0), 250, memoryview(tail))
    assert tail == content(stored.info)[250:256]


async def test_a_held_piece_is_not_written_over(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await put(stored, 0)
    await write(stored, 0, bytes(256))
    await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, bytes(256), OTHER))
    kept = stored.attestation(PieceIndex(0))
    assert kept is not None
    assert kept.attester != OTHER
    assert read(stored, 0, 256) == content(stored.info)[:256]


async def test_two_who_write_different_bytes_are_told_apart(store: PieceStore) -> None:
    """In the endgame a piece comes twice; where one attester lies, the bytes differ."""
    stored = await store.create(ask_of(), info_of())
    one, other = bytes(256), bytes([1]) * 256
    await write(stored, 0, one)
    await write(stored, 0, other)
    await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, one))
    assert 0 not in stored.held
    await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, other))
    assert 0 in stored.held
    assert read(stored, 0, 256) == other


async def test_what_is_not_written_is_not_acknowledged(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, bytes(256)))
    assert not stored.held


async def test_dropped_pieces_are_fetched_again(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await put_all(stored)
    await stored.finish()
    await stored.drop([PieceIndex(1), PieceIndex(2), PieceIndex(99)])
    assert list(stored.held) == [0, 3]
    with pytest.raises(ValueError):
        stored.descriptor()
    assert stored.attestation(PieceIndex(1)) is None
    assert not await stored.check(PieceIndex(1))
    await stored.acknowledge(PieceIndex(1), attested(stored.info, 1, bytes(256)))
    assert 1 not in stored.held
    await put(stored, 1)
    await put(stored, 2)
    await stored.finish()
    assert stored.complete
    assert read(stored, 1, 256) == content(stored.info)[256:512]


async def test_a_written_piece_that_is_dropped_does_not_count_any_more(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await write(stored, 0, bytes(256))
    await stored.drop([PieceIndex(0)])
    await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, bytes(256)))
    assert not stored.held


async def test_attestations_are_kept_as_they_were_given(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=300 * 4, piece=4))
    await put_all(stored)
    data = content(stored.info)
    for index in (0, 127, 128, 299):
        made = attested(stored.info, index, piece(stored.info, index, data))
        assert stored.attestation(PieceIndex(index)) == made


async def test_content_of_unknown_length_grows_until_its_end(store: PieceStore) -> None:
    open_ended = info_of(length=None, piece=256)
    data = content(open_ended, 600)
    stored = await store.create(ask_of(), open_ended)
    assert stored.held == PieceSet(0)
    for index in (2, 0, 1):
        await put(stored, index, piece(open_ended, index, data))
    with pytest.raises(ValueError):
        await stored.finish()
    assert read(stored, 2, 88) == data[512:]
    ended = info_of(length=600, piece=256)
    await stored.set_info(ended)
    assert stored.info == ended
    assert stored.held.complete()
    await stored.finish()
    descriptor = stored.descriptor()
    try:
        assert os.pread(descriptor, 4096, 0) == data
        assert os.fstat(descriptor).st_size == 600
    finally:
        os.close(descriptor)


async def test_an_end_drops_what_lies_beyond_it_or_does_not_fit(store: PieceStore) -> None:
    """Somebody claimed pieces that the content does not have, or ended one in its middle."""
    stored = await store.create(ask_of(), info_of(length=None, piece=256))
    await put(stored, 0, bytes(256))
    await put(stored, 1, bytes(100))
    await put(stored, 2, bytes(256))
    await put(stored, 3, bytes(256))
    await stored.set_info(info_of(length=700, piece=256))
    assert list(stored.held) == [0]
    assert stored.held.count == 3


async def test_an_empty_end(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=None))
    await stored.set_info(info_of(length=0))
    await stored.finish()
    assert stored.complete


async def test_another_piece_length_drops_all(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=1000, piece=256))
    await put_all(stored)
    await stored.set_info(info_of(length=1000, piece=500))
    assert stored.held == PieceSet(2)


async def test_a_successor_must_be_of_the_same_content(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of("a"))
    with pytest.raises(RemoteProtocolError):
        await stored.set_info(info_of("b"))
    await put_all(stored)
    await stored.finish()
    with pytest.raises(RemoteProtocolError):
        await stored.set_info(info_of("a", length=999))
    await stored.set_info(info_of("a"))
    assert stored.complete


async def test_a_version_id_names_one_task(store: PieceStore) -> None:
    mine = info_of(task="mine")
    stolen = type(mine)(
        info_of(task="theirs").task, mine.version, mine.length_bytes, mine.piece_length_bytes,
        mine.validator, mine.ranged, mine.digest, mine.attester, mine.signature,
    )  # fmt: skip
    await store.create(ask_of(), mine)
    with pytest.raises(RemoteProtocolError):
        await store.create(ask_of(), stolen)


async def test_creating_again_finds_what_is_there(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await put(stored, 0)
    again = await store.create(ask_of(), info_of())
    assert again is stored
    lie = await store.create(ask_of(), info_of(length=5000))
    assert lie is stored
    assert lie.info == info_of()
    await stored.drop([PieceIndex(0)])
    await store.create(ask_of(), info_of(length=5000))
    assert stored.info == info_of(length=5000)


async def test_a_length_once_known_stays(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=1000))
    await put(stored, 0)
    await store.create(ask_of(), info_of(length=None))
    await stored.set_info(info_of(length=None))
    assert stored.info == info_of(length=1000)
    assert list(stored.held) == [0]


async def test_creating_with_a_length_tells_it_to_a_version_without(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=None))
    await put(stored, 0, bytes(256))
    await store.create(ask_of(), info_of(length=1000))
    assert stored.info.length_bytes == 1000
    assert list(stored.held) == [0]


async def test_the_newest_version_of_a_task_comes_first(store: PieceStore) -> None:
    a = await store.create(ask_of(), info_of("a"))
    b = await store.create(ask_of(), info_of("b"))
    other = await store.create(ask_of(), info_of("c", task="other"))
    assert store.versions() == [other, b, a]
    assert store.versions(a.info.task) == [b, a]
    await store.create(ask_of(), info_of("a"))
    assert store.versions(a.info.task) == [a, b]


async def test_the_ask_is_kept_without_its_credentials(store: PieceStore) -> None:
    info = info_of()
    await store.create(ask_of(), info)
    kept = store.asked(info.task)
    assert kept is not None
    assert kept.spec == ask_of().spec
    assert kept.credentials == ()
    assert store.asked(info_of(task="other").task) is None


async def test_how_its_download_went_is_kept_with_it(store: PieceStore) -> None:
    version = info_of().version
    await store.create(ask_of(), info_of())
    assert store.account(version) == b""
    await store.set_account(version, b"one")
    await store.set_account(version, b"another")
    assert store.account(version) == b"another"
    await store.remove(version)
    assert store.account(version) == b""
    await store.set_account(version, b"too late")
    assert store.account(version) == b""


async def test_when_it_was_validated(store: PieceStore) -> None:
    version = info_of().version
    assert store.validated_at(version) == 0.0
    await store.set_validated(version, 5.0)
    assert store.validated_at(version) == 0.0
    await store.create(ask_of(), info_of())
    await store.set_validated(version, 1234.5)
    assert store.validated_at(version) == 1234.5


async def test_check_of_what_is_proven_or_not_held(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of())
    await put(stored, 0)
    assert await stored.check(PieceIndex(0))
    assert not await stored.check(PieceIndex(1))
    await stored.prove()
    assert list(stored.held) == [0]


async def test_many_pieces_at_once(store: PieceStore) -> None:
    stored = await store.create(ask_of(), info_of(length=64 * 200, piece=64))
    async with trio.open_nursery() as nursery:
        for index in range(200):
            nursery.start_soon(put, stored, index)
            nursery.start_soon(put, stored, index)
    assert stored.held.complete()
    data = content(stored.info)
    assert all(read(stored, i, 64) == piece(stored.info, i, data) for i in range(200))


async def test_counters_add_up(store: MemoryStore | DiskStore) -> None:
    assert store.counters() == {}
    await store.add_counters({"origin_bytes": 5, "saved_bytes": 0})
    await store.add_counters({"origin_bytes": 7, "peer_bytes_in": 1})
    assert store.counters() == {"origin_bytes": 12, "peer_bytes_in": 1}
