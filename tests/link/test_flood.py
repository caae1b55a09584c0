"""Strangers: thousands of connections cost what docs/protocol.md states, and peers get in."""

from __future__ import annotations

import random
import socket
import time

import pytest
import trio
from trio.testing import MockClock

from peerd.errors import RemoteProtocolError
from peerd.link.gate import GateLimits
from peerd.link.handshake import UNPROVEN_MAX_BYTES
from peerd.link.settings import LinkSettings
from peerd.link.wire import LimitedStream, split_address
from peerd.overlay.noise import NoiseProver
from tests.link.helper import KEYS, Peer, have, running
from tests.link.memory_transport import MemoryNetwork

FLOOD = 2000
ATTACKERS = [f"127.0.6.{n}" for n in range(1, 5)]


class Watch:
    """What the gate of a peer let through at most, while a flood went on."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.going = self.waiting = 0

    async def run(self) -> None:
        while True:
            door = self._peer.links._door
            assert door is not None
            door.gate.validate()
            self.going = max(self.going, door.gate.going)
            self.waiting = max(self.waiting, door.gate.waiting)
            await trio.sleep(0.001)


def attack(address: str, seed: int) -> socket.socket | None:
    """One stranger's connection, from one of a few addresses: garbage, a true start, or nothing."""
    rng = random.Random(seed)
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((rng.choice(ATTACKERS), 0))
    sock.connect_ex(split_address(address))
    garbage = (b"", b"\x00\x20" + rng.randbytes(32), b"\xff\xff" + rng.randbytes(3000))
    try:
        sock.send(rng.choice(garbage))
    except OSError:
        pass  # it was closed at once, or is not open yet
    return sock


async def flood(address: str) -> None:
    open_now: list[socket.socket] = []
    try:
        for seed in range(FLOOD):
            sock = attack(address, seed)
            if sock is not None:
                open_now.append(sock)
            if len(open_now) > 400:
                open_now.pop(0).close()
            if seed % 10 == 0:
                await trio.sleep(0.001)
    finally:
        for sock in open_now:
            sock.close()


async def test_an_honest_peer_gets_in_while_strangers_flood() -> None:
    victim = Peer(KEYS[0], prover=NoiseProver(KEYS[0]))
    honest = Peer(KEYS[1], prover=NoiseProver(KEYS[1]))
    watch = Watch(victim)
    async with running(victim, honest), trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        began_at, spent = trio.current_time(), time.process_time()
        async with trio.open_nursery() as flooding:
            flooding.start_soon(flood, victim.links.listening[0])
            await trio.sleep(0.2)
            started = trio.current_time()
            await honest.connect(victim)
            assert trio.current_time() - started < 4.0
            honest.links.send(victim.id, have(1))
            await victim.told.until(lambda: victim.told.messages == [have(1)])
        await honest.links.close(victim.id, "test", "once more, behind all that still waits")
        await honest.connect(victim)
        spent = time.process_time() - spent
        nursery.cancel_scope.cancel()
        assert victim.links.connected(honest.id)
    door = victim.links._door
    assert door is not None
    assert watch.going <= 16
    assert watch.waiting <= 64
    bucket = door.gate.limits
    elapsed_s = trio.current_time() - began_at
    assert door.gate.begun <= len(ATTACKERS) * (bucket.burst + bucket.per_s * elapsed_s) + 2
    assert door.gate.dropped > FLOOD / 4, "closed unread; others hung up before"
    assert spent < 15.0
    assert victim.told.story == ["up", "message", "down", "up", "down"]


async def test_silent_strangers_have_two_seconds_and_may_wait_two(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    victim, honest = Peer(KEYS[0], network), Peer(KEYS[1], network)
    async with running(victim, honest):
        wires = [await network.dial(victim.links.listening[0]) for _ in range(60)]
        await trio.sleep(0.1)
        door = victim.links._door
        assert door is not None
        assert (door.gate.going, door.gate.waiting) == (16, 44)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for wire in wires:
                nursery.start_soon(wire.receive_into, memoryview(bytearray(1)))
        assert trio.current_time() - started <= 4.0
        await honest.connect(victim)


async def test_an_address_that_comes_too_often_is_closed_unread(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    gate = GateLimits(burst=3, per_s=1.0)
    victim = Peer(KEYS[0], network, settings=LinkSettings(gate=gate))
    async with running(victim):
        for _ in range(10):
            await network.dial(victim.links.listening[0])
        await trio.sleep(0)
        await trio.testing.wait_all_tasks_blocked()
        door = victim.links._door
        assert door is not None
        assert (door.gate.going, door.gate.dropped) == (3, 7)


async def test_a_stranger_is_read_no_further_than_the_limit() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    limited = LimitedStream(ours, UNPROVEN_MAX_BYTES)
    await theirs.send_all(bytes(10_000))
    taken = b""
    with pytest.raises(RemoteProtocolError, match="too many bytes before"):  # noqa: PT012
        while True:
            taken += await limited.receive_some()
    assert len(taken) == UNPROVEN_MAX_BYTES == 4096
