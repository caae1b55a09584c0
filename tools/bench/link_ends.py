"""The processes of the link benchmark: both ends of the link, and both ends of the bare copy.

Always: a sender serves one file from the page cache, a receiver writes every piece to its place in
a file that was preallocated for it, after its BLAKE3 digest was found to be right; what an end has
spent is counted from the first byte asked for to the last one written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence

import blake3
import trio
from msgspec import Struct

from peerd.cluster.admission import OpenAdmission
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link.messages import Message, Request
from peerd.link.service import LinkService
from peerd.link.settings import LinkSettings
from peerd.manifest import Attestation
from peerd.overlay.noise import NoiseProver
from peerd.pieces import piece_count, piece_span
from peerd.signing import SigningKey

VERSION = VersionId("5e" * 32)
SENDER, RECEIVER = SigningKey(b"s" * 32), SigningKey(b"r" * 32)
WINDOW_PIECES = 16
"""Requests on their way: what a swarm keeps at one parent, roughly."""
ASK_PIECES = 4
SENDING_AT_ONCE = 4


class Plan(Struct, frozen=True):
    source: str
    target: str
    size_bytes: int
    piece_bytes: int
    digests: tuple[str, ...]
    signatures: bool

    def span(self, index: int) -> tuple[int, int]:
        return piece_span(index, self.size_bytes, self.piece_bytes)

    @property
    def count(self) -> int:
        return piece_count(self.size_bytes, self.piece_bytes)


class Meter:
    """Wall and processor time of this process since `start`."""

    def start(self) -> None:
        self._wall_s = time.perf_counter()
        self._cpu_s = _cpu_s()

    def stop(self) -> dict[str, float]:
        return {"wall_s": time.perf_counter() - self._wall_s, "cpu_s": _cpu_s() - self._cpu_s}


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


# --- bare


def bare_send(plan: Plan) -> None:
    meter = Meter()
    with socket.create_server(("127.0.0.1", 0)) as server, open(plan.source, "rb") as source:
        say(address=server.getsockname()[1])
        connection, _ = server.accept()
        with connection:
            connection.recv(1)
            meter.start()
            sent = 0
            while sent < plan.size_bytes:
                sent += os.sendfile(
                    connection.fileno(), source.fileno(), sent, plan.size_bytes - sent
                )
            say(**meter.stop())
            connection.recv(1)


def bare_receive(plan: Plan, address: str) -> None:
    meter = Meter()
    buffer = memoryview(bytearray(plan.piece_bytes))
    target = os.open(plan.target, os.O_WRONLY)
    with socket.create_connection(("127.0.0.1", int(address))) as connection:
        meter.start()
        connection.sendall(b"!")
        for index in range(plan.count):
            offset, size = plan.span(index)
            got = 0
            while got < size:
                got += connection.recv_into(buffer[got:size])
            if blake3.blake3(buffer[:size]).hexdigest() != plan.digests[index]:
                raise SystemExit(f"piece {index} is wrong")
            os.pwrite(target, buffer[:size], offset)
        say(**meter.stop())


# --- link


class _File:
    """A PieceSource: one piece of the source."""

    def __init__(self, descriptor: int, offset_bytes: int) -> None:
        self._descriptor = descriptor
        self._offset_bytes = offset_bytes

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        if os.preadv(self._descriptor, [buffer], self._offset_bytes + offset_bytes) != len(buffer):
            raise OSError("the source is too short")


class _Nowhere:
    def link_addresses(self, peer: PeerId) -> Sequence[str]:
        return ()


def _service(key: SigningKey) -> LinkService:
    return LinkService(
        key.peer_id, key.seed[:16], NoiseProver(key), _Nowhere(), OpenAdmission(), LinkSettings()
    )


class _Sender:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._file = os.open(plan.source, os.O_RDONLY)
        self._made = [
            Attestation.made(SENDER, VERSION, PieceIndex(index), bytes.fromhex(digest))
            for index, digest in enumerate(plan.digests)
        ]
        self._links = _service(SENDER)
        self._links.set_handler(self)
        self._meter = Meter()
        self._left = plan.count
        self._to_send, self._asked = trio.open_memory_channel[PieceIndex](plan.count)
        self._ended = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._links.run)
            say(address=self._links.listening[0])
            for _ in range(SENDING_AT_ONCE):
                nursery.start_soon(self._send)
            await self._ended.wait()
            nursery.cancel_scope.cancel()

    async def _send(self) -> None:
        async for index in self._asked:
            offset, size = self._plan.span(index)
            source = _File(self._file, offset)
            await self._links.send_piece(
                RECEIVER.peer_id, VERSION, index, size, self._made[index], source
            )
            self._left -= 1
            if not self._left:
                say(**self._meter.stop())

    def link_up(self, peer: PeerId) -> None:
        pass

    def link_down(self, peer: PeerId) -> None:
        self._ended.set()

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        if isinstance(message, Request):
            if 0 in message.indices:
                self._meter.start()
            for index in message.indices:
                self._to_send.send_nowait(PieceIndex(index))

    def chunk_arrived(self, *_: object) -> object | None:
        raise AssertionError("nobody sends to the sender")

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        raise AssertionError("nobody sends to the sender")


class _Receiver:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._target = os.open(plan.target, os.O_WRONLY)
        self._hasher = blake3.blake3()
        self._parts: list[memoryview] = []
        self._attested: Attestation | None = None
        self._next = 0
        self._left = plan.count
        self._answered = 0
        self._links = _service(RECEIVER)
        self._links.set_handler(self)
        self._finished = trio.Event()

    async def run(self, address: str) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._links.run)
            await self._links.connect(SENDER.peer_id, [address])
            meter = Meter()
            meter.start()
            self._ask(WINDOW_PIECES)
            await self._finished.wait()
            say(**meter.stop())
            nursery.cancel_scope.cancel()

    def _ask(self, count: int) -> None:
        indices = tuple(range(self._next, min(self._plan.count, self._next + count)))
        self._next += len(indices)
        if indices:
            self._links.send(SENDER.peer_id, Request(VERSION, indices, len(indices)))

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
        if attestation is not None:
            self._attested = attestation.verified() if self._plan.signatures else attestation
            self._hasher = blake3.blake3()
            self._parts = []
        self._hasher.update(data)
        self._parts.append(data)
        if offset_bytes + len(data) < size_bytes:
            return None
        digest = self._hasher.digest()
        assert self._attested is not None
        if digest != self._attested.digest or digest.hex() != self._plan.digests[index]:
            raise SystemExit(f"piece {index} is wrong")
        os.pwritev(self._target, self._parts, self._plan.span(index)[0])
        self._parts = []
        return index

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        self._left -= 1
        self._answered += 1
        if self._answered == ASK_PIECES:
            self._answered = 0
            self._ask(ASK_PIECES)
        if not self._left:
            self._finished.set()

    def link_up(self, peer: PeerId) -> None:
        pass

    def link_down(self, peer: PeerId) -> None:
        if self._left:
            raise SystemExit("the link went down")

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        pass


def main() -> None:
    import msgspec

    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("bare-send", "bare-receive", "link-send", "link-receive"))
    parser.add_argument("plan")
    parser.add_argument("address", nargs="?", default="")
    arguments = parser.parse_args()
    with open(arguments.plan, "rb") as file:
        plan = msgspec.json.decode(file.read(), type=Plan)
    match arguments.role:
        case "bare-send":
            bare_send(plan)
        case "bare-receive":
            bare_receive(plan, arguments.address)
        case "link-send":
            trio.run(_Sender(plan).run)
        case "link-receive":
            trio.run(_Receiver(plan).run, arguments.address)


if __name__ == "__main__":
    main()
