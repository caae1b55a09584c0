"""Links through a third peer, which two that cannot dial each other are both linked with."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from peerd.errors import PeerUnreachable
from peerd.link.circuits import CircuitLimits
from peerd.link.dialler import GONE_S
from peerd.link.link import LinkLimits
from peerd.link.own_messages import (
    WINDOW_BYTES,
    CircuitClose,
    CircuitData,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
)
from peerd.link.settings import LinkSettings
from peerd.link.wire import DialRefused, Listener, Wire
from peerd.overlay.noise import NoiseProver
from peerd.signing import SigningKey
from peerd.units import KIB, MIB
from tests.link.helper import KEYS, Peer, have, running, together
from tests.link.memory_transport import MemoryNetwork
from tests.link.test_service import send_piece


class Walls:
    """A Transport of the network's, for one peer: the addresses in `closed` cannot be dialled, and
    those in `refusing` answer that nobody listens there."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.closed: set[str] = set()
        self.refusing: set[str] = set()

    async def dial(self, address: str) -> Wire:
        if address in self.refusing:
            raise DialRefused
        if address in self.closed:
            raise PeerUnreachable("no route to it")
        return await self.network.dial(address)

    async def listen(self, address: str) -> Sequence[Listener]:
        return await self.network.listen(address)


class Three:
    """`a` and `b` cannot dial each other; `r` is linked with both once `meet` has returned."""

    def __init__(
        self, room_bytes: float = MIB, swap: bool = False, **settings: LinkSettings
    ) -> None:
        self.network = MemoryNetwork(room_bytes)
        first, second = (KEYS[1], KEYS[0]) if swap else (KEYS[0], KEYS[1])
        self.a = self.peer(first, settings.get("a"))
        self.b = self.peer(second, settings.get("b"))
        self.r = self.peer(KEYS[2], settings.get("r"))
        self.peers = (self.a, self.b, self.r)
        self.walls(self.a).closed.add(f"{self.b.id}:1")
        self.walls(self.b).closed.add(f"{self.a.id}:1")

    def peer(self, key: SigningKey, settings: LinkSettings | None = None) -> Peer:
        return Peer(
            key, self.network, settings=settings, prover=NoiseProver(key),
            transport=Walls(self.network),
        )  # fmt: skip

    def walls(self, peer: Peer) -> Walls:
        transport = peer.links._transport
        assert isinstance(transport, Walls)
        return transport

    async def meet(self) -> None:
        await self.a.connect(self.r)
        await self.b.connect(self.r)

    async def join(self) -> None:
        await self.meet()
        await self.a.connect(self.b)


def remote(one: Peer, two: Peer) -> str:
    return next(state.remote for state in one.links.links() if state.peer == two.id)


def held_bytes(relay: Peer) -> int:
    """Circuit bytes that wait in the relay."""
    return sum(link._outgoing._circuit_bytes for link in relay.links._links.values())


@pytest.mark.parametrize("swap", [False, True])
async def test_two_that_cannot_dial_each_other_are_linked_through_a_third(
    autojump_clock: MockClock, swap: bool
) -> None:
    three = Three(swap=swap)
    a, b, r = three.peers
    there, back = os.urandom(5 * MIB + 17), os.urandom(3 * MIB + 1)
    async with running(*three.peers):
        await three.join()
        assert remote(a, b) == remote(b, a) == f"via {r.id}"
        a.links.send(b.id, have(1))
        await together(
            lambda: send_piece(a, b, 1, there),
            lambda: send_piece(b, a, 2, back),
        )
        b.links.send(a.id, have(2))
        await b.told.until(lambda: 1 in b.told.pieces)
        await a.told.until(lambda: 2 in a.told.pieces and bool(a.told.messages))
        assert b.told.pieces[1] == there
        assert a.told.pieces[2] == back
        assert (a.told.messages, b.told.messages) == ([have(2)], [have(1)])
        assert r.told.story == ["up", "up"], "the relay's own users hear nothing of it"
        await trio.sleep(60)
        assert a.links.connected(b.id), "pings go through too"
        out = r.links.counters.bytes_out
        assert len(there) + len(back) < out < 1.02 * (len(there) + len(back)) + 64 * KIB
        assert a.links.counters.piece_bytes_out == len(there)
        assert a.links.counters.bytes_out < 1.02 * len(there) + 64 * KIB, "counted once"


