"""Everything that was ever seen to bring a libp2p host down, sent to a running overlay.

`attack(address)` needs nothing but the address of an overlay: a test's own, or a real daemon's.
What the victim does with each (close, refuse, ignore) is its business; that it goes on is the
caller's to check, and `Attacker.greet` succeeding afterwards is a good way.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from peerd.errors import PeerdError
from peerd.ids import WIRE_VERSION
from peerd.overlay import addresses
from peerd.overlay import hello as wire
from peerd.overlay.hello import Hello, Kind
from peerd.overlay.host import OverlayHost
from peerd.overlay.neighbour import FrameStream
from peerd.overlay.secure import remote_errors
from peerd.signing import SigningKey

MESHSUB = "/meshsub/1.1.0"
ATTACK_S = 10.0
HALF_OPEN = 100


class Attacker:
    """A proven peer of any cluster, with libp2p's pieces in its hands."""

    def __init__(self, address: str, cluster: str, topic: str) -> None:
        self.at = addresses.parse(address)
        self.cluster, self.topic = cluster, f"peerd-{cluster}/{topic}/1"
        self.rng = random.Random(7)
        key = SigningKey(os.urandom(32))
        self.id = key.peer_id
        self._host = OverlayHost(key, self._gate)
        self._host.set_handler(MESHSUB, _read_all)
        self.opened_by_the_other: list[str] = []

    @classmethod
    @asynccontextmanager
    async def of(
        cls, address: str, cluster: str = "test", topic: str = "urgent"
    ) -> AsyncIterator[Attacker]:
        """One that is running, until the block ends."""
        attacker = cls(address, cluster, topic)
        async with attacker.running():
            yield attacker

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._host.running():
            yield

    async def _gate(self, stream: Any, protocol: str) -> bool:
        self.opened_by_the_other.append(protocol)
        return True

    async def tcp(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(self.at.host, self.at.port)

    async def connect(self) -> Any:
        """A libp2p connection: Noise and yamux stand, no hello was said."""
        _, connection = await self._host.upgrade(await self.tcp(), outbound=True)
        return connection

    async def stream(self, connection: Any, protocol: str) -> Any:
        _, stream = await self._host.open_stream(connection, [protocol])
        return stream

    async def gossip(self, connection: Any) -> Any:
        return await self.stream(connection, f"/peerd-{self.cluster}/gossip/1")

    async def greet(self) -> tuple[Any, Any]:
        """A neighbour: the connection, and its gossip stream after both welcomes."""
        connection = await self.connect()
        stream = await self.gossip(connection)
        frames = FrameStream(stream)
        ours = Hello(WIRE_VERSION, self.cluster, os.urandom(16), 1, "attacker", ())
        await frames.send(wire.encode_hello(ours))
        while (await frames.receive())[0] is not Kind.HELLO:
            pass
        await frames.send(wire.frame(Kind.WELCOME))
        while (await frames.receive())[0] is not Kind.WELCOME:
            pass
        return connection, stream


async def _read_all(stream: Any) -> None:
    while await stream.read(4096):
        pass


async def garbage_tcp(attacker: Attacker) -> None:
    for _ in range(10):
        stream = await attacker.tcp()
        await stream.send_all(attacker.rng.randbytes(2000))
        await stream.aclose()


async def endless_protocol_id(attacker: Attacker) -> None:
    """A multistream message that says it has 2^62 bytes, and some of them."""
    stream = await attacker.tcp()
    await stream.send_all(b"\x13/multistream/1.0.0\n" + b"\xff" * 8 + b"\x3f")
    await stream.send_all(bytes(1 << 20))


async def half_open_sockets(attacker: Attacker) -> None:
    """Open, say nothing; an honest peer gets in meanwhile."""
    streams = [await attacker.tcp() for _ in range(HALF_OPEN)]
    await attacker.greet()
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def random_yamux(attacker: Attacker) -> None:
    for _ in range(5):
        connection = await attacker.connect()
        await connection.muxed_conn.secured_conn.write(attacker.rng.randbytes(500))


async def oversized_frames(attacker: Attacker) -> None:
    """DATA of 16 MiB on a stream, as much as stock yamux lets in."""
    connection, stream = await attacker.greet()
    number = stream.muxed_stream.stream_id
    await connection.muxed_conn._write_frame(struct.pack("!BBHII", 0, 0, 0, number, 1 << 24))
    await connection.muxed_conn._write_frame(bytes(1 << 20))


async def ignored_windows(attacker: Attacker) -> None:
    """4 MiB on a stream that nobody reads: it waits at the gate for a hello."""
    connection = await attacker.connect()
    await connection.new_stream()
    frame = struct.pack("!BBHII", 0, 0, 0, 1, 60_000) + bytes(60_000)
    for _ in range(70):
        await connection.muxed_conn._write_frame(frame)


async def many_streams(attacker: Attacker) -> None:
    connection = await attacker.connect()
    for number in range(1, 1001, 2):
        await connection.muxed_conn._write_frame(struct.pack("!BBHII", 0, 1, 1, number, 0))


async def garbage_protocol_ids(attacker: Attacker) -> None:
    for said in (b"\xff\xfe\n", b"", b"\n", b"ls\n", b"x" * 5000, b"/meshsub/9.9.9\n"):
        connection = await attacker.connect()
        stream = await connection.new_stream()
        await stream.write(b"\x13/multistream/1.0.0\n" + _varint(len(said)) + said)
        await trio.sleep(0)


async def streams_that_end(attacker: Attacker) -> None:
    """StreamEOF and StreamReset in the victim's handlers, at every point."""
    for protocol in ("gossip", MESHSUB):
        for end in ("close", "reset"):
            connection, _ = await attacker.greet()
            opened = attacker.gossip if protocol == "gossip" else _meshsub(attacker)
            stream = await opened(connection)
            await getattr(stream, end)()
    connection, stream = await attacker.greet()
    await stream.reset()


async def garbage_hellos(attacker: Attacker) -> None:
    body = wire.encode_hello(Hello(1, attacker.cluster, bytes(16), 1, "x", ()))
    for said in (
        attacker.rng.randbytes(300),
        wire.frame(Kind.HELLO, attacker.rng.randbytes(300)),
        wire.frame(Kind.HELLO, b"\x91\x02"),
        wire.frame(Kind.HELLO, b"\x90"),
        wire.frame(Kind.HELLO, b"\xdd\xff\xff\xff\xff"),
        wire.frame(Kind.HELLO, b"\x91" * 3000),
        wire.frame(Kind.REFUSED, b"\x92\xa8internal\xa1x"),
        wire.frame(Kind.WELCOME),
        body + body,
        struct.pack(">IB", 0xFFFFFFFF, 0),
        struct.pack(">IB", 0, 0),
        body[:7],
    ):
        stream = await attacker.gossip(await attacker.connect())
        await stream.write(said)
        await stream.close()


async def garbage_frames(attacker: Attacker) -> None:
    """From a neighbour: frames of no kind, of two lengths, and payloads no handler likes."""
    for said in (
        wire.frame(Kind.PAYLOAD, attacker.rng.randbytes(1000)),
        wire.frame(Kind.PAYLOAD),
        wire.frame(Kind.HELLO),
        wire.frame(Kind.REFUSED, b"nonsense"),
        struct.pack(">IB", 1, 99),
        struct.pack(">IB", 1 << 30, 4),
        attacker.rng.randbytes(100),
    ):
        _, stream = await attacker.greet()
        await stream.write(said)


async def frame_flood(attacker: Attacker) -> None:
    """20,000 beats at once: read slowly, with its own window as the limit."""
    _, stream = await attacker.greet()
    with trio.move_on_after(1.0):
        for _ in range(100):
            await stream.write(wire.frame(Kind.BEAT) * 200)


async def garbage_protobuf(attacker: Attacker) -> None:
    """One message that ended a stock host."""
    for said in (b"\xff\xff\xff", attacker.rng.randbytes(500), b"", b"\x0a\xff\x01"):
        connection, _ = await attacker.greet()
        stream = await attacker.stream(connection, MESHSUB)
        await stream.write(_varint(len(said)) + said)


async def garbage_key(attacker: Attacker) -> None:
    """A signed message whose key is none: it raised in `push_msg`, a task of pubsub's own."""
    from libp2p.pubsub.pb import rpc_pb2

    for origin in (b"\x12\x20" + bytes(32), b"", b"\x00\x24\x08\x01\x12\x20" + bytes(32)):
        connection, _ = await attacker.greet()
        stream = await attacker.stream(connection, MESHSUB)
        rpc = rpc_pb2.RPC()
        for number in range(3):
            rpc.publish.append(
                rpc_pb2.Message(
                    from_id=origin,
                    seqno=number.to_bytes(8, "big"),
                    data=b"x",
                    topicIDs=[attacker.topic],
                    key=b"\x08\x01\x12\x03abc" if number else b"garbage",
                    signature=b"y" * 64,
                )
            )
        said = rpc.SerializeToString()
        await stream.write(_varint(len(said)) + said)


async def endless_rpc(attacker: Attacker) -> None:
    connection, _ = await attacker.greet()
    stream = await attacker.stream(connection, MESHSUB)
    await stream.write(_varint(1 << 40) + bytes(100_000))


ATTACKS: tuple[Callable[[Attacker], Awaitable[None]], ...] = (
    garbage_tcp,
    endless_protocol_id,
    half_open_sockets,
    random_yamux,
    oversized_frames,
    ignored_windows,
    many_streams,
    garbage_protocol_ids,
    streams_that_end,
    garbage_hellos,
    garbage_frames,
    frame_flood,
    garbage_protobuf,
    garbage_key,
    endless_rpc,
)


async def run_attack(
    job: Callable[[Attacker], Awaitable[None]], address: str, cluster: str, topic: str
) -> None:
    """One of them. That the victim cuts it short is fine, and so is that it does not."""
    async with Attacker.of(address, cluster, topic) as attacker:
        with trio.move_on_after(ATTACK_S):
            try:
                with remote_errors(job.__name__):
                    await job(attacker)
            except PeerdError:
                pass


async def attack(address: str, cluster: str = "peerd", topic: str = "urgent") -> None:
    """All of them, one after the other."""
    for job in ATTACKS:
        await run_attack(job, address, cluster, topic)


def _meshsub(attacker: Attacker) -> Callable[[Any], Awaitable[Any]]:
    return lambda connection: attacker.stream(connection, MESHSUB)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
