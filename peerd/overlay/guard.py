"""Every workaround for libp2p 0.8.1 that is not a replacement of our own, by name and with reason.

Always: nothing that a remote sends, and no bug in a handler of ours, ends a libp2p service; each
function here has a test that shows the stock library failing without it, so that it falls when the
library needs it no longer. (Replacements of ours: secure.py, yamux.py, host.py; ADR-0007.)
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub import pubsub as library
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub_notifee import PubsubNotifee

from peerd.errors import RemoteProtocolError
from peerd.overlay.yamux import STREAMS_MAX

log = logging.getLogger(__name__)

NEGOTIATION_MAX_BYTES = 1024
"""A protocol id and its echo; libp2p would read as much as the remote's varint says."""
SUBSCRIPTION_QUEUE_MAX = 256
"""Five times pubsub.MESSAGES_BURST: twelve neighbours' bursts at once may still lose some."""
NEGOTIATION_S = 10
"""libp2p's own default for streams."""


async def contained(what: str, job: Callable[[], Awaitable[object]]) -> bool:
    """Runs `job`; whatever it raises is logged and ends there. False if it raised.

    The one door through which all that libp2p starts for a remote goes: an exception in a stream
    handler, in `push_msg` or in a validator tears down the whole swarm or pubsub service.
    Never BaseException: cancellation must pass.
    """
    try:
        await job()
    except Exception as error:
        # What a remote can cause as often as it likes must not fill the log.
        log.debug("%s ended: %r", what, error, exc_info=log.isEnabledFor(logging.DEBUG))
        return False
    return True


def guarded_stream_handler(
    host: Any, gate: Callable[[Any, str], Awaitable[bool]]
) -> Callable[[Any], Awaitable[None]]:
    """Replaces BasicHost._swarm_stream_handler.

    Stock: an exception from a handler (garbage protobuf on /meshsub is enough) ends the swarm; a
    StreamEOF or StreamReset that escapes leaks the connection, and `disconnected` never fires; a
    negotiation reads as many bytes as the remote says. `gate` says whether this connection may
    have that protocol now.
    """

    async def serve(stream: Any) -> None:
        if len(stream.muxed_conn.streams) > STREAMS_MAX:
            raise RemoteProtocolError(f"more than {STREAMS_MAX} streams on one connection")
        communicator = MultiselectCommunicator(_NegotiationLimit(stream))
        protocol, handler = await host.multiselect.negotiate(communicator, NEGOTIATION_S)
        if handler is None or not await gate(stream, str(protocol)):
            raise RemoteProtocolError(f"{protocol} is not open to this peer")
        stream.set_protocol(protocol)
        await handler(stream)

    async def handle(stream: Any) -> None:
        served = await contained("a stream", lambda: serve(stream))
        # Neither pubsub nor the library closes a stream whose other end did.
        await contained("ending a stream", stream.close if served else stream.reset)

    return handle


