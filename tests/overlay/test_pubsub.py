"""News over gossipsub: who gets it, from whom, and that it outlives the host."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from libp2p.network.stream.exceptions import StreamError

from peerd.overlay.neighbour import Timing
from peerd.overlay.pubsub import MESSAGES_BURST, MESSAGES_S, Incoming
from tests.overlay.attacks import Attacker
from tests.overlay.peers import LIMIT_S, Peer, make, running

TOPICS = ("urgent", "preheat")


async def _arrives(sender: Peer, found: Incoming, payload: bytes) -> None:
    """Published until it arrives: a mesh forms with gossipsub's heartbeat of 1 s."""
    with trio.fail_after(LIMIT_S):
        while True:
            await sender.service.publish("urgent", payload)
            with trio.move_on_after(0.1):
                async for origin, got in found:
                    if (origin, got) == (sender.id, payload):
                        return


async def test_it_reaches_peers_that_are_not_neighbours_with_its_true_origin() -> None:
    a, b, c = (make(topics=TOPICS) for _ in range(3))
    async with running(a, b, c):
        await a.service.connect(b.address)
        await b.service.connect(c.address)
        urgent, preheat = c.service.subscribe("urgent"), c.service.subscribe("preheat")
        await _arrives(a, urgent, b"from the other end")
        assert preheat.statistics().current_buffer_used == 0


async def test_it_goes_on_when_the_host_is_built_anew() -> None:
    a, b = make(topics=TOPICS), make(topics=TOPICS)
    async with running(a, b):
        await a.service.connect(b.address)
        found = b.service.subscribe("urgent")
        await _arrives(a, found, b"before")
        host = b.service.host
        assert host is not None
        host.swarm.manager.cancel()
        await a.story.until("down")
        with trio.fail_after(LIMIT_S):
            while b.service.host in (host, None):
                await trio.testing.wait_all_tasks_blocked(0.01)
        await a.service.connect(b.address)
        await _arrives(a, found, b"after")


async def test_a_stranger_is_told_no_topics() -> None:
    """/meshsub is served only to who said hello, and opened only to them."""
    victim = make(topics=TOPICS, timing=Timing(hello_s=0.2))
    async with running(victim):
        attacker = Attacker(victim.address, "test", "urgent")
        async with attacker.running():
            stream = await attacker.stream(await attacker.connect(), "/meshsub/1.1.0")
            with trio.fail_after(LIMIT_S), pytest.raises(StreamError):
                await stream.read(1)
            assert attacker.opened_by_the_other == []
            assert victim.story.told == []
            await attacker.greet()
            with trio.fail_after(LIMIT_S):
                while attacker.opened_by_the_other != ["/meshsub/1.1.0"]:
                    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_neighbour_that_floods_is_not_listened_to() -> None:
    a, b = make(topics=TOPICS), make(topics=TOPICS)
    async with running(a, b):
        await a.service.connect(b.address)
        found = b.service.subscribe("urgent")
        await _arrives(a, found, b"before")
        for number in range(200):
            await a.service.publish("urgent", number.to_bytes(2, "big"))
        await trio.testing.wait_all_tasks_blocked(0.3)
        assert found.statistics().current_buffer_used <= MESSAGES_BURST + 2 * MESSAGES_S
        await a.service.disconnect(b.id)
