"""The overlay: connections to some of the other peers, and messages on them.

Implements peerd.gossip.ports.Overlay. Always: the listening sockets are bound once and outlive
every libp2p host; a host that ends is built anew; what is true of neighbours stands in sessions.py.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import trio

from peerd.errors import PeerUnreachable, UsageError
from peerd.ids import WIRE_VERSION, PeerId
from peerd.overlay import addresses, guard
from peerd.overlay.backoff import Backoff
from peerd.overlay.doorway import Doorway
from peerd.overlay.hello import Duplicate
from peerd.overlay.host import OverlayHost
from peerd.overlay.neighbour import Timing
from peerd.overlay.ports import Admission, Handler
from peerd.overlay.pubsub import Incoming, News
from peerd.overlay.sessions import LINGER_S, Own, Sessions
from peerd.overlay.supervisor import supervised
from peerd.signing import SigningKey

log = logging.getLogger(__name__)

DIALS_MAX = 16
"""At once; libp2p's own limit is 32. Guess."""
CONNECT_S = 5.0
"""For the name and TCP. Guess: three SYNs."""
ACCEPT_RETRY_S = 0.1
"""While there are no descriptors left, as trio.serve_listeners has it."""
GREETING_S = 10.0
"""A connection on which nobody said hello by then is closed."""


