"""A process that forks writers to be killed: `python -m tests.store.killed`.

Each line on stdin, "DIRECTORY SEED", forks a child that writes pieces into the store there until it
is killed; its pid comes on stdout. What the store acknowledged the child notes in
DIRECTORY.SEED.acks (8 bytes a piece), which outlives it as the page cache does. Modules are loaded
once, so that a child is at work within milliseconds.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from random import Random

import trio

from peerd.ids import PieceIndex
from peerd.manifest import VersionInfo
from peerd.store.disk import DiskStore
from peerd.store.version import DiskVersion
from tests.store.helper import BOOT, ask_of, attested, content, info_of, piece

ACK = struct.Struct("<II")
PIECE = 4096
PIECES = 24
WRITERS = 4


def version_of(seed: int, number: int) -> VersionInfo:
    """The last piece is short; two of three have no length until all of it is written."""
    return info_of(f"{seed}-{number}", length=PIECES * PIECE - 100, piece=PIECE)


def acks_path(directory: str, seed: int) -> Path:
    return Path(f"{directory}.{seed}.acks")


async def write_for_ever(directory: str, seed: int) -> None:
    acks = os.open(acks_path(directory, seed), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with DiskStore.open(Path(directory), boot_id=BOOT) as store:
        number = 0
        while True:
            info = version_of(seed, number)
            begun = info_of(f"{seed}-{number}", length=None, piece=PIECE) if number % 3 else info
            stored = await store.create(ask_of(), begun)
            await _write_all(stored, info, acks, seed, number)
            await stored.set_info(info)
            await stored.finish()
            number += 1


async def _write_all(
    stored: DiskVersion, info: VersionInfo, acks: int, seed: int, number: int
) -> None:
    order = list(range(PIECES))
    Random(seed * 1000 + number).shuffle(order)
    data = content(info)

    async def writer() -> None:
        while order:
            index = PieceIndex(order.pop())
            own = piece(info, index, data)
            await trio.to_thread.run_sync(stored.write, index, [memoryview(own)])
            await stored.acknowledge(index, attested(info, index, own))
            os.write(acks, ACK.pack(number, index))

    async with trio.open_nursery() as nursery:
        for _ in range(WRITERS):
            nursery.start_soon(writer)


def main() -> None:
    for line in sys.stdin:
        directory, seed = line.rsplit(" ", 1)
        pid = os.fork()
        if not pid:
            trio.run(write_for_ever, directory, int(seed))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        os.waitpid(pid, 0)
        sys.stdout.write("gone\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
