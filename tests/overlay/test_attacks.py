"""What brought libp2p hosts down does not bring an overlay down, nor any of its neighbours."""

from __future__ import annotations

import trio

from peerd.ids import PeerId
from peerd.overlay import hello as wire
from tests.overlay.attacks import ATTACKS, Attacker, run_attack
from tests.overlay.peers import LIMIT_S, Peer, Story, make, running


class _Fragile(Story):
    """A handler with a bug: it does not expect what an attacker sends."""

    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None:
        super().gossip_arrived(peer, payload)
        if payload != b"still here":
            raise KeyError("a bug of ours")


async def test_an_overlay_goes_on_after_each_of_them() -> None:
    topics = ("urgent",)
    victim, friend = make(topics=topics), make(topics=topics)
    victim.story = _Fragile()
    victim.service.set_handler(victim.story)
    async with running(victim, friend), Attacker.of(victim.address) as newcomer:
        await friend.service.connect(victim.address)
        host = victim.service.host
        for number, job in enumerate(ATTACKS, start=1):
            await run_attack(job, victim.address, "test", "urgent")
            await _is_let_in(newcomer)
            friend.service.send(victim.id, b"still here")
            await victim.story.until_payloads(b"still here", 2 * number)
            await _news_travels(friend, victim)
            assert victim.service.host is host, job.__name__
            assert ("down", friend.id) not in victim.story.told, job.__name__
            assert friend.story.count("down") == 0, job.__name__


async def _is_let_in(newcomer: Attacker) -> None:
    """A connection and a hello of a daemon that has just started, each time."""
    _, stream = await newcomer.greet()
    await stream.write(wire.frame(wire.Kind.PAYLOAD, b"still here"))


async def _news_travels(friend: Peer, victim: Peer) -> None:
    """Published until it arrives: a gossipsub mesh forms with its heartbeat of 1 s."""
    arrived = trio.Event()

    async def listen() -> None:
        async for origin, payload in victim.service.subscribe("urgent"):
            if (origin, payload) == (friend.id, b"news"):
                arrived.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with trio.fail_after(LIMIT_S):
            while not arrived.is_set():
                await friend.service.publish("urgent", b"news")
                with trio.move_on_after(0.1):
                    await arrived.wait()
        nursery.cancel_scope.cancel()
