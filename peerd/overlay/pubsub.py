"""gossipsub for what is urgent and rare: a revocation, a cluster document, a preheat.

Always: a message is signed by the peer it is said to be from; only the topics named at the start
exist; every queue is bounded and what does not fit is dropped with a log line; it outlives the
host that carries it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from peerd.errors import PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId
from peerd.overlay import guard
from peerd.overlay.host import OverlayHost
from peerd.overlay.identity import peer_id
from peerd.units import KIB

log = logging.getLogger(__name__)

MESSAGE_MAX_BYTES = 64 * KIB
"""design.md, section 5. libp2p drops what is over 1 MiB without a word, so it is checked here."""
RPC_MAX_BYTES = 2 * MESSAGE_MAX_BYTES
MESSAGES_S = 10.0
"""Of one neighbour. design.md, section 5: gossipsub carries at most that in all."""
MESSAGES_BURST = 50.0
"""A new neighbour replays what it has in its cache. Guess."""
SUBSCRIBER_QUEUE_MAX = 64
MESHSUB = "/meshsub/"

Incoming = trio.MemoryReceiveChannel[tuple[PeerId, bytes]]


class News:
    """publish and subscribe. `carried_by` joins it to a host, one at a time."""

    def __init__(self, cluster: str, topics: Sequence[str]) -> None:
        self._names = {topic: f"peerd-{cluster}/{topic}/1" for topic in topics}
        self._subscribers: dict[str, set[trio.MemorySendChannel[tuple[PeerId, bytes]]]] = {
            topic: set() for topic in topics
        }
        self._allowances: dict[Any, _Allowance] = {}
        self._host: OverlayHost | None = None
        self._pubsub: Any = None
        self._notifee: Any = None

    async def publish(self, topic: str, payload: bytes) -> None:
        """To all subscribers of the cluster, this peer's own among them.

        PeerUnreachable while the overlay is being rebuilt. ValueError: too long, unknown topic.
        """
        if len(payload) > MESSAGE_MAX_BYTES:
            raise ValueError(f"a message of {len(payload)} bytes; at most {MESSAGE_MAX_BYTES}")
        if topic not in self._names:
            raise ValueError(f"no topic {topic!r}")
        if self._pubsub is None:
            raise PeerUnreachable("the overlay is being rebuilt; try again in some seconds")
        await self._pubsub.publish(self._names[topic], payload)
        # libp2p's publish to oneself has no checkpoint: let the queue be drained in between.
        await trio.lowlevel.checkpoint()

    def subscribe(self, topic: str) -> Incoming:
        """Who published and what, from now until it is closed. More than 64 unread are dropped."""
        send, receive = trio.open_memory_channel[tuple[PeerId, bytes]](SUBSCRIBER_QUEUE_MAX)
        self._subscribers[topic].add(send)
        return receive

    @asynccontextmanager
    async def carried_by(self, host: OverlayHost, nursery: trio.Nursery) -> AsyncIterator[None]:
        """Runs gossipsub on this host. Without topics there is nothing to run."""
        if not self._names:
            yield
            return
        guard.wide_subscription_queue()
        router = guard.gossipsub_router()
        pubsub = Pubsub(
            host.library,
            router,
            max_inbound_rpc_size=RPC_MAX_BYTES,
            max_subscriptions_per_rpc=len(self._names) + 16,
            allowed_topics=set(self._names.values()),
        )
        self._notifee = guard.take_pubsub_notifee(host.swarm)
        guard.guarded_push_msg(pubsub, self._admits)
        async with AsyncExitStack() as stack:
            stack.callback(guard.stop_seen_messages, pubsub)
            for service in (router, pubsub):
                await stack.enter_async_context(background_trio_service(service))
                guard.contained_tasks(service)
                nursery.start_soon(_end_with, service, nursery)
            await pubsub.wait_until_ready()
            for topic, name in self._names.items():
                nursery.start_soon(self._drain, topic, await pubsub.subscribe(name))
            self._host, self._pubsub = host, pubsub
            try:
                yield
            finally:
                self._host = self._pubsub = None
                self._allowances.clear()

    async def neighbour_up(self, connection: Any) -> None:
        if self._pubsub is not None:
            await self._notifee.connected(None, connection)

    async def neighbour_down(self, peer: PeerId, connection: Any) -> None:
        if self._pubsub is not None:
            self._allowances.pop(connection.muxed_conn.peer_id, None)
            await self._notifee.disconnected(None, connection)
            if self._host is not None:
                self._host.forget(peer)

    def _admits(self, forwarder: Any, message: Any) -> bool:
        """Whether to spend CPU on a message of this neighbour's now. Our own always."""
        if self._pubsub is None or forwarder == self._pubsub.my_id:
            return True
        allowance = self._allowances.setdefault(forwarder, _Allowance(trio.current_time()))
        if allowance.take(trio.current_time()):
            return True
        log.debug("%s sends more than %d messages/s; one dropped", forwarder, MESSAGES_S)
        return False

    async def _drain(self, topic: str, subscription: Any) -> None:
        """Takes messages out of libp2p's queue of 32 at once: it drops silently what is over."""
        async for message in subscription:
            try:
                origin = peer_id(ID(message.from_id))
            except RemoteProtocolError:
                continue
            for send in list(self._subscribers[topic]):
                try:
                    send.send_nowait((origin, bytes(message.data)))
                except trio.BrokenResourceError:  # its reader closed it
                    self._subscribers[topic].discard(send)
                except trio.WouldBlock:
                    log.warning("a subscriber of %s does not keep up; message dropped", topic)


class _Allowance:
    """MESSAGES_S, saved up to MESSAGES_BURST; what is refused costs nothing."""

    def __init__(self, now: float) -> None:
        self._level, self._at = MESSAGES_BURST, now

    def take(self, now: float) -> bool:
        self._level = min(MESSAGES_BURST, self._level + (now - self._at) * MESSAGES_S)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


async def _end_with(service: Any, nursery: trio.Nursery) -> None:
    """A libp2p service that ended by itself takes the host with it; the supervisor rebuilds it."""
    await service.manager.wait_finished()
    nursery.cancel_scope.cancel()
