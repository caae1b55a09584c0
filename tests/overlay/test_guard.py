"""Each guard beside the library it guards against. Where the first half of a test fails after an
upgrade of libp2p, the library needs that guard no longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pubsub_notifee import PubsubNotifee
from libp2p.tools.anyio_service import Service, background_trio_service
from multiaddr import Multiaddr

from peerd.overlay import guard
from peerd.overlay.host import OverlayHost
from peerd.signing import SigningKey
from tests.overlay.attacks import Attacker, garbage_key, garbage_protobuf
from tests.overlay.peers import LIMIT_S, make, running
from tests.overlay.stock import StockHost, attack_stock, let_in


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
            await attack_stock(ask, stock, "")
            await _dies(stock.swarm)

    await _raises_group(scenario)


async def test_stock_dies_of_garbage_on_meshsub() -> None:
    async def scenario() -> None:
        stock = StockHost()
        async with stock.running(), stock.gossiping():
            await attack_stock(garbage_protobuf, stock, "")
            await _dies(stock.swarm)

    await _raises_group(scenario)


async def test_a_guarded_handler_that_raises_costs_its_stream() -> None:
    """StreamEOF among it, which leaked the connection: `disconnected` comes."""
    for error in (ValueError("a bug of ours"), StreamEOF(), EOFError(), AssertionError()):
        stream = _Stream()

        async def handler(stream: Any, error: Exception = error) -> None:
            raise error

        handle = guard.guarded_stream_handler(_Host(handler), let_in)
        await handle(stream)
        assert stream.was_reset


async def test_a_guarded_handler_lets_cancellation_pass() -> None:
    handle = guard.guarded_stream_handler(_Host(lambda stream: trio.sleep_forever()), let_in)
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
    await guard.guarded_stream_handler(_Host(handler), let_in)(stream)
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


# --- guarded_push_msg, contained_tasks


async def test_stock_dies_of_a_message_with_a_garbage_key() -> None:
    async def scenario() -> None:
        stock = StockHost()
        async with stock.running(), stock.gossiping() as pubsub:
            await pubsub.subscribe("news")
            await attack_stock(garbage_key, stock, "news")
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
    host = OverlayHost(SigningKey(bytes(32)), let_in)
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

        await attack_stock(come_and_go, stock, "")
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
    assert OverlayHost(SigningKey(bytes(32)), let_in).swarm._resource_manager is None


# --- no_identify, take_pubsub_notifee


def test_stock_answers_identify_to_strangers_and_ours_does_not() -> None:
    assert "/ipfs/id/1.0.0" in StockHost().host.multiselect.handlers
    assert "/ipfs/id/push/1.0.0" in StockHost().host.multiselect.handlers
    ours = OverlayHost(SigningKey(bytes(32)), let_in)
    assert ours.library.multiselect.handlers == {}
    assert ours.swarm.notifees == []


async def test_stock_pubsub_hears_of_every_connection_and_ours_of_none() -> None:
    stock = StockHost()
    async with stock.running(), stock.gossiping():
        assert any(isinstance(found, PubsubNotifee) for found in stock.swarm.notifees)
        guard.take_pubsub_notifee(stock.swarm)
        assert not any(isinstance(found, PubsubNotifee) for found in stock.swarm.notifees)


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
