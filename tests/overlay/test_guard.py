"""Each guard beside the library it guards against. Where the first half of a test fails after an
upgrade of libp2p, the library needs that guard no longer."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.io.utils import read_exactly
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import PeerInfo
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub_notifee import PubsubNotifee
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux as library
from libp2p.tools.anyio_service import Service, background_trio_service
from multiaddr import Multiaddr

from peerd.errors import PeerUnreachable, RemoteProtocolError
from peerd.overlay import guard, yamux
from peerd.overlay.host import OverlayHost
from peerd.signing import SigningKey
from tests.overlay.attacks import Attacker, garbage_key, garbage_protobuf, run_attack
from tests.overlay.peers import LIMIT_S, make, running
from tests.overlay.stock import StockHost, stock_streams

STOCK_QUEUE = pubsub_module.SUBSCRIPTION_CHANNEL_SIZE
"""Read before any overlay runs in this process and widens it."""


class _StockAttacker(Attacker):
    """A stock host greets nobody and has no gate."""

    async def greet(self) -> tuple[Any, Any]:
        return await self.connect(), None


async def _attack_stock(job: Any, stock: StockHost, topic: str) -> None:
    attacker = _StockAttacker(stock.address, "stock", "unused")
    attacker.topic = topic
    async with attacker.running():
        with trio.move_on_after(2):
            try:
                await job(attacker)
            except RemoteProtocolError:
                pass


async def _dies(service: Any) -> None:
    with trio.fail_after(LIMIT_S):
        await service.manager.wait_finished()


async def _raises_group(scenario: Callable[[], Awaitable[None]]) -> None:
    """A libp2p service that dies raises from its context manager, in groups of groups."""
    with pytest.raises(ExceptionGroup):
        await scenario()


# --- guarded_stream_handler


async def test_stock_dies_of_one_handler_that_raises() -> None:
    async def handler(stream: Any) -> None:
        raise ValueError("a bug of ours")

    async def ask(attacker: Attacker) -> None:
        await attacker.stream(await attacker.connect(), "/ours/1")

    async def scenario() -> None:
        stock = StockHost()
        stock.host.set_stream_handler("/ours/1", handler)
        async with stock.running():
            await _attack_stock(ask, stock, "")
            await _dies(stock.swarm)

    await _raises_group(scenario)


async def test_stock_dies_of_garbage_on_meshsub() -> None:
    async def scenario() -> None:
        stock = StockHost()
        async with stock.running(), stock.gossiping():
            await _attack_stock(garbage_protobuf, stock, "")
            await _dies(stock.swarm)

    await _raises_group(scenario)


async def test_a_guarded_handler_that_raises_costs_its_stream() -> None:
    """StreamEOF among it, which leaked the connection: `disconnected` comes."""
    for error in (ValueError("a bug of ours"), StreamEOF(), EOFError(), AssertionError()):
        stream = _Stream()

        async def handler(stream: Any, error: Exception = error) -> None:
            raise error

        handle = guard.guarded_stream_handler(_Host(handler), _yes)
        await handle(stream)
        assert stream.was_reset


async def test_a_guarded_handler_lets_cancellation_pass() -> None:
    handle = guard.guarded_stream_handler(_Host(lambda stream: trio.sleep_forever()), _yes)
    with trio.move_on_after(0.01) as limit:
        await handle(_Stream())
    assert limit.cancelled_caught


async def test_the_gate_is_asked_before_the_handler() -> None:
    served = []

    async def handler(stream: Any) -> None:
        served.append(stream)

    async def no(stream: Any, protocol: str) -> bool:
        return protocol != "/ours/1"

    stream = _Stream()
    await guard.guarded_stream_handler(_Host(handler), no)(stream)
    assert stream.was_reset
    assert served == []


async def test_a_stream_is_closed_when_its_handler_is_done() -> None:
    async def handler(stream: Any) -> None: ...

    stream = _Stream()
    await guard.guarded_stream_handler(_Host(handler), _yes)(stream)
    assert stream.was_closed
    assert not stream.was_reset


class _Stream:
    def __init__(self) -> None:
        self.was_reset = self.was_closed = False
        self.muxed_conn = self
        self.streams: dict[int, object] = {}
        self.write = self.reset

    async def reset(self) -> None:
        self.was_reset = True

    async def close(self) -> None:
        self.was_closed = True

    def set_protocol(self, protocol: str) -> None: ...


class _Host:
    """A host whose negotiation always ends in `/ours/1` and this handler."""

    def __init__(self, handler: Any) -> None:
        self.multiselect, self._handler = self, handler

    async def negotiate(self, communicator: Any, limit_s: int) -> tuple[str, Any]:
        return "/ours/1", self._handler


async def _yes(stream: Any, protocol: str) -> bool:
    return True


# --- guarded_push_msg, contained_tasks


async def test_stock_dies_of_a_message_with_a_garbage_key() -> None:
    async def scenario() -> None:
        stock = StockHost()
        async with stock.running(), stock.gossiping() as pubsub:
            await pubsub.subscribe("news")
            await _attack_stock(garbage_key, stock, "news")
            await _dies(pubsub)

    await _raises_group(scenario)


async def test_guarded_push_msg_contains_and_drops() -> None:
    class FakePubsub:
        pushed = 0

        async def push_msg(self, forwarder: object, message: object) -> None:
            self.pushed += 1
            raise ValueError("garbage key")

    fake = FakePubsub()
    guard.guarded_push_msg(fake, lambda forwarder, message: message != "too many")
    await fake.push_msg("peer", "message")
    await fake.push_msg("peer", "too many")
    assert fake.pushed == 1


class _Service(Service):  # type: ignore[misc] # libp2p's classes are Any to mypy
    async def run(self) -> None:
        await self.manager.wait_finished()


async def _fail() -> None:
    raise ValueError("one task")


async def test_a_stock_service_dies_of_one_task_and_a_contained_one_does_not() -> None:
    async def scenario() -> None:
        async with background_trio_service(service := _Service()):
            service.manager.run_task(_fail)
            await _dies(service)

    await _raises_group(scenario)
    async with background_trio_service(service := _Service()):
        guard.contained_tasks(service)
        service.manager.run_task(_fail)
        await trio.testing.wait_all_tasks_blocked()
        assert service.manager.is_running


async def test_a_contained_service_still_dies_of_a_daemon_task() -> None:
    """The heartbeat, say: the supervisor must hear of it."""

    async def scenario() -> None:
        async with background_trio_service(service := _Service()):
            guard.contained_tasks(service)
            service.manager.run_daemon_task(_fail)
            await _dies(service)

    await _raises_group(scenario)


# --- no_unasked_dials


async def test_stock_dials_wait_a_quarter_second_and_ours_does_not() -> None:
    a, b = StockHost(), StockHost()
    async with a.running(), b.running():
        began = trio.current_time()
        await a.host.connect(PeerInfo(b.id, [Multiaddr(b.address)]))
        assert trio.current_time() - began >= 0.25
    x, y = make(), make()
    async with running(x, y):
        times = []
        for _ in range(3):
            began = trio.current_time()
            await x.service.connect(y.address)
            times.append(trio.current_time() - began)
            await x.service.disconnect(y.id)
        assert min(times) < 0.25


async def test_stock_refuses_a_peer_that_came_back() -> None:
    """Ours: test_service.test_nobody_there_is_said_at_once_and_forgotten_at_once."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
    await listener.aclose()
    a, b = StockHost(), StockHost()
    async with a.running():
        a.swarm.retry_config.max_retries = 0
        info = PeerInfo(b.id, [Multiaddr(address)])
        with pytest.raises(SwarmException, match="no addresses established"):
            await a.host.connect(info)
        async with b.running(address):
            with pytest.raises(SwarmException, match="negative cache"):
                await a.host.connect(info)