class OverlayService:
    """One peer's overlay. `run` it in a nursery; the rest may be called once it has started."""

    def __init__(
        self,
        key: SigningKey,
        *,
        listen: Sequence[str],
        announce: Sequence[str],
        cluster: str,
        boot: bytes,
        admission: Admission,
        rng: random.Random,
        agent: str = "peerd",
        topics: Sequence[str] = (),
        timing: Timing = Timing(),  # noqa: B008 -- frozen
        wire_version: int = WIRE_VERSION,
    ) -> None:
        self._key, self._rng = key, rng
        self._listen = [addresses.parse(text) for text in listen]
        self._announce = [
            addresses.multiaddr(found.host, found.port, key.peer_id)
            for found in map(addresses.parse, announce)
        ]
        self._news = News(cluster, topics)
        own = Own(key.peer_id, cluster, boot, agent, self.addresses, wire_version)
        self._sessions = Sessions(own, admission, timing, self._news)
        self._host: OverlayHost | None = None
        self._nursery: trio.Nursery | None = None
        self._bound: list[tuple[str, int]] = []
        self._dials = 0
        self._dial_limit = trio.CapacityLimiter(DIALS_MAX)

    @property
    def cloned(self) -> str:
        """Words about another daemon with this identity, once one was met; else empty."""
        return self._sessions.cloned

    @property
    def host(self) -> OverlayHost | None:
        """The libp2p host that carries this now, for tests and tools; None between two."""
        return self._host

    # --- what peerd.gossip.ports.Overlay asks for

    def set_handler(self, handler: Handler) -> None:
        self._sessions.handler = handler

    def addresses(self) -> Sequence[str]:
        """Multiaddrs, with peer id, that others can dial."""
        if self._announce:
            return list(self._announce)
        found = addresses.reachable(self._bound)
        return [addresses.multiaddr(host, port, self._key.peer_id) for host, port in found]

    def neighbours(self) -> Sequence[PeerId]:
        return list(self._sessions.neighbours)

    def send(self, peer: PeerId, payload: bytes) -> None:
        """Queues it on the gossip stream; a peer that is no neighbour any more gets nothing."""
        neighbour = self._sessions.neighbours.get(peer)
        if neighbour is not None:
            neighbour.send(payload)

    async def connect(self, address: str) -> PeerId:
        """See peerd.gossip.ports. Cancelled: what was begun is closed.

        IdentityCloned: another daemon with our identity answered (nobody without our key can make
        us raise that). Addresses come from other members too, so a senseless one is merely
        PeerUnreachable.
        """
        try:
            target = addresses.parse(address)
        except UsageError as error:
            raise PeerUnreachable(str(error)) from error
        if target.peer is not None and target.peer in self._sessions.neighbours:
            return target.peer
        async with self._dial_limit:
            host, nursery = self._running()
            stream = await _open_tcp(target.host, target.port)
            peer, connection = await host.upgrade(stream, outbound=True, expected=target.peer)
            if peer in self._sessions.neighbours:
                nursery.start_soon(guard.close_together, [connection], LINGER_S)
                return peer
            self._dials += 1
            try:
                await nursery.start(
                    self._sessions.dialled, host, peer, connection, self._dials, address
                )
            except Duplicate as error:
                if not await self._sessions.appears(peer):
                    raise PeerUnreachable(f"{address} closed this connection: {error}") from error
        return peer

    async def disconnect(self, peer: PeerId) -> None:
        """neighbour_down has been called when this returns."""
        neighbour = self._sessions.neighbours.get(peer)
        if neighbour is not None:
            neighbour.drop("disconnected by this peer")
            await neighbour.ended.wait()

    # --- gossipsub

    async def publish(self, topic: str, payload: bytes) -> None:
        """To every subscriber of the cluster. See pubsub.News."""
        await self._news.publish(topic, payload)

    def subscribe(self, topic: str) -> Incoming:
        """Who published and what, from now on. See pubsub.News."""
        return self._news.subscribe(topic)

    # --- running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started when it listens and libp2p is up. UsageError: an address cannot be listened on.

        Cancelled: every neighbour is told (the connections close) and neighbour_down called, the
        sockets are closed; that takes less than 2 s. What was queued may not have been sent.
        """
        listeners = await self._open_listeners()
        started = False

        async def carry(up: Callable[[], None]) -> None:
            def ready() -> None:
                nonlocal started
                up()
                if not started:
                    task_status.started()
                started = True

            await self._carry(listeners, ready)

        try:
            backoff = Backoff(self._rng, first_s=0.2, last_s=30.0)
            await supervised(carry, backoff, "the overlay's libp2p host")
        finally:
            for listener in listeners:
                listener.socket.close()

    async def _open_listeners(self) -> list[trio.SocketListener]:
        """Bound once, for all hosts: a port that is taken is the user's to hear of, now."""
        listeners: list[trio.SocketListener] = []
        for at in self._listen:
            try:
                listeners += await trio.open_tcp_listeners(at.port, host=at.host)
            except OSError as error:
                for listener in listeners:
                    listener.socket.close()
                raise UsageError(
                    f"cannot listen on {at.host} port {at.port}: {error.strerror or error}; "
                    "choose another with --listen"
                ) from error
        self._bound = [listener.socket.getsockname()[:2] for listener in listeners]
        return listeners

    async def _carry(
        self, listeners: Sequence[trio.SocketListener], up: Callable[[], None]
    ) -> None:
        """One life of the libp2p host. Returns if libp2p gives up by itself."""
        host = OverlayHost(self._key, self._sessions.gate)
        for protocol in self._sessions.protocols:
            host.set_handler(protocol, self._sessions.answered)
        door = Doorway()
        async with host.running(), trio.open_nursery() as nursery:
            async with self._news.carried_by(host, nursery):
                self._host, self._nursery = host, nursery
                try:
                    for listener in listeners:
                        nursery.start_soon(self._accept, host, door, listener)
                    up()
                    await host.wait_ended()
                finally:
                    self._host = self._nursery = None
                    await self._sessions.leave()
            nursery.cancel_scope.cancel()

    async def _accept(
        self, host: OverlayHost, door: Doorway, listener: trio.SocketListener
    ) -> None:
        """trio.serve_listeners would close the socket with this host."""

        async def welcome(stream: trio.SocketStream) -> None:
            await guard.contained("a connection", lambda: self._stranger(host, door, stream))

        async with trio.open_nursery() as nursery:
            while True:
                try:
                    nursery.start_soon(welcome, await listener.accept())
                except OSError as error:
                    log.warning("cannot accept overlay connections now: %s", error)
                    await trio.sleep(ACCEPT_RETRY_S)

    async def _stranger(self, host: OverlayHost, door: Doorway, stream: trio.SocketStream) -> None:
        """From accept to a libp2p connection; closed again if nobody says hello on it."""
        try:
            remote = str(stream.socket.getpeername()[0])
        except OSError:  # gone already
            await trio.aclose_forcefully(stream)
            return
        with door.standing(remote) as scope:
            _, connection = await host.upgrade(stream, outbound=False)
        if scope.cancelled_caught:
            return
        with trio.move_on_after(GREETING_S):
            await connection.event_closed.wait()
        if not self._sessions.greeted(connection):
            await guard.close_together([connection], LINGER_S)

    # --- small things

    def _running(self) -> tuple[OverlayHost, trio.Nursery]:
        if self._host is None or self._nursery is None:
            raise PeerUnreachable("the overlay is not running; try again in some seconds")
        return self._host, self._nursery


async def _open_tcp(host: str, port: int) -> trio.SocketStream:
    """Resolves the name now, tries its addresses; PeerUnreachable."""
    try:
        with trio.fail_after(CONNECT_S):
            return await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise PeerUnreachable(f"{host}:{port} does not answer within {CONNECT_S:.0f} s") from error
    except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot encode
        raise PeerUnreachable(f"{host}:{port} cannot be reached: {error}") from error
