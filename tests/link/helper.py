"""Peers for tests: a LinkService each, with a handler that keeps what it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio

from peerd.cluster.admission import OpenAdmission
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link.messages import Have, Message
from peerd.link.ports import Admission, Prover
from peerd.link.service import LinkService
from peerd.link.settings import LinkSettings
from peerd.link.wire import Transport
from peerd.manifest import Attestation
from peerd.signing import SigningKey
from tests.link.memory_transport import MemoryNetwork
from tests.link.plain_prover import PlainProver

Result = TypeVar("Result")
KEYS = sorted((SigningKey(bytes((n,)) * 32) for n in range(1, 9)), key=lambda key: key.peer_id)
"""In the order of their peer ids, so that KEYS[0] is the smaller of any two."""
VERSION = VersionId("ab" * 32)


def attested(index: int, key: SigningKey = KEYS[0]) -> Attestation:
    return Attestation.made(key, VERSION, PieceIndex(index), bytes(32))


def have(*indices: int) -> Have:
    return Have(VERSION, tuple(indices))


class Recorder:
    """A LinkHandler. `story` is what it was told, in order; pieces are kept whole."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.messages: list[Message] = []
        self.pieces: dict[int, bytes] = {}
        self.views: list[memoryview] = []
        self.attestations: list[Attestation] = []
        self.hold: trio.Event | None = None
        self.fail_with: Exception | None = None
        self._parts: dict[int, bytearray] = {}
        self._changed = trio.Event()

    def link_up(self, peer: PeerId) -> None:
        self._tell("up")

    def link_down(self, peer: PeerId) -> None:
        self._tell("down")

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        self.messages.append(message)
        self._tell("message")

    def chunk_arrived(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        offset_bytes: int,
        attestation: Attestation | None,
        data: memoryview,
    ) -> object | None:
        if self.fail_with is not None:
            raise self.fail_with
        assert (attestation is not None) == (offset_bytes == 0)
        if attestation is not None:
            self._parts[index] = bytearray()
            self.attestations.append(attestation)
        part = self._parts[index]
        assert len(part) == offset_bytes
        part += data
        return index if len(part) == size_bytes else None

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        assert isinstance(outcome, int)
        if self.hold is not None:
            await self.hold.wait()
        self.pieces[outcome] = bytes(self._parts.pop(outcome))
        self._tell("piece")

    async def until(self, true: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            while not true():
                await self._changed.wait()

    def _tell(self, what: str) -> None:
        self.story.append(what)
        self._changed.set()
        self._changed = trio.Event()


class Bytes:
    """A PieceSource over bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        buffer[:] = self._data[offset_bytes : offset_bytes + len(buffer)]


class NoAddresses:
    def link_addresses(self, peer: PeerId) -> Sequence[str]:
        return ()


async def inline(work: Callable[[], Result]) -> Result:
    """An Offload without threads: a clock that jumps does not wait for those."""
    await trio.lowlevel.checkpoint()
    return work()


class Peer:
    """A running LinkService and all that belongs to it."""

    def __init__(
        self,
        key: SigningKey,
        network: MemoryNetwork | None = None,
        *,
        settings: LinkSettings | None = None,
        prover: Prover | None = None,
        admission: Admission | None = None,
        boot: bytes | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.key = key
        self.id = key.peer_id
        self.told = Recorder()
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        settings = settings or LinkSettings()
        if network is not None:
            settings = msgspec.structs.replace(settings, listen=(f"{key.peer_id}:1",))
        offload = inline if network is not None else None
        self.links = LinkService(
            self.id,
            boot or key.seed[:16],
            prover or PlainProver(self.id),
            NoAddresses(),
            admission or OpenAdmission(),
            settings,
            transport=transport or network,
            offload_in=offload,
            offload_out=offload,
        )
        self.links.set_handler(self.told)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            await self.links.run(task_status=task_status)
        self.stopped.set()

    async def connect(self, other: Peer) -> None:
        await self.links.connect(other.id, other.links.listening)

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()


@asynccontextmanager
async def running(*peers: Peer) -> AsyncIterator[None]:
    """They run inside, and stop cleanly after; a failure inside stops them too."""
    async with trio.open_nursery() as nursery:
        for peer in peers:
            await nursery.start(peer.run)
        try:
            yield
        finally:
            for peer in peers:
                peer.scope.cancel()


async def together(*tasks: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
