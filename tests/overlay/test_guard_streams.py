"""The guards of pubsub, yamux and transport, beside the library as it comes. See test_guard.py."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.io.utils import read_exactly
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux as library

from peerd.errors import PeerUnreachable
from peerd.overlay import guard, yamux
from tests.overlay.attacks import Attacker, garbage_protobuf, run_attack
from tests.overlay.peers import LIMIT_S, make, running
from tests.overlay.stock import StockHost, attack_stock, stock_streams

STOCK_QUEUE = pubsub_module.SUBSCRIPTION_CHANNEL_SIZE
"""Read before any overlay runs in this process and widens it."""


# --- gossipsub_router, stop_seen_messages, the subscription's queue


def test_stock_gossipsub_has_other_parameters() -> None:
    stock = {
        name: parameter.default
        for name, parameter in inspect.signature(GossipSub.__init__).parameters.items()
    }
    assert stock["heartbeat_interval"] == 120
    assert stock["adaptive_gossip_enabled"]
    assert stock["spam_protection_enabled"]
    assert stock["eclipse_protection_enabled"]
    ours = guard.gossipsub_router()
    assert ours.heartbeat_interval == 1
    assert (ours.degree_low, ours.degree, ours.degree_high) == (4, 6, 12)
    assert not ours.adaptive_gossip_enabled
    assert not ours.spam_protection_enabled
    assert not ours.eclipse_protection_enabled


async def test_stock_leaves_a_thread_behind_and_ours_does_not() -> None:
    stock = StockHost()
    async with stock.running(), stock.gossiping() as pubsub:
        thread = pubsub.seen_messages._thread
    assert thread.is_alive()
    guard.stop_seen_messages(pubsub)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    before = set(threading.enumerate())
    peer = make(topics=("urgent",))
    async with running(peer):
        started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


async def test_stock_drops_what_its_queue_of_32_does_not_hold_and_ours_does_not() -> None:
    stock = StockHost()
    async with stock.running(), stock.gossiping() as pubsub:
        assert STOCK_QUEUE == 32
        with _queue_of(STOCK_QUEUE):
            await pubsub.subscribe("news")
        for _ in range(50):
            await pubsub.publish("news", b"x")
        assert (
            pubsub.subscribed_topics_receive["news"]
            .receive_channel.statistics()
            .current_buffer_used
            == 32
        )
    peer = make(topics=("urgent",))
    async with running(peer):
        found = peer.service.subscribe("urgent")
        for number in range(50):
            await peer.service.publish("urgent", bytes([number]))
        with trio.fail_after(LIMIT_S):
            assert [await found.receive() for _ in range(50)] == [
                (peer.id, bytes([number])) for number in range(50)
            ]


@contextmanager
def _queue_of(size: int) -> Iterator[None]:
    ours = pubsub_module.SUBSCRIPTION_CHANNEL_SIZE
    pubsub_module.SUBSCRIPTION_CHANNEL_SIZE = size
    try:
        yield
    finally:
        pubsub_module.SUBSCRIPTION_CHANNEL_SIZE = ours


async def test_a_message_is_measured_before_it_is_published() -> None:
    """libp2p drops one of 1.1 MB without a word."""
    peer = make(topics=("urgent",))
    with pytest.raises(ValueError, match="65537 bytes"):
        await peer.service.publish("urgent", b"x" * 65537)
    with pytest.raises(ValueError, match="no topic 'other'"):
        await peer.service.publish("other", b"x")
    with pytest.raises(PeerUnreachable, match="being rebuilt"):
        await peer.service.publish("urgent", b"x")


# --- yamux.py


async def test_a_stock_writer_is_killed_after_5_s_without_credit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = yamux.StockStream(1, _Wire(), True)
    with pytest.raises(MuxedStreamError, match="5 seconds"):
        await stream.write(bytes(library.DEFAULT_WINDOW_SIZE + 1))


async def test_ours_waits_for_credit_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    conn = _Wire()
    stream = yamux.EventStream(1, conn, True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.write, bytes(library.DEFAULT_WINDOW_SIZE + 1))
        await trio.sleep(60)
        assert conn.sent == library.DEFAULT_WINDOW_SIZE
        stream.send_window += 1
    assert conn.sent == library.DEFAULT_WINDOW_SIZE + 1


async def test_a_writer_without_credit_ends_with_its_stream() -> None:
    stream = yamux.EventStream(1, _Wire(), True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_fails, stream)
        await trio.testing.wait_all_tasks_blocked()
        stream.closed = True


async def _write_fails(stream: Any) -> None:
    with pytest.raises(MuxedStreamError, match="closed"):
        await stream.write(bytes(library.DEFAULT_WINDOW_SIZE + 1))


async def test_stock_sends_an_update_for_each_read_and_ours_for_half_a_window() -> None:
    updates = {}
    for kind in (yamux.StockStream, yamux.EventStream):
        conn = _Wire()
        stream = kind(1, conn, True)
        for _ in range(256):
            stream.recv_window -= 1024
            await stream._auto_tune_and_send_window_update(bytes_read=1024)
        updates[kind] = conn.frames
    assert updates[yamux.StockStream] >= 100
    assert updates[yamux.EventStream] == 2


class _Wire:
    """A yamux connection that counts what is written to it."""

    def __init__(self) -> None:
        self.frames = self.sent = 0
        self.stream_buffers: dict[int, bytes] = {}

    def rtt(self) -> float:
        return 0.0

    async def _write_frame(self, frame: bytes) -> None:
        self.frames += 1
        self.sent += len(frame) - library.HEADER_SIZE


async def test_stock_buffers_without_end_and_ours_closes() -> None:
    """4 MiB on a stream that is not read."""

    async def overrun(attacker: Attacker) -> None:
        connection = await attacker.connect()
        await connection.new_stream()
        frame = library.struct.pack("!BBHII", 0, 0, 0, 1, 60_000) + bytes(60_000)
        for _ in range(70):
            await connection.muxed_conn._write_frame(frame)
        await connection.event_closed.wait()

    def buffered(swarm: Any) -> int:
        found = [each.muxed_conn.stream_buffers for [each] in swarm.connections.values()]
        return sum(len(buffer) for buffers in found for buffer in buffers.values())

    stock = StockHost()
    stock.swarm.set_stream_handler(_sleep)
    with stock_streams():
        async with stock.running(), trio.open_nursery() as nursery:
            nursery.start_soon(attack_stock, overrun, stock, "")
            with trio.fail_after(LIMIT_S):
                while buffered(stock.swarm) < 4_000_000:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    victim = make()
    async with running(victim):
        assert victim.service.host is not None
        victim.service.host.swarm.set_stream_handler(_sleep)
        with trio.fail_after(LIMIT_S):
            await run_attack(overrun, victim.address, "test", "urgent")
            while victim.service.host.swarm.connections:
                assert buffered(victim.service.host.swarm) <= yamux.BUFFERED_MAX_BYTES
                await trio.testing.wait_all_tasks_blocked(0.01)


async def _sleep(stream: Any) -> None:
    await trio.sleep_forever()


# --- transport.py


async def test_stock_listens_where_another_does() -> None:
    """SO_REUSEPORT: two daemons share a port, and each gets half of the dials. Ours refuses:
    test_service.test_a_port_that_is_taken_is_the_users_to_hear_of."""
    a, b = StockHost(), StockHost()
    async with a.running(), b.running(a.address.rpartition("/p2p/")[0]):
        assert a.address.split("/")[4] == b.address.split("/")[4]


async def test_stock_reads_as_much_as_a_stranger_says() -> None:
    asked: list[int] = []

    class Stranger:
        said = b"\xff\xff\xff\xff\xff\x1f"

        async def read(self, n: int) -> bytes:
            asked.append(n)
            head, self.said = self.said[:n], self.said[n:]
            return head

    with pytest.raises(Exception, match="read from multiselect"):
        await MultiselectCommunicator(Stranger()).read()
    assert max(asked) > 1 << 39


async def test_stock_gives_up_a_message_that_comes_in_101_parts() -> None:
    class Drip:
        async def read(self, n: int) -> bytes:
            return b"x"

    with pytest.raises(Exception, match="Connection closed during read"):
        await read_exactly(Drip(), 102)


# --- lean.py


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys, trio, cryptography, {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return set(run.stdout.decode().split())


UNWANTED = {"aioquic", "requests", "zeroconf", "prometheus_client", "dns"}


def test_what_we_never_use_is_not_loaded_nor_left_as_a_stand_in() -> None:
    assert not UNWANTED & _loaded_by("peerd.overlay.service")


@pytest.mark.slow
def test_the_whole_of_libp2p_is_much_more_than_we_load() -> None:
    whole, ours = _loaded_by("libp2p"), _loaded_by("peerd.overlay.service")
    assert whole >= UNWANTED
    assert len(whole) > len(ours) + 400


async def test_attacks_are_harmless_with_no_topics_at_all() -> None:
    peer = make()
    async with running(peer):
        host = peer.service.host
        await run_attack(garbage_protobuf, peer.address, "test", "urgent")
        assert peer.service.host is host
