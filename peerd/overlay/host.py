"""The libp2p host: proven, multiplexed connections, and streams on them.

Always: every connection is Noise and yamux, or it is none; its peer is proven; a stream is served
only where `gate` lets it; whatever a remote does ends its own connection at most. TCP, dialling
and accepting are ours (the Swarm only carries): ADR-0007 says which of its ways that spares us.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.upgrader import TransportUpgrader

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.overlay import guard, yamux
from peerd.overlay.identity import library_id
from peerd.overlay.secure import Noise, remote_errors
from peerd.overlay.transport import BoundedStream
from peerd.signing import SigningKey

NOISE = "/noise"
UPGRADE_MAX_BYTES = 8192
"""All that a stranger may send before its connection stands: two negotiations and a handshake of
some 600 bytes."""
UPGRADE_S = 5.0
"""Ten round trips across the world, and a busy peer. Guess."""
CONNECTIONS_MAX = 256
"""Degree is 6–12; the rest is for newcomers, which every peer may be asked by. Guess."""
CLOSE_S = 1.5
"""Stopping may take 2 s in all."""

Gate = Callable[[Any, str], Awaitable[bool]]


class OverlayHost:
    """One libp2p host. `running` it ends with HostDied if a libp2p service ended by itself."""

    def __init__(self, key: SigningKey, gate: Gate) -> None:
        guard.quiet_library()
        yamux.install()
        self._noise = Noise(key)
        self._streams: WeakSet[BoundedStream] = WeakSet()
        config, retries = guard.connection_limits(CONNECTIONS_MAX)
        own = library_id(key.peer_id)
        store = PeerStore()
        store.add_key_pair(own, self._noise.key_pair)
        self.swarm = Swarm(
            own,
            store,
            TransportUpgrader({}, {}),
            transports=[],
            retry_config=retries,
            connection_config=config,
        )
        self.library = BasicHost(
            self.swarm, announce_addrs=[], disable_identify_address_discovery=True
        )
        guard.no_identify(self.library)
        guard.no_unasked_dials(self.swarm)
        self.swarm.set_stream_handler(guard.guarded_stream_handler(self.library, gate))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carries connections. Leaving it, also by cancellation, closes them within CLOSE_S."""
        async with background_trio_service(self.swarm):
            guard.contained_tasks(self.swarm)
            try:
                yield
            finally:
                await guard.close_together(self.connections(), CLOSE_S)
                with trio.CancelScope(shield=True):
                    for stream in list(self._streams):
                        await stream.close()

    async def wait_ended(self) -> None:
        """Returns when the swarm stopped, which it does not do unasked."""
        await self.swarm.manager.wait_finished()

    def connections(self) -> list[Any]:
        return [found for each in self.swarm.connections.values() for found in each]

    def set_handler(self, protocol: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        self.library.set_stream_handler(protocol, handler)

    async def upgrade(
        self, stream: trio.SocketStream, *, outbound: bool, expected: PeerId | None = None
    ) -> tuple[PeerId, Any]:
        """The peer at the other end of a TCP connection, and libp2p's connection with it.

        Takes the stream over: it is closed if this fails. RemoteProtocolError.
        """
        bounded = BoundedStream(stream, UPGRADE_MAX_BYTES)
        self._streams.add(bounded)
        try:
            with remote_errors("no libp2p connection"), trio.fail_after(UPGRADE_S):
                await _negotiate(bounded, NOISE, outbound)
                peer, session = await self._noise.handshake(
                    bounded, outbound=outbound, expected=expected
                )
                await _negotiate(session, YAMUX, outbound)
                bounded.trust()
                muxed = yamux.BoundedYamux(session, library_id(peer), is_initiator=outbound)
                direction = "outbound" if outbound else "inbound"
                return peer, await self.swarm.add_conn(muxed, direction=direction)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def open_stream(self, connection: Any, protocols: Sequence[str]) -> tuple[str, Any]:
        """A stream on this very connection, and which of the protocols it speaks."""
        with remote_errors("no stream could be opened"), trio.fail_after(UPGRADE_S):
            stream = await connection.new_stream()
            client = MultiselectClient()
            chosen = await client.select_one_of(
                list(protocols), MultiselectCommunicator(stream), int(UPGRADE_S)
            )
            stream.set_protocol(chosen)
            return str(chosen), stream

    def forget(self, peer: PeerId) -> None:
        """Drops what libp2p remembers of a peer that left, or it would remember all for ever."""
        known = library_id(peer)
        store = self.swarm.peerstore
        if not self.swarm.connections.get(known) and store.has_peer(known):
            store.clear_peerdata(known)


async def _negotiate(conn: Any, protocol: str, outbound: bool) -> None:
    """Agrees on this one protocol by multistream-select, or raises."""
    communicator = MultiselectCommunicator(conn)
    if outbound:
        await MultiselectClient().select_one_of([protocol], communicator, int(UPGRADE_S))
        return
    chosen, _ = await Multiselect({protocol: None}).negotiate(communicator, int(UPGRADE_S))
    if chosen != protocol:
        raise RemoteProtocolError(f"the remote chose {chosen}")
