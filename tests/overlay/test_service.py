"""Whole overlays over loopback: who becomes a neighbour, who does not, and how it ends."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from peerd.errors import (
    AdmissionRefused,
    IdentityCloned,
    PeerUnreachable,
    RemoteProtocolError,
    UsageError,
)
from peerd.gossip.ports import GOSSIP_MESSAGE_MAX_BYTES, Overlay, OverlayHandler
from peerd.ids import PeerId
from peerd.overlay.hello import PAYLOAD_MAX_BYTES
from peerd.overlay.neighbour import QUEUE_MAX, Timing
from peerd.overlay.ports import Handler
from tests.overlay.peers import LIMIT_S, Peer, make, running


async def test_it_is_the_overlay_that_gossip_asks_for() -> None:
    overlay: Overlay = make().service
    handler: Handler = _as_gossip(make().story)
    overlay.set_handler(handler)
    assert PAYLOAD_MAX_BYTES == GOSSIP_MESSAGE_MAX_BYTES


def _as_gossip(handler: OverlayHandler) -> OverlayHandler:
    return handler


async def test_two_peers_meet_and_talk_in_order() -> None:
    a, b = make(), make()
    async with running(a, b):
        assert await a.service.connect(b.address) == b.id
        await b.story.until("up")
        for number in range(20):
            a.service.send(b.id, bytes([number]))
        b.service.send(a.id, b"x" * PAYLOAD_MAX_BYTES)
        await b.story.until("payload", 20)
        await a.story.until("payload")
        assert a.service.neighbours() == [b.id]
        with pytest.raises(ValueError, match="65537 bytes"):
            a.service.send(b.id, b"x" * (PAYLOAD_MAX_BYTES + 1))
    assert b.story.payloads == [(a.id, bytes([number])) for number in range(20)]
    assert a.story.payloads == [(b.id, b"x" * PAYLOAD_MAX_BYTES)]
    assert a.story.count("up") == a.story.count("down") == 1
    assert b.story.count("up") == b.story.count("down") == 1


async def test_an_address_without_a_peer_id_is_enough() -> None:
    a, b, c = make(), make(), make()
    async with running(a, b, c):
        assert await a.service.connect(b.host_port) == b.id
        assert await a.service.connect(c.address.rpartition("/p2p/")[0]) == c.id
        assert await a.service.connect(b.host_port.replace("127.0.0.1", "localhost")) == b.id
        assert sorted(a.service.neighbours()) == sorted([b.id, c.id])
        assert a.story.count("up") == 2


async def test_who_answers_must_be_who_was_meant() -> None:
    a, b, c = make(), make(), make()
    async with running(a, b):
        wrong = b.address.replace(b.id, c.id)
        with pytest.raises(RemoteProtocolError, match=f"not {c.id}"):
            await a.service.connect(wrong)
    assert a.story.told == b.story.told == []


async def test_nobody_there_is_said_at_once_and_forgotten_at_once() -> None:
    a, b = make(), make(7)
    async with running(a):
        async with running(b):
            address = b.address
        for _ in range(2):
            with pytest.raises(PeerUnreachable, match="cannot be reached"):
                await a.service.connect(address)
        again = make(7, listen=[address.rpartition("/p2p/")[0]])
        async with running(again):
            assert await a.service.connect(address) == again.id


async def test_a_neighbour_that_stops_is_noticed_and_its_return_is_dialled_at_once() -> None:
    a, b = make(), make(7)
    async with running(a):
        async with running(b):
            address = b.address
            await a.service.connect(address)
        await a.story.until("down")
        again = make(7, listen=[address.rpartition("/p2p/")[0]])
        async with running(again):
            with trio.fail_after(1):
                await a.service.connect(address)
            a.service.send(again.id, b"welcome back")
            await again.story.until("payload")
    assert [told for told, _ in a.story.told] == ["up", "down", "up", "down"]


async def test_another_cluster_is_refused_in_words_on_both_sides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "peerd")
    a, b = make(cluster="red"), make(cluster="blue")
    async with running(a, b):
        with pytest.raises(RemoteProtocolError, match=r"of cluster '(red|blue)', the other of"):
            await a.service.connect(b.address)
        await _until_logged(caplog, "'red'")
    assert a.story.told == b.story.told == []


async def test_another_wire_version_is_refused_in_words_on_both_sides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "peerd")
    a, b = make(), make(wire_version=2)
    async with running(a, b):
        with pytest.raises(RemoteProtocolError, match=r"version 1, the other 2|2, the other 1"):
            await a.service.connect(b.address)
        await _until_logged(caplog, "wire version")
    assert a.story.told == b.story.told == []


class _Picky:
    def __init__(self, unwanted: PeerId) -> None:
        self._unwanted = unwanted

    def admit(self, peer: PeerId) -> None:
        if peer == self._unwanted:
            raise AdmissionRefused("you are not on the list")


async def test_who_is_not_admitted_hears_why_and_nothing_else() -> None:
    a = make()
    b = make(admission=_Picky(a.id))
    async with running(a, b):
        with pytest.raises(AdmissionRefused, match="you are not on the list"):
            await a.service.connect(b.address)
        with pytest.raises(AdmissionRefused, match="you are not on the list"):
            await b.service.connect(a.address)
    assert a.story.told == b.story.told == []


async def test_dialling_oneself_is_a_plain_error() -> None:
    a = make()
    async with running(a):
        with pytest.raises(PeerUnreachable, match="this daemon itself"):
            await a.service.connect(a.host_port)
        with pytest.raises(PeerUnreachable, match="this daemon itself"):
            await a.service.connect(a.address)
    assert a.story.told == []


async def test_a_cloned_identity_is_told_with_both_places() -> None:
    a, clone = make(7), make(7)
    async with running(a, clone):
        with pytest.raises(IdentityCloned) as caught:
            await a.service.connect(clone.host_port)
        for side in (str(caught.value), clone.service.cloned):
            assert a.address in side
            assert clone.address in side
    assert a.story.told == clone.story.told == []


async def test_dials_that_cross_leave_one_stream() -> None:
    for _ in range(3):
        a, b = make(), make()
        async with running(a, b):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.service.connect, b.address)
                nursery.start_soon(b.service.connect, a.address)
            await _both_hear_each_other(a, b)
            assert a.service.neighbours() == [b.id]
            assert b.service.neighbours() == [a.id]
        assert a.story.count("up") == a.story.count("down")
        assert b.story.count("up") == b.story.count("down")


async def _both_hear_each_other(a: Peer, b: Peer) -> None:
    """Sends until something arrives: the first stream may be the one that is given up."""
    with trio.fail_after(LIMIT_S):
        for sender, receiver in ((a, b), (b, a)):
            while (sender.id, b"here") not in receiver.story.payloads:
                sender.service.send(receiver.id, b"here")
                with trio.move_on_after(0.05):
                    await receiver.story.until("payload")


async def test_disconnect_has_told_both_when_it_returns_or_soon_after() -> None:
    a, b = make(), make()
    async with running(a, b):
        await a.service.connect(b.address)
        await a.service.disconnect(b.id)
        assert a.story.told == [("up", b.id), ("down", b.id)]
        assert a.service.neighbours() == []
        await b.story.until("down")
        await a.service.disconnect(b.id)


async def test_a_neighbour_that_takes_nothing_is_dropped_not_waited_for() -> None:
    a, b = make(), make()
    async with running(a, b):
        await a.service.connect(b.address)
        for _ in range(QUEUE_MAX + 1):
            a.service.send(b.id, b"x" * 1000)
        await a.story.until("down")


async def test_a_neighbour_from_which_nothing_comes_is_dead() -> None:
    a = make(timing=Timing(beat_s=0.1, silence_max_s=0.4))
    b = make(timing=Timing(beat_s=60.0, silence_max_s=60.0))
    async with running(a, b):
        await a.service.connect(b.address)
        with trio.fail_after(2):
            await a.story.until("down")


async def test_beats_keep_a_silent_stream_up() -> None:
    timing = Timing(beat_s=0.1, silence_max_s=0.4)
    a, b = make(timing=timing), make(timing=timing)
    async with running(a, b):
        await a.service.connect(b.address)
        with trio.move_on_after(1.2):
            await a.story.until("down")
        assert a.service.neighbours() == [b.id]


async def test_a_host_that_dies_is_built_anew_and_the_neighbours_hear_of_it() -> None:
    a, b = make(), make()
    async with running(a, b):
        await a.service.connect(b.address)
        host = b.service.host
        assert host is not None
        host.swarm.manager.cancel()
        await a.story.until("down")
        await b.story.until("down")
        with trio.fail_after(LIMIT_S):
            while b.service.host in (host, None):
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert await a.service.connect(b.address) == b.id
        a.service.send(b.id, b"again")
        await b.story.until("payload")
    assert [told for told, _ in b.story.told] == ["up", "down", "up", "payload", "down"]


async def test_a_port_that_is_taken_is_the_users_to_hear_of() -> None:
    a = make()
    async with running(a):
        b = make(listen=[a.address.rpartition("/p2p/")[0]])
        with pytest.raises(UsageError, match="choose another with --listen"):
            await b.service.run()


async def test_leaving_many_neighbours_takes_less_than_two_seconds() -> None:
    hub, others = make(), [make() for _ in range(6)]
    async with running(*others):
        async with running(hub):
            for other in others:
                await hub.service.connect(other.address)
            left_at = trio.current_time()
        assert trio.current_time() - left_at < 2
        for other in others:
            await other.story.until("down")
    assert hub.story.count("down") == 6


async def _until_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Both sides have logged a refusal with these words (one may do so a moment later)."""
    with trio.fail_after(LIMIT_S):
        while sum(words in record.getMessage() for record in caplog.records) < 2:
            await trio.testing.wait_all_tasks_blocked(0.01)