async def test_ours_dials_nobody_unasked() -> None:
    host = OverlayHost(SigningKey(bytes(32)), _yes)
    async with host.running():
        with pytest.raises(SwarmException, match="peerd dials itself"):
            await host.library.new_stream(StockHost().id, ["/x"])


# --- connection_limits


async def test_stock_never_gives_an_inbound_slot_back() -> None:
    """300 connections after its start a stock host takes no more, though all are gone."""
    stock = StockHost()
    async with stock.running():

        async def come_and_go(attacker: Attacker) -> None:
            connection = await attacker.connect()
            await connection.close()

        await _attack_stock(come_and_go, stock, "")
        with trio.fail_after(LIMIT_S):
            while stock.swarm.connections:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert stock.swarm._inbound_limiter.borrowed_tokens == 1


def test_our_limits_are_one_number() -> None:
    stock = StockHost().swarm.connection_config
    assert stock.max_connections != 1000
    assert stock.low_watermark > 0
    config, retries = guard.connection_limits(1000)
    assert config.max_connections == config.high_watermark == 1000
    assert config.low_watermark == config.min_connections == retries.max_retries == 0
    assert OverlayHost(SigningKey(bytes(32)), _yes).swarm._resource_manager is None


# --- no_identify, take_pubsub_notifee


def test_stock_answers_identify_to_strangers_and_ours_does_not() -> None:
    assert "/ipfs/id/1.0.0" in StockHost().host.multiselect.handlers
    assert "/ipfs/id/push/1.0.0" in StockHost().host.multiselect.handlers
    ours = OverlayHost(SigningKey(bytes(32)), _yes)
    assert ours.library.multiselect.handlers == {}
    assert ours.swarm.notifees == []


async def test_stock_pubsub_hears_of_every_connection_and_ours_of_none() -> None:
    stock = StockHost()
    async with stock.running(), stock.gossiping():
        assert any(isinstance(found, PubsubNotifee) for found in stock.swarm.notifees)
        guard.take_pubsub_notifee(stock.swarm)
        assert not any(isinstance(found, PubsubNotifee) for found in stock.swarm.notifees)


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


# --- close_together


async def test_stock_closes_one_after_the_other_and_ours_together() -> None:
    async def close_all(stock: StockHost) -> float:
        began = trio.current_time()
        await stock.swarm.close()
        return trio.current_time() - began

    hub, others = StockHost(), [StockHost() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(_run_until_cancelled, other)
        async with hub.running():
            await trio.testing.wait_all_tasks_blocked(0.05)
            for other in others:
                await hub.host.connect(PeerInfo(other.id, [Multiaddr(other.address)]))
            assert await close_all(hub) > 0.55
        nursery.cancel_scope.cancel()


async def _run_until_cancelled(stock: StockHost) -> None:
    async with stock.running():
        await trio.sleep_forever()


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
            nursery.start_soon(_attack_stock, overrun, stock, "")
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
