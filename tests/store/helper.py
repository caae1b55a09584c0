"""Content, versions and attestations for tests of the store; signatures are not its business."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import blake3
import trio

from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo
from peerd.store.disk import DiskStore
from peerd.store.files import FileLayer
from peerd.store.layout import Reserve, Space
from peerd.store.version import DiskVersion
from peerd.swarm.ports import StoredVersion
from peerd.task import Ask, TaskSpec
from peerd.units import GIB

READER = PeerId("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")
OTHER = PeerId("12D3KooWRndVhVZPCiQwHBBBdg769GyrPUW13zxwqQyf9r3ANaba")
BOOT = "the first boot"


def hex_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def info_of(
    name: str = "a",
    *,
    length: int | None = 1000,
    piece: int = 256,
    task: str = "task",
    digest: str | None = None,
) -> VersionInfo:
    return VersionInfo(
        TaskId(hex_id(task)), VersionId(hex_id("version", task, name)), length, piece,
        '"etag"', True, digest, READER, bytes(64),
    )  # fmt: skip


def ask_of(name: str = "a") -> Ask:
    return Ask(TaskSpec(f"https://example.org/{name}"), (("authorization", "secret"),))


def content(info: VersionInfo, length: int | None = None) -> bytes:
    """The same bytes for the same version, everywhere."""
    size = info.length_bytes if length is None else length
    assert size is not None
    return random.Random(info.version).randbytes(size)


def piece(info: VersionInfo, index: int, data: bytes) -> bytes:
    start = index * info.piece_length_bytes
    return data[start : start + info.piece_length_bytes]


def attested(info: VersionInfo, index: int, data: bytes, attester: PeerId = READER) -> Attestation:
    return Attestation(info.version, index, blake3.blake3(data).digest(), attester, bytes(64))


async def write(stored: StoredVersion, index: int, data: bytes, *, cut: int = 100) -> None:
    """In a worker thread and in several parts, as pieces come off a link."""
    view = memoryview(data)
    parts = [view[at : at + cut] for at in range(0, len(data), cut)]
    await trio.to_thread.run_sync(stored.write, PieceIndex(index), parts)


async def put(stored: StoredVersion, index: int, data: bytes | None = None) -> None:
    """A right piece, written and acknowledged."""
    own = piece(stored.info, index, content(stored.info)) if data is None else data
    await write(stored, index, own)
    await stored.acknowledge(PieceIndex(index), attested(stored.info, index, own))


async def put_all(stored: StoredVersion) -> None:
    for index in range(stored.info.piece_count or 0):
        await put(stored, index)


def read(stored: StoredVersion, index: int, size: int) -> bytes:
    buffer = bytearray(size)
    stored.read_into(PieceIndex(index), 0, memoryview(buffer))
    return bytes(buffer)


PLENTY = Space(100 * GIB, 50 * GIB)


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    boot: str = BOOT,
    reserve: Reserve | None = None,
    files: FileLayer | None = None,
) -> AsyncIterator[DiskStore]:
    async with DiskStore.open(
        directory, boot_id=boot, reserve=reserve or Reserve(), files=files
    ) as store:
        yield store


async def only(store: DiskStore) -> DiskVersion:
    (stored,) = store.versions()
    return stored
