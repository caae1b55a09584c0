"""libp2p as it comes, to show what each guard is for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio
from libp2p.crypto.x25519 import create_new_key_pair as create_static_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux import yamux as library
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from peerd.errors import RemoteProtocolError
from peerd.overlay import yamux
from peerd.overlay.identity import key_pair
from peerd.signing import SigningKey
from tests.overlay.attacks import Attacker


class StockHost:
    """A host as libp2p.new_host builds it, with Noise and yamux, on a port of loopback."""

    def __init__(self) -> None:
        pair = key_pair(SigningKey(os.urandom(32)))
        self.id = ID.from_pubkey(pair.public_key)
        store = PeerStore()
        store.add_key_pair(self.id, pair)
        noise = NoiseTransport(pair, noise_privkey=create_static_key_pair().private_key)
        upgrader = TransportUpgrader({NOISE: noise}, {YAMUX: yamux.StockYamux})
        self.swarm = Swarm(self.id, store, upgrader, [TCP()])
        self.host = BasicHost(self.swarm)

    @property
    def address(self) -> str:
        return str(self.host.get_addrs()[0])

    @asynccontextmanager
    async def running(self, listen: str = "/ip4/127.0.0.1/tcp/0") -> AsyncIterator[None]:
        async with self.host.run([Multiaddr(listen)]):
            yield

    @asynccontextmanager
    async def gossiping(self) -> AsyncIterator[Any]:
        """With gossipsub at its defaults (but for the degrees, which have none)."""
        router = GossipSub([PROTOCOL_ID_V11], 6, 4, 12)
        pubsub = Pubsub(self.host, router)
        async with background_trio_service(router), background_trio_service(pubsub):
            await pubsub.wait_until_ready()
            yield pubsub


@contextmanager
def stock_streams() -> Iterator[None]:
    """yamux as it comes, for the length of the block."""
    library.YamuxStream = yamux.StockStream
    try:
        yield
    finally:
        yamux.install()


class _StockAttacker(Attacker):
    """A stock host greets nobody and has no gate."""

    async def greet(self) -> tuple[Any, Any]:
        return await self.connect(), None


async def attack_stock(job: Any, stock: StockHost, topic: str) -> None:
    attacker = _StockAttacker(stock.address, "stock", "unused")
    attacker.topic = topic
    async with attacker.running():
        with trio.move_on_after(2):
            try:
                await job(attacker)
            except RemoteProtocolError:
                pass


async def let_in(stream: Any, protocol: str) -> bool:
    """A gate that is open."""
    return True
