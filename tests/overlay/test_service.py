from __future__ import annotations

import trio

from tests.overlay.peers import make, running


async def test_two_peers_meet_and_talk() -> None:
    a, b = make(1), make(2)
    async with running(a, b):
        t = trio.current_time()
        assert await a.service.connect(b.address) == b.id
        print("connect", trio.current_time() - t)
        await b.story.until("up")
        a.service.send(b.id, b"one")
        b.service.send(a.id, b"two")
        await b.story.until("payload")
        await a.story.until("payload")
        t = trio.current_time()
    print("stop", trio.current_time() - t)
    assert b.story.payloads == [(a.id, b"one")]
    assert a.story.payloads == [(b.id, b"two")]
    assert a.story.count("up") == a.story.count("down") == 1
