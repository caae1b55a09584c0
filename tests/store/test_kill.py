"""kill -9 at random instants of a write load: every acknowledged piece is there, and right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from peerd.ids import VersionId
from peerd.store.disk import DiskStore
from tests.store.helper import BOOT, content, piece, read
from tests.store.killed import ACK, acks_path, version_of

LIFE_MAX_S = 0.12
"""A child opens the store in about 20 ms, and then finishes a version in about 20 ms more."""


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.killed"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def run_and_kill(
    writers: subprocess.Popen[str], directory: Path, seed: int, life_s: float
) -> None:
    assert writers.stdin is not None
    writers.stdin.write(f"{directory} {seed}\n")
    pid = int(await trio.to_thread.run_sync(line_from, writers))
    await trio.sleep(life_s)  # The instant of the kill is what this test is about.
    os.kill(pid, signal.SIGKILL)
    assert await trio.to_thread.run_sync(line_from, writers) == "gone"


def acknowledged(directory: Path, seed: int) -> list[tuple[int, int]]:
    path = acks_path(str(directory), seed)
    return list(ACK.iter_unpack(path.read_bytes())) if path.exists() else []


async def all_is_there(directory: Path, seed: int) -> int:
    """Reopens the store; returns the number of pieces that this child had acknowledged."""
    acks = acknowledged(directory, seed)
    async with DiskStore.open(directory, boot_id=BOOT) as store:
        data: dict[VersionId, bytes] = {}
        for number, index in acks:
            info = version_of(seed, number)
            stored = store.find(info.version)
            assert stored is not None, f"seed {seed}: version {number} is gone"
            assert index in stored.held, f"seed {seed}: piece {index} of version {number} is gone"
            if info.version not in data:
                data[info.version] = content(info)
            right = piece(info, index, data[info.version])
            assert read(stored, index, len(right)) == right, f"seed {seed}: piece {index} is wrong"
        for stored in store.versions():
            await store.remove(stored.info.version)
    return len(acks)


async def kills(writers: subprocess.Popen[str], directory: Path, instants: int) -> None:
    rng = Random(os.urandom(8))
    survived = 0
    for seed in range(instants):
        await run_and_kill(writers, directory, seed, rng.uniform(0.0, LIFE_MAX_S))
        survived += await all_is_there(directory, seed)
    assert survived > instants, "the children were killed before they did anything"


async def test_twenty_kills(writers: subprocess.Popen[str], fast_path: Path) -> None:
    await kills(writers, fast_path / "store", 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_hundred_kills(writers: subprocess.Popen[str], tmp_path: Path) -> None:
    await kills(writers, tmp_path / "store", 200)
