"""What brought libp2p hosts down does not bring an overlay down, nor any of its neighbours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from peerd.ids import PeerId
from tests.overlay.attacks import ATTACKS, Attacker, run_attack
from tests.overlay.peers import LIMIT_S, Peer, Story, make, running


class _Fragile(Story):
    """A handler with a bug: it does not expect what an attacker sends."""

    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None:
        super().gossip_arrived(peer, payload)
        if payload != b"still here":
            raise KeyError("a bug of ours")


@pytest.mark.parametrize("job", ATTACKS, ids=lambda job: job.__name__)
async def test_an_overlay_goes_on(job: Callable[[Attacker], Awaitable[None]]) -> None:
    topics = ("urgent",)
    victim, friend, newcomer = make(topics=topics), make(topics=topics), make(topics=topics)
    victim.story = _Fragile()
    victim.service.set_handler(victim.story)
    async with running(victim, friend, newcomer):
        await friend.service.connect(victim.address)
        host = victim.service.host
        await run_attack(job, victim.address, "test", "urgent")
        assert await newcomer.service.connect(victim.address) == victim.id
        for peer in (friend, newcomer):
            peer.service.send(victim.id, b"still here")
        await victim.story.until_payloads(b"still here", 2)
        await _news_travels(friend, victim)
        assert victim.service.host is host
        assert ("down", friend.id) not in victim.story.told
        assert friend.story.count("down") == 0


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