class _NegotiationLimit:
    """What multistream-select reads from: NEGOTIATION_MAX_BYTES and no more."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._left_bytes = stream, NEGOTIATION_MAX_BYTES
        self.write = stream.write

    async def read(self, n: int) -> bytes:
        self._left_bytes -= n
        if self._left_bytes < 0:
            raise RemoteProtocolError("a protocol id of more than 1 KiB")
        return bytes(await self._stream.read(n))


def guarded_push_msg(pubsub: Any, admits: Callable[[Any, Any], bool]) -> None:
    """Wraps Pubsub.push_msg, which libp2p runs as a task of its own for each message.

    Stock: a message with a garbage key raises from the signature check and ends pubsub; so does a
    synchronous validator that raises. `admits` (forwarder, message) may drop a message first: each
    costs 5 ms of CPU to check.
    """
    stock = pubsub.push_msg

    async def push_msg(forwarder: Any, message: Any) -> None:
        if admits(forwarder, message):
            await contained("a gossipsub message", lambda: stock(forwarder, message))

    pubsub.push_msg = push_msg


def contained_tasks(service: Any) -> None:
    """Wraps run_task of a running libp2p service (swarm or pubsub).

    Stock: any task that raises cancels its whole service, and there are some twenty places where
    one is started. Daemon tasks are left alone: if they end, the supervisor must hear of it.
    """
    stock = service.manager.run_task

    def run_task(
        job: Callable[..., Awaitable[object]],
        *args: Any,
        daemon: bool = False,
        name: str | None = None,
    ) -> None:
        if daemon:
            stock(job, *args, daemon=True, name=name)
            return

        async def run() -> None:
            await contained(f"task {getattr(job, '__name__', job)}", lambda: job(*args))

        stock(run, name=name or getattr(job, "__name__", None))

    service.manager.run_task = run_task


def no_unasked_dials(swarm: Any) -> None:
    """libp2p dials nobody by itself: we dial (host.py), it only carries.

    Stock dial_peer waits 250 ms for a happy-eyeballs rival that a peer with one address does not
    have, tries only one TCP address of each peer, forgets loopback ones where it knows others, and
    refuses a peer that failed once for 60 s (so one that restarted). And it is called unasked: by
    new_stream and by the auto-connector.
    """

    async def dial_peer(peer: Any) -> Any:
        raise SwarmException(f"no connection to {peer}; peerd dials itself")

    async def nothing(*args: Any) -> None:
        return None

    swarm.dial_peer = dial_peer
    swarm.auto_connector.run_background_task = nothing
    swarm.auto_connector.maybe_connect = nothing
    # It remembers every peer that ever disconnected, to dial it later: strangers too, for ever.
    swarm.auto_connector.record_disconnect = lambda peer: None


def connection_limits(connections_max: int) -> tuple[Any, Any]:
    """ConnectionConfig and RetryConfig with our bound instead of three of theirs.

    Stock: 300 connections, pruned from 200 on, an inbound limiter, and a resource manager that
    caps inbound at 256 and leaks slots. A Swarm without a resource manager has none of its caps;
    host.py bounds handshakes and connections at its own door, yamux.py streams and buffers.
    """
    config = ConnectionConfig(
        max_connections=connections_max,
        min_connections=0,
        low_watermark=0,
        high_watermark=connections_max,
    )
    return config, RetryConfig(max_retries=0)


def no_identify(host: Any) -> None:
    """Neither asks others for identify nor answers it, and takes no identify/push or ping.

    Stock: it is asked on every connection (a stream, some 5 ms of CPU each way) in system tasks,
    whose crash would be trio's; a push by anyone fills the peer store; the answer tells a stranger
    our addresses before it is admitted. Our hello carries what we need.
    """
    host.multiselect.handlers.clear()
    host.get_network().notifees.clear()


def take_pubsub_notifee(swarm: Any) -> Any:
    """Takes from the swarm the notifee by which pubsub learns of connections; we tell it.

    Stock: pubsub opens its stream to every connection at once and so tells every stranger what we
    subscribe to. It is to know neighbours that were admitted, and no others.
    """
    [notifee] = [found for found in swarm.notifees if isinstance(found, PubsubNotifee)]
    swarm.notifees.remove(notifee)
    return notifee


def gossipsub_router() -> Any:
    """GossipSub with the parameters of its specification.

    Stock: a heartbeat each 120 s, so that a mesh forms minutes after a subscription; an adaptive
    mode that changes degrees by itself; spam protection that drops more than 10 messages/s of a
    topic silently; eclipse protection that wants three IP addresses in each mesh and grafts and
    prunes for ever where all peers share one. Degrees: gossipsub v1.1, D, D_low, D_high.
    """
    return GossipSub(
        protocols=[PROTOCOL_ID_V11],
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=1,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )


def wide_subscription_queue() -> None:
    """libp2p's queue between gossipsub and a subscriber, from 32 to what one burst may bring.

    Stock: what is over 32 is dropped with a warning, and an RPC of 50 messages starts 50 tasks that
    all run before the subscriber does. A constant of the module, read when a topic is subscribed.
    """
    library.SUBSCRIPTION_CHANNEL_SIZE = SUBSCRIPTION_QUEUE_MAX


def stop_seen_messages(pubsub: Any) -> None:
    """Ends the OS thread that sweeps seen messages: libp2p starts one for each Pubsub and never
    stops it, so every rebuilt host would leave one behind. Does not wait: it may be in a sweep."""
    pubsub.seen_messages._stop_event.set()


async def close_together(connections: list[Any], limit_s: float) -> None:
    """Closes all connections at the same time, within the limit, whatever is being cancelled.

    Stock: the swarm closes one after the other, and each close sleeps 0.2 s: twelve neighbours
    would take more than 2 s to leave. And where a close began in a task of libp2p's that was then
    cancelled, it never happens: the socket stays open, and the other side waits for its beats.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + limit_s):
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(contained, "closing a connection", connection.close)
        async with trio.open_nursery() as nursery:
            for connection in connections:
                end = connection.muxed_conn.secured_conn.close
                nursery.start_soon(contained, "closing a socket", end)


def quiet_library() -> None:
    """libp2p logs what remotes do as errors with tracebacks, up to one for each message; what an
    operator should know is logged at our doors."""
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
