"""Links between real services: over loopback sockets, and in memory where the clock must jump."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from peerd.errors import AdmissionRefused, PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId, PieceIndex
from peerd.link.link import LinkLimits
from peerd.link.outgoing import CONTROL_MAX
from peerd.link.settings import LinkSettings
from peerd.overlay.noise import NoiseProver
from peerd.units import MIB
from tests.link.helper import KEYS, VERSION, Bytes, Peer, attested, have, running, together
from tests.link.memory_transport import MemoryNetwork

SMALL, LARGE = KEYS[0], KEYS[1]


async def send_piece(one: Peer, two: Peer, index: int, data: bytes) -> None:
    await one.links.send_piece(
        two.id, VERSION, PieceIndex(index), len(data), attested(index), Bytes(data)
    )


# --- real sockets


async def test_messages_and_a_piece_cross_a_tcp_link_and_come_in_order() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    data = os.urandom(5 * MIB + 17)
    async with running(one, two):
        await one.connect(two)
        one.links.send(two.id, have(1))
        await send_piece(one, two, 7, data)
        one.links.send(two.id, have(2))
        await two.told.until(lambda: len(two.told.messages) == 2)
        assert two.told.messages == [have(1), have(2)]
        assert two.told.story == ["up", "message", "piece", "message"]
        assert two.told.pieces[7] == data
        assert two.told.attestations == [attested(7)]
        two.links.send(one.id, have(3))
        await one.told.until(lambda: one.told.messages == [have(3)])
        counters = one.links.counters, two.links.counters
        assert counters[0].piece_bytes_out == counters[1].piece_bytes_in == len(data)
        assert counters[0].bytes_out >= len(data) > counters[0].bytes_in
    assert one.told.story[-1] == two.told.story[-1] == "down"


async def test_pieces_of_all_sizes_cross_both_ways_at_once() -> None:
    one = Peer(SMALL, prover=NoiseProver(SMALL))
    two = Peer(LARGE, prover=NoiseProver(LARGE))
    pieces = {n: os.urandom(size) for n, size in enumerate((1, 4096, 70_000, MIB, 3 * MIB, 2) * 3)}

    def sends(sender: Peer, receiver: Peer) -> list[Callable[[], object]]:
        return [
            lambda index=index, data=data: send_piece(sender, receiver, index, data)  # type: ignore[misc]
            for index, data in pieces.items()
        ]

    async with running(one, two):
        await one.connect(two)
        await together(*sends(one, two), *sends(two, one))  # type: ignore[arg-type]
        for peer in (one, two):
            told = peer.told
            await told.until(lambda told=told: len(told.pieces) == len(pieces))  # type: ignore[misc]
            assert told.pieces == pieces


async def test_views_that_a_handler_keeps_stay_as_they_were() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    pieces = {n: os.urandom(300_000) for n in range(40)}
    kept: dict[int, list[memoryview]] = {n: [] for n in pieces}
    arrived = two.told.chunk_arrived

    def keep(*part: object) -> object | None:
        kept[part[2]].append(part[-1])  # type: ignore[index,arg-type]
        return arrived(*part)  # type: ignore[arg-type]

    two.told.chunk_arrived = keep  # type: ignore[method-assign,assignment]
    async with running(one, two):
        await one.connect(two)
        for index, data in pieces.items():
            await send_piece(one, two, index, data)
        await two.told.until(lambda: len(two.told.pieces) == len(pieces))
    assert {n: b"".join(parts) for n, parts in kept.items()} == pieces


async def test_nobody_listens_there() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one):
        with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1:1: refused the connection"):
            await one.links.connect(two.id, ["127.0.0.1:1"])
        with pytest.raises(PeerUnreachable, match="no address of it is known"):
            await one.links.connect(two.id)
        with pytest.raises(PeerUnreachable, match="nonsense"):
            await one.links.connect(two.id, ["nonsense"])


async def test_another_peer_answers_at_that_address() -> None:
    one, two = Peer(SMALL, prover=NoiseProver(SMALL)), Peer(LARGE, prover=NoiseProver(LARGE))
    async with running(one, two):
        with pytest.raises(PeerUnreachable, match=f"is not {KEYS[2].peer_id}"):
            await one.links.connect(KEYS[2].peer_id, two.links.listening)
        assert two.told.story == []


async def test_the_second_address_is_tried_when_the_first_fails() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one, two):
        await one.links.connect(two.id, ["127.0.0.1:1", *two.links.listening])
        assert one.links.connected(two.id)


# --- in memory, where the clock jumps


async def test_two_that_dial_each_other_share_the_link_of_the_smaller(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    small, large = Peer(SMALL, network), Peer(LARGE, network)
    network.delay_s = 0.1
    async with running(small, large):
        await together(lambda: small.connect(large), lambda: large.connect(small))
        small.links.send(large.id, have(1))
        large.links.send(small.id, have(2))
        await trio.sleep(20)
        assert [state.dialled for state in small.links.links()] == [True]
        assert [state.dialled for state in large.links.links()] == [False]
        assert small.told.story == large.told.story == ["up", "message"]


@pytest.mark.parametrize("lead_s", [0.0, 0.01, 0.05, 0.099, 0.1, 0.101, 0.15])
@pytest.mark.parametrize("first_is_small", [True, False])
async def test_whoever_dials_first_one_link_stays_and_no_message_is_lost(
    autojump_clock: MockClock, lead_s: float, first_is_small: bool
) -> None:
    network = MemoryNetwork()
    small, large = Peer(SMALL, network), Peer(LARGE, network)
    first, second = (small, large) if first_is_small else (large, small)
    network.delay_s = 0.1

    async def late() -> None:
        await trio.sleep(lead_s)
        await second.connect(first)

    async with running(small, large):
        await together(lambda: first.connect(second), late)
        small.links.send(large.id, have(1))
        large.links.send(small.id, have(2))
        await trio.sleep(20)
        assert len(small.links.links()) == len(large.links.links()) == 1
        assert small.told.story == large.told.story == ["up", "message"]


async def test_many_who_want_the_same_peer_share_one_dial(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    network.delay_s = 0.1
    async with running(one, two):
        await together(*[lambda: one.connect(two)] * 20)
        assert len(network.wires) == 1


async def test_a_dial_that_had_no_address_does_not_speak_for_one_that_has(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    network.delay_s = 0.1

    async def in_vain() -> None:
        with pytest.raises(PeerUnreachable):
            await one.links.connect(two.id, ["nobody:1"])

    async with running(one, two), trio.open_nursery() as nursery:
        nursery.start_soon(in_vain)
        await trio.sleep(0.05)
        await one.connect(two)


async def test_an_address_that_never_answers_costs_five_seconds(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    await network.listen("silent:1")
    async with running(one, two):
        started = trio.current_time()
        await one.links.connect(two.id, ["silent:1", *two.links.listening])
        assert trio.current_time() - started == pytest.approx(5.0)


async def test_a_peer_that_came_back_takes_its_link_over(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one, two):
        await one.connect(two)
        again = Peer(LARGE, network, boot=b"another run of 2")
        two.links._links.clear()  # it died without a word, and its host with it
        async with running(again):
            await again.connect(one)
            assert one.told.story == ["up", "down", "up"]
            again.links.send(one.id, have(5))
            await one.told.until(lambda: one.told.messages == [have(5)])


async def test_a_link_whose_other_side_is_gone_goes_down_after_ten_seconds(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one):
        async with running(two):
            await one.connect(two)
            for link in two.links._links.values():  # stopped, not closed: as by SIGSTOP
                link._outgoing.put_message = lambda encoded: None  # type: ignore[method-assign]
            started = trio.current_time()
            await one.told.until(lambda: one.told.story == ["up", "down"])
            assert 10.0 <= trio.current_time() - started <= 15.0
        with pytest.raises(PeerUnreachable):
            one.links.send(two.id, have(1))


async def test_a_link_lives_as_long_as_pings_are_answered(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one, two):
        await one.connect(two)
        await trio.sleep(300)
        assert one.links.connected(two.id)
        assert one.links.least_round_trip_s(two.id) is not None
        await trio.sleep(400)
        assert one.told.story == two.told.story == ["up", "down"], "nothing was said for 600 s"


async def test_how_long_answers_take_is_known_while_none_comes(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one, two):
        assert one.links.late_s(two.id) == 0.0, "no link"
        await one.connect(two)
        await trio.sleep(5)
        assert one.links.late_s(two.id) < 0.5
        network.holds_s = 3.0
        await trio.sleep(6)
        assert one.links.late_s(two.id) >= 2.0, "missing, or come by now"
        network.holds_s = 0.0
        await trio.sleep(6)
        assert one.links.late_s(two.id) < 0.5


async def test_a_cut_connection_fails_the_piece_on_its_way(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one = Peer(SMALL, network, settings=LinkSettings(upload_limit_bytes_s=MIB))
    two = Peer(LARGE, network)

    async def in_vain() -> None:
        with pytest.raises(PeerUnreachable, match=r"the link to .* ended"):
            await send_piece(one, two, 1, bytes(16 * MIB))

    async with running(one, two):
        await one.connect(two)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_vain)
            await trio.sleep(2)
            await network.cut_all()
        await two.told.until(lambda: "down" in two.told.story)
        assert not one.links.connected(two.id)
        assert two.told.pieces == {}


async def test_who_reads_slowly_holds_the_sender_back_and_nothing_is_lost(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(room_bytes=MIB)
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    gate = two.told.hold = trio.Event()
    pieces = {n: os.urandom(MIB) for n in range(12)}
    sent: list[int] = []

    async def send_all() -> None:
        for index, data in pieces.items():
            await send_piece(one, two, index, data)
            sent.append(index)

    async with running(one, two), trio.open_nursery() as nursery:
        await one.connect(two)
        nursery.start_soon(send_all)
        await trio.sleep(25)
        assert len(sent) <= 5, "what a link may have in hand"
        two.links.send(one.id, have(9))
        await one.told.until(lambda: one.told.messages == [have(9)])
        gate.set()
        await two.told.until(lambda: two.told.pieces == pieces)


async def test_who_does_not_read_messages_loses_the_link(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one, two):
        await one.connect(two)
        with pytest.raises(PeerUnreachable, match="does not read"):  # noqa: PT012
            for index in range(CONTROL_MAX + 1):
                one.links.send(two.id, have(index))
        await two.told.until(lambda: two.told.story == ["up", "down"])
        assert one.told.story == ["up", "down"]


async def test_control_messages_overtake_pieces(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    async with running(one, two), trio.open_nursery() as nursery:
        await one.connect(two)
        for index in range(10):
            nursery.start_soon(send_piece, one, two, index, bytes(MIB))
        await trio.sleep(0)
        one.links.send(two.id, have(1))
        await two.told.until(lambda: len(two.told.pieces) == 10)
        assert two.told.story.index("message") <= 3


async def test_the_upload_limit_holds_over_all_links(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one = Peer(SMALL, network, settings=LinkSettings(upload_limit_bytes_s=MIB))
    others = Peer(KEYS[1], network), Peer(KEYS[2], network)
    async with running(one, *others):
        for other in others:
            await one.connect(other)
        started = trio.current_time()
        await together(
            lambda: send_piece(one, others[0], 0, bytes(5 * MIB)),
            lambda: send_piece(one, others[1], 0, bytes(5 * MIB)),
        )
        assert 8.5 <= trio.current_time() - started <= 9.5, "10 MiB, of which 1 MiB in a burst"


async def test_the_download_limit_holds(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one = Peer(SMALL, network)
    two = Peer(LARGE, network, settings=LinkSettings(download_limit_bytes_s=MIB))
    async with running(one, two):
        await one.connect(two)
        started = trio.current_time()
        await send_piece(one, two, 0, bytes(10 * MIB))
        await two.told.until(lambda: len(two.told.pieces) == 1)
        assert 8.5 <= trio.current_time() - started <= 9.5


async def test_a_source_that_cannot_be_read_fails_its_piece_and_no_other() -> None:
    class Broken:
        def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
            if offset_bytes:
                raise OSError("the disk is gone")
            buffer[:] = bytes(len(buffer))

    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one, two):
        await one.connect(two)
        with pytest.raises(OSError, match="the disk is gone"):
            await one.links.send_piece(
                two.id, VERSION, PieceIndex(1), 8 * MIB, attested(1), Broken()
            )
        await send_piece(one, two, 2, b"another")
        await two.told.until(lambda: two.told.pieces == {2: b"another"})


async def test_a_withdrawn_piece_is_not_sent_and_the_link_goes_on() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one, two):
        await one.connect(two)
        async with trio.open_nursery() as nursery:
            for index in range(6):
                nursery.start_soon(send_piece, one, two, index, bytes(16 * MIB))
            await trio.sleep(0)
            nursery.cancel_scope.cancel()
        await send_piece(one, two, 9, b"the next")
        await two.told.until(lambda: 9 in two.told.pieces)
        assert len(two.told.pieces) < 7


async def test_a_handler_that_blames_the_peer_ends_the_link_and_the_peer_is_told_why() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    two.told.fail_with = RemoteProtocolError("not what was asked for")
    async with running(one, two):
        await one.connect(two)
        link = one.links._links[two.id]
        await send_piece(one, two, 0, b"unasked")
        await one.told.until(lambda: one.told.story == ["up", "down"])
        assert link.words == "it closed the link: not what was asked for"
        await two.told.until(lambda: two.told.story == ["up", "down"])


async def test_messages_to_oneself_come_like_others(autojump_clock: MockClock) -> None:
    one = Peer(SMALL, MemoryNetwork())
    async with running(one):
        await one.links.connect(one.id)
        assert one.links.connected(one.id)
        one.links.send(one.id, have(1))
        assert one.told.messages == [], "later, not from within"
        await one.told.until(lambda: one.told.messages == [have(1)])
        assert one.told.story == ["message"]


async def test_close_says_why_and_what_was_queued_before_still_comes() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one, two):
        await one.connect(two)
        link = two.links._links.get(one.id)
        one.links.send(two.id, have(1))
        await one.links.close(two.id, "blocked", "it sent wrong bytes")
        await two.told.until(lambda: two.told.story == ["up", "message", "down"])
        assert link is not None
        assert link.words == "it closed the link: it sent wrong bytes"


async def test_a_stopping_peer_says_so_and_is_gone_soon() -> None:
    one, two = Peer(SMALL), Peer(LARGE)
    async with running(one, two):
        await one.connect(two)
        link = two.links._links[one.id]
        with trio.fail_after(3):
            await one.stop()
        assert one.told.story == ["up", "down"]
        await two.told.until(lambda: two.told.story == ["up", "down"])
        assert link.words == "it closed the link: this peer is stopping"
        with pytest.raises(PeerUnreachable):
            await one.connect(two)


# --- who is welcome


async def test_another_cluster_is_refused_in_words(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one = Peer(SMALL, network, settings=LinkSettings(cluster="blue"))
    two = Peer(LARGE, network, settings=LinkSettings(cluster="green"))
    async with running(one, two):
        with pytest.raises(PeerUnreachable, match="of cluster 'green', the other of 'blue'"):
            await one.connect(two)
        assert one.told.story == two.told.story == []


async def test_another_wire_version_is_refused_in_words(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = MemoryNetwork()
    one, two = Peer(SMALL, network), Peer(LARGE, network)
    monkeypatch.setattr("peerd.link.service.WIRE_VERSION", 2)
    async with running(one, two):
        with pytest.raises(PeerUnreachable, match="speaks wire version 1, the other 2"):
            await one.connect(two)


class NotThatOne:
    def __init__(self, unwanted: PeerId) -> None:
        self._unwanted = unwanted

    def admit(self, peer: PeerId) -> None:
        if peer == self._unwanted:
            raise AdmissionRefused("this cluster does not know you")


@pytest.mark.parametrize("who_refuses", [0, 1])
async def test_a_peer_that_is_not_admitted_gets_no_link(
    autojump_clock: MockClock, who_refuses: int
) -> None:
    network = MemoryNetwork()
    keys = (SMALL, LARGE)
    peers = [
        Peer(key, network, admission=NotThatOne(keys[1 - n].peer_id) if n == who_refuses else None)
        for n, key in enumerate(keys)
    ]
    async with running(*peers):
        with pytest.raises(PeerUnreachable, match="this cluster does not know you"):
            await peers[0].connect(peers[1])
        await trio.sleep(5)
        assert peers[0].told.story == peers[1].told.story == []


async def test_links_are_bounded_and_an_idle_one_yields(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    one = Peer(KEYS[0], network, settings=LinkSettings(links_max=2))
    others = [Peer(key, network) for key in KEYS[1:4]]
    async with running(one, *others):
        await others[0].connect(one)
        await others[1].connect(one)
        with pytest.raises(PeerUnreachable, match="all 2 links in use"):
            await others[2].connect(one)
        await trio.sleep(20)
        others[0].links.send(one.id, have(1))
        await trio.sleep(15)
        await others[2].connect(one)
        assert not one.links.connected(others[1].id), "idle for 35 s"
        assert one.links.connected(others[0].id)


async def test_a_stalled_write_ends_the_link(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    limits = LinkLimits(stall_max_s=5.0)
    one = Peer(SMALL, network, settings=LinkSettings(limits=limits))
    two = Peer(LARGE, network)
    async with running(one, two):
        await one.connect(two)

        async def never(view: memoryview) -> None:
            await trio.sleep_forever()

        link = one.links._links[two.id]
        link._wire.send_all = never  # type: ignore[method-assign]
        await one.told.until(lambda: one.told.story == ["up", "down"])
        assert link.words == "it took nothing for 5 s"