async def test_when_the_relay_is_gone_both_ends_hear_why(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        links = a.links._links[b.id], b.links._links[a.id]
        await r.stop()
        await a.told.until(lambda: a.told.story.count("down") == 2)
        await b.told.until(lambda: b.told.story.count("down") == 2)
        for link in links:
            assert f"the circuit through {r.id} ended" in link.words
        assert a.links._carrying.circuits.ends == b.links._carrying.circuits.ends == 0


async def test_when_one_of_the_two_is_gone_the_other_hears_it_from_the_relay(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        link = a.links._links[b.id]
        # As by a power cut: no word of b's comes any more.
        await trio.aclose_forcefully(b.links._links[r.id]._wire.stream)
        await a.told.until(lambda: a.told.story.count("down") == 1)
        assert link.words == (
            f"the circuit through {r.id} ended: the link between {r.id} and {b.id} ended"
        )
        await trio.sleep(5)
        assert r.links._carrying.circuits.relayed == 0


async def test_close_says_why_through_a_relay_too(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        link = b.links._links[a.id]
        a.links.send(b.id, have(1))
        await a.links.close(b.id, "blocked", "it sent wrong bytes")
        await b.told.until(lambda: "down" in b.told.story)
        assert link.words == "it closed the link: it sent wrong bytes"
        assert b.told.messages == [have(1)]
        await trio.sleep(5)
        assert r.links._carrying.circuits.relayed == 0
        await b.connect(a)
        assert remote(a, b) == f"via {r.id}"


async def test_without_a_relay_the_words_name_both_failures(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        with pytest.raises(PeerUnreachable, match=r"no route to it; there is no third peer"):
            await a.connect(b)
        await a.connect(r)
        started = trio.current_time()
        with pytest.raises(
            PeerUnreachable,
            match=rf"no route to it; through {r.id}: .* it has no direct link to that peer",
        ):
            await a.connect(b)
        assert trio.current_time() == started, "a wrong guess costs a round trip"
        with pytest.raises(PeerUnreachable, match=r"no address of it is known; through"):
            await a.links.connect(b.id)


async def test_who_was_linked_until_just_now_and_refuses_is_sought_through_nobody(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    three.walls(a).closed.clear()
    async with running(*three.peers):
        await a.connect(r)
        await a.connect(b)
        address = b.links.listening
        await b.stop()
        await a.told.until(lambda: "down" in a.told.story)
        with pytest.raises(PeerUnreachable, match=r"refused the connection; it has just ended$"):
            await a.links.connect(b.id, address)


async def test_who_was_linked_a_while_ago_and_refuses_is_sought_through_others(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    three.walls(a).closed.clear()
    async with running(*three.peers):
        await a.connect(r)
        await a.connect(b)
        address = b.links.listening
        await b.stop()
        await a.told.until(lambda: "down" in a.told.story)
        await trio.sleep(GONE_S + 1)
        with pytest.raises(PeerUnreachable, match=f"refused the connection; through {r.id}"):
            await a.links.connect(b.id, address)


async def test_who_lives_behind_a_wall_that_refuses_is_reached_by_the_second_dial(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    three.walls(a).closed.clear()
    three.walls(a).refusing.add(f"{b.id}:1")
    three.walls(b).closed.clear()
    async with running(*three.peers):
        await three.meet()
        await b.connect(a)
        await trio.aclose_forcefully(a.links._links[b.id]._wire.stream)
        await a.told.until(lambda: "down" in a.told.story)
        with pytest.raises(PeerUnreachable, match="it has just ended"):
            await a.connect(b)
        await a.connect(b)
        assert remote(a, b) == f"via {r.id}"


async def test_the_callers_candidate_is_asked_first_and_three_at_most(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    others = [three.peer(key) for key in KEYS[3:6]]
    async with running(*three.peers, *others):
        await three.meet()
        for other in others:
            await a.connect(other)
            await trio.sleep(1)
            a.links.send(other.id, have(1))
        with pytest.raises(PeerUnreachable) as failed:
            await a.connect(b)
        assert str(failed.value).count("through") >= 3
        assert r.id not in str(failed.value), "it was the last to be active"
        await a.links.connect(b.id, b.links.listening, through=(r.id,))
        assert remote(a, b) == f"via {r.id}"


async def test_a_relay_that_never_answers_costs_two_seconds(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.meet()
        r.links._links[a.id]._hear = lambda message: None  # type: ignore[method-assign]
        started = trio.current_time()
        with pytest.raises(PeerUnreachable, match="it did not answer in time"):
            await a.connect(b)
        assert trio.current_time() - started == pytest.approx(2.0)


async def test_a_relay_takes_no_more_than_its_limits(autojump_clock: MockClock) -> None:
    limits = CircuitLimits(relayed_max=2, asked_max=1)
    three = Three(r=LinkSettings(circuits=limits))
    a, b, r = three.peers
    others = [three.peer(key) for key in KEYS[3:6]]
    for other in others:
        for each in (a, b):
            three.walls(each).closed.add(f"{other.id}:1")
    async with running(*three.peers, *others):
        await three.join()
        for other in others:
            await other.connect(r)
        with pytest.raises(PeerUnreachable, match="it relays 1 circuits for this peer already"):
            await a.connect(others[0])
        await b.connect(others[0])
        three.walls(others[1]).closed.add(f"{others[2].id}:1")
        with pytest.raises(PeerUnreachable, match="it relays 2 circuits already"):
            await others[1].connect(others[2])
        await a.links.close(b.id, "idle", "enough")
        await trio.sleep(2)
        await a.connect(others[2])


async def test_a_relayed_link_is_no_relay_for_another(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    last = three.peer(KEYS[3])
    three.walls(a).closed.add(f"{last.id}:1")
    async with running(*three.peers, last):
        await three.join()
        await last.connect(b)
        with pytest.raises(PeerUnreachable, match="it has no direct link to that peer"):
            await a.links.connect(last.id, last.links.listening, through=(b.id,))
        a.links._links[b.id].send(CircuitOpen(0, last.id))
        await b.told.until(lambda: b.told.story.count("down") == 1)
        assert a.links.connected(r.id), "only the link that broke the rule ends"


async def test_a_relay_that_changes_a_byte_ends_the_link_and_no_wrong_byte_comes(
    autojump_clock: MockClock,
) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        link = b.links._links[a.id]
        honest = r.links._links[b.id].send_along

        def tamper(message: object) -> None:
            if isinstance(message, CircuitData) and len(message.data) > 32 * KIB:
                changed = bytearray(message.data)
                changed[20_000] ^= 1
                message = CircuitData(message.circuit, bytes(changed))
            honest(message)  # type: ignore[arg-type]

        r.links._links[b.id].send_along = tamper  # type: ignore[method-assign]
        with pytest.raises(PeerUnreachable):
            await send_piece(a, b, 1, os.urandom(16 * MIB))
        await b.told.until(lambda: "down" in b.told.story)
        assert link.words == "a frame was changed on its way, or is not in its turn"
        assert b.told.pieces == {}
        assert b.links.connected(r.id)


async def test_another_peer_behind_the_relay_is_found_out(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    other = three.peer(KEYS[3])
    three.walls(a).closed.add(f"{other.id}:1")
    async with running(*three.peers, other):
        await three.meet()
        await other.connect(r)
        heard = r.links._links[a.id]._hear

        def misdirect(message: object) -> None:
            if isinstance(message, CircuitOpen):
                message = CircuitOpen(message.circuit, other.id)
            heard(message)  # type: ignore[arg-type]

        r.links._links[a.id]._hear = misdirect  # type: ignore[method-assign]
        with pytest.raises(PeerUnreachable, match=rf"through {r.id}: .*{b.id}"):
            await a.connect(b)
        assert not a.links.connected(b.id)
        assert other.told.story == ["up"]


@pytest.mark.parametrize("broken", ["data", "number", "opened"])
async def test_who_breaks_the_rules_of_circuits_loses_its_link(
    autojump_clock: MockClock, broken: str
) -> None:
    three = Three(room_bytes=float("inf"))
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        link = r.links._links[a.id]
        if broken == "data":
            b.links._links[r.id]._hear = lambda message: None  # type: ignore[method-assign]
            for _ in range(WINDOW_BYTES // (64 * KIB) + 1):
                a.links._links[r.id].send_along(CircuitData(0, bytes(64 * KIB)))
        elif broken == "number":
            a.links._links[r.id].send(CircuitOpen(1, b.id))
        else:
            a.links._links[r.id].send(CircuitOpened(0))
        await r.told.until(lambda: r.told.story.count("down") == 1)
        assert "circuit" in link.words
        assert r.links.connected(b.id)
        await a.told.until(lambda: a.told.story.count("down") == 2)


async def test_who_reads_slowly_leaves_a_window_with_the_relay_and_no_more(
    autojump_clock: MockClock,
) -> None:
    three = Three(room_bytes=64 * KIB)
    a, b, r = three.peers
    gate = b.told.hold = trio.Event()
    pieces = {n: os.urandom(MIB) for n in range(12)}
    sent: list[int] = []

    async def send_all() -> None:
        for index, data in pieces.items():
            await send_piece(a, b, index, data)
            sent.append(index)

    async with running(*three.peers), trio.open_nursery() as nursery:
        await three.join()
        nursery.start_soon(send_all)
        for _ in range(25):
            await trio.sleep(1)
            assert held_bytes(r) <= WINDOW_BYTES + 64 * KIB
        assert len(sent) <= 6, "what two links and a window may have in hand"
        r.links.send(b.id, have(9))
        await b.told.until(lambda: b.told.messages == [have(9)])
        gate.set()
        await b.told.until(lambda: b.told.pieces == pieces)


async def test_a_link_that_takes_nothing_leaves_a_window_in_the_relay(
    autojump_clock: MockClock,
) -> None:
    three = Three(r=LinkSettings(limits=LinkLimits(stall_max_s=60.0, silence_max_s=60.0)))
    a, b, r = three.peers
    async with running(*three.peers), trio.open_nursery() as nursery:
        await three.join()

        async def never(view: memoryview) -> None:
            await trio.sleep_forever()

        r.links._links[b.id]._wire.send_all = never  # type: ignore[method-assign]

        async def in_vain() -> None:
            with pytest.raises(PeerUnreachable):
                await send_piece(a, b, 1, bytes(16 * MIB))

        nursery.start_soon(in_vain)
        await trio.sleep(5)
        assert WINDOW_BYTES - 256 * KIB <= held_bytes(r) <= WINDOW_BYTES + 64 * KIB
        assert r.links.connected(a.id)


async def test_relayed_bytes_count_against_the_relays_upload_limit(
    autojump_clock: MockClock,
) -> None:
    three = Three(r=LinkSettings(upload_limit_bytes_s=MIB))
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        started = trio.current_time()
        await together(
            lambda: send_piece(a, b, 0, bytes(5 * MIB)),
            lambda: send_piece(r, b, 1, bytes(5 * MIB)),
        )
        await b.told.until(lambda: len(b.told.pieces) == 2)
        assert 8.5 <= trio.current_time() - started <= 10.0, "10 MiB, of which 1 MiB in a burst"
        assert b.told.pieces.keys() == {0, 1}


async def test_a_direct_link_takes_the_place_of_a_relayed_one(autojump_clock: MockClock) -> None:
    three = Three()
    a, b, r = three.peers
    async with running(*three.peers):
        await three.join()
        three.walls(b).closed.clear()
        del b.links._links[a.id]  # it lost its end without a word, and dials
        await b.connect(a)
        assert "via" not in remote(a, b)
        b.links.send(a.id, have(3))
        await a.told.until(lambda: a.told.messages == [have(3)])
        await trio.sleep(10)
        assert len(a.links.links()) == 2
        assert r.links._carrying.circuits.relayed == 0


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("lead_s", [0.0, 0.05, 0.1, 0.15])
async def test_whoever_asks_first_one_link_stays(
    autojump_clock: MockClock, swap: bool, lead_s: float
) -> None:
    three = Three(swap=swap)
    a, b, _ = three.peers

    async def late() -> None:
        await trio.sleep(lead_s)
        await b.connect(a)

    async with running(*three.peers):
        await three.meet()
        three.network.delay_s = 0.1
        await together(lambda: a.connect(b), late)
        a.links.send(b.id, have(1))
        b.links.send(a.id, have(2))
        await trio.sleep(20)
        assert a.links.connected(b.id)
        assert b.links.connected(a.id)
        assert a.told.story.count("message") == b.told.story.count("message") == 1


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.1])
async def test_of_a_direct_and_a_relayed_link_at_once_one_stays(
    autojump_clock: MockClock, swap: bool, delay_s: float
) -> None:
    """`b` can dial `a`, slowly; `a` asks the relay meanwhile."""
    three = Three(swap=swap)
    a, b, _ = three.peers
    three.walls(b).closed.clear()
    async with running(*three.peers):
        await three.meet()
        three.network.delay_s = delay_s
        await together(lambda: a.connect(b), lambda: b.connect(a))
        a.links.send(b.id, have(1))
        b.links.send(a.id, have(2))
        await trio.sleep(20)
        assert remote(a, b).startswith("via") == remote(b, a).startswith("via")
        assert a.told.story.count("message") == b.told.story.count("message") == 1


async def test_a_relay_that_offers_too_much_is_refused_and_keeps_its_link(
    autojump_clock: MockClock,
) -> None:
    three = Three(b=LinkSettings(circuits=CircuitLimits(offered_max=3)))
    _, b, r = three.peers
    async with running(*three.peers):
        await three.meet()
        answers: list[object] = []
        heard = r.links._links[b.id]._hear

        def note(message: object) -> None:
            if isinstance(message, CircuitOpened | CircuitClose):
                answers.append(message)
            else:
                heard(message)  # type: ignore[arg-type]

        r.links._links[b.id]._hear = note  # type: ignore[method-assign]
        first = 0 if r.id < b.id else 1
        for n in range(5):
            r.links._links[b.id].send(CircuitOffer(first + 2 * n, KEYS[4].peer_id))
        await trio.sleep(0.5)
        refused = [each for each in answers if isinstance(each, CircuitClose)]
        assert len([each for each in answers if isinstance(each, CircuitOpened)]) == 3
        assert {each.words for each in refused} == {"the peer has no room for it"}
        await trio.sleep(5)
        assert r.links.connected(b.id), "nobody spoke within 2 s: those are closed again"
