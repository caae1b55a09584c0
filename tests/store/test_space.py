"""Disks that are full, or at their reserve: a clear sentence, and nothing else is harmed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from peerd.errors import NoSpace
from peerd.ids import PieceIndex
from peerd.store.files import FLAGS, DiskFile, DiskFiles
from peerd.store.layout import CONTENT_NAME, Reserve, Space
from peerd.units import GIB, MIB
from tests.store.helper import ask_of, attested, info_of, only, opened, put, put_all, write


class Small(DiskFiles):
    """A file system with so much left, whatever is written."""

    def __init__(self, free: int, total: int = 10 * GIB) -> None:
        self.free, self.total = free, total

    def space(self, directory: Path) -> Space:
        return Space(self.total, self.free)


async def test_the_reserve_is_kept_and_nothing_is_left_behind(fast_path: Path) -> None:
    files = Small(free=GIB + 5000)
    async with opened(fast_path, reserve=Reserve(share=0.1), files=files) as store:
        with pytest.raises(NoSpace, match=rf"no space for 4.9 KiB in {fast_path}/content: .* free"):
            await store.create(ask_of(), info_of(length=5001))
        assert store.versions() == []
        assert store.asked(info_of().task) is None
        assert os.listdir(fast_path / CONTENT_NAME) == []
        stored = await store.create(ask_of(), info_of(length=5000))
        await put_all(stored)
        assert stored.held.complete()
    async with opened(fast_path) as store:
        assert (await only(store)).held.complete()


class SparseFile(DiskFile):
    def allocate(self, offset_bytes: int, size_bytes: int) -> None:
        self.truncate(max(self.sizes()[0], offset_bytes + size_bytes))


class Sparse(Small):
    """One that does not preallocate: free space falls only as bytes are written."""

    def open(self, path: Path, mode: str) -> DiskFile:
        return SparseFile(path, FLAGS[mode])


async def test_what_was_promised_to_others_is_not_given_twice(fast_path: Path) -> None:
    files = Sparse(free=3 * MIB)
    async with opened(fast_path, files=files) as store:
        await store.create(ask_of(), info_of("a", length=2 * MIB))
        with pytest.raises(NoSpace, match=r"2\.0 MiB promised"):
            await store.create(ask_of(), info_of("b", length=2 * MIB))
        await store.remove(info_of("a").version)
        await store.create(ask_of(), info_of("b", length=2 * MIB))
    async with opened(fast_path, files=files) as store:
        with pytest.raises(NoSpace, match="promised"):
            await store.create(ask_of(), info_of("c", length=2 * MIB))


async def test_two_who_ask_at_once_do_not_both_get_the_last_bytes(fast_path: Path) -> None:
    refused: list[NoSpace] = []

    async def ask(name: str) -> None:
        try:
            await store.create(ask_of(), info_of(name, length=2 * MIB))
        except NoSpace as error:
            refused.append(error)

    async with opened(fast_path, files=Sparse(free=3 * MIB)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            nursery.start_soon(ask, "b")
        assert len(refused) == 1
        assert len(store.versions()) == 1


async def test_content_of_unknown_length_stops_at_the_reserve(fast_path: Path) -> None:
    files = Small(free=GIB)
    async with opened(fast_path, reserve=Reserve(size_bytes=MIB), files=files) as store:
        growing = await store.create(ask_of(), info_of("a", length=None, piece=MIB))
        await put(growing, 0, bytes(MIB))
        files.free = 2 * MIB
        await put(growing, 1, bytes(MIB))  # In the step that it has.
        await put(growing, 64, bytes(MIB))  # No whole step is left, but the piece has room.
        files.free = MIB
        with pytest.raises(NoSpace, match="in reserve"):
            await write(growing, 128, bytes(MIB))
        assert list(growing.held) == [0, 1, 64]
        with pytest.raises(NoSpace):
            await growing.set_info(info_of("a", length=GIB, piece=MIB))
        assert list(growing.held) == [0, 1, 64]
        await growing.set_info(info_of("a", length=2 * MIB, piece=MIB))
        await growing.finish()


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[bool]:
    """A tmpfs where we may mount one; False where we may not."""
    path.mkdir()
    options = f"size={size_bytes}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", path], check=True)


async def test_a_disk_that_is_really_full_harms_nothing_else(tmp_path: Path) -> None:
    """Where we may not mount (not root), the injected layer says the same."""
    with small_disk(tmp_path / "disk", 4 * MIB) as mounted:
        files = DiskFiles() if mounted else Small(free=3 * MIB)
        async with opened(tmp_path / "disk", files=files) as store:
            small = await store.create(ask_of(), info_of("small"))
            await put(small, 0)
            with pytest.raises(NoSpace, match="no space"):
                await store.create(ask_of(), info_of("large", length=64 * MIB))
            assert os.listdir(tmp_path / "disk" / CONTENT_NAME) == [small.path.name]
            await put_all(small)
            await small.finish()
            await store.remove(small.info.version)
            assert store.versions() == []


class FullOnWrite(DiskFiles):
    def open(self, path: Path, mode: str) -> DiskFile:
        return FullFile(path, FLAGS[mode])


class FullFile(DiskFile):
    def write_at(self, parts: Sequence[memoryview], offset_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_write_that_finds_the_disk_full_says_so(fast_path: Path) -> None:
    async with opened(fast_path, files=FullOnWrite()) as store:
        stored = await store.create(ask_of(), info_of())
        with pytest.raises(NoSpace, match="No space left"):
            await write(stored, 0, bytes(256))
        await stored.acknowledge(PieceIndex(0), attested(stored.info, 0, b"x" * 256))
        assert not stored.held
