"""Two or three cores, told by hand what arrives."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from peerd.codec import encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.dialling import ALONE_TRIES, NEIGHBOURS_HIGH
from peerd.gossip.events import (
    Arrived,
    Connected,
    Dial,
    DialFailed,
    Hold,
    Leave,
    LinkFailed,
    LinkStands,
    NeighbourDown,
    NeighbourUp,
    Order,
    Remember,
    Send,
    Update,
)
from peerd.gossip.exchange import PARTING_S, PRUNE_AFTER_S, SETTLE_S, Exchange
from peerd.gossip.messages import Deltas, Digest, Listing, Parting, Want, pack, unpack
from peerd.gossip.ports import GOSSIP_MESSAGE_MAX_BYTES
from peerd.gossip.records import Kind, OwnFacts, Signed
from peerd.ids import PeerId
from tests.gossip.builders import FACTS, drops, exchange, key, record, signed, task


class Pair:
    """Two neighbours; whatever one sends arrives at the other at once."""

    def __init__(self, one: Exchange, two: Exchange) -> None:
        self.cores = {core.membership.peer: core for core in (one, two)}
        self.now = 1.0
        self.sizes: list[int] = []

    def meet(self) -> None:
        one, two = self.cores
        orders = self.cores[one].handle(NeighbourUp(two), self.now)
        self._carry(two, self.cores[two].handle(NeighbourUp(one), self.now))
        self._carry(one, orders)

    def run(self, duration_s: float) -> None:
        end = self.now + duration_s
        while self.now < end:
            self.now = min(
                end, max(self.now + 0.01, min(c.deadline() for c in self.cores.values()))
            )
            for peer, core in self.cores.items():
                self._carry(peer, core.expire(self.now))

    def _carry(self, peer: PeerId, orders: Iterable[Order]) -> None:
        for order in orders:
            if isinstance(order, Send) and order.peer in self.cores:
                self.sizes.append(len(order.payload))
                other = self.cores[order.peer]
                self._carry(order.peer, other.handle(Arrived(peer, order.payload), self.now))


def filled(number: int, others: range) -> Exchange:
    """A core that has heard of some others."""
    core = exchange(number)
    source = key(99).peer_id
    core.handle(NeighbourUp(source), 0.5)
    for start in range(others.start, others.stop, 100):
        batch = [
            signed(other, record(other)) for other in range(start, min(start + 100, others.stop))
        ]
        core.handle(Arrived(source, pack(Deltas(tuple(batch)))), 0.5)
    core.handle(NeighbourDown(source), 0.6)
    return core


def members(core: Exchange) -> set[PeerId]:
    return {member.peer for member in core.membership.live()}


def test_one_sync_brings_both_to_the_same_view_in_messages_that_fit() -> None:
    one, two = filled(0, range(100, 400)), filled(1, range(300, 1500))
    pair = Pair(one, two)
    pair.meet()
    pair.run(3.0)
    assert one.synced
    assert members(one) == members(two)
    assert len(members(one)) == 2 + 1400
    assert max(pair.sizes) <= GOSSIP_MESSAGE_MAX_BYTES
    assert one.membership.table.digest() == two.membership.table.digest()


def test_two_that_agree_exchange_next_to_nothing() -> None:
    one, two = filled(0, range(100, 400)), filled(1, range(100, 400))
    pair = Pair(one, two)
    pair.meet()
    pair.run(3.0)
    pair.sizes.clear()
    pair.run(25.0)
    assert sum(pair.sizes) < 25 * 200


def test_alone_is_proven_by_nobody_to_ask() -> None:
    core = exchange()
    assert not core.synced
    core.expire(0.0)
    assert core.synced


def test_alone_is_proven_by_every_address_failing_three_times() -> None:
    core = exchange(bootstrap=("one.example:4001", "two.example:4001"))
    now, tries = 0.0, 0
    dials = [order.address for order in core.expire(now) if isinstance(order, Dial)]
    while dials and not core.synced:
        tries += len(dials)
        orders = [order for text in dials for order in core.handle(DialFailed(text), now)]
        dials = [order.address for order in orders if isinstance(order, Dial)]
        while not dials and not core.synced:
            now = core.deadline()
            dials = [order.address for order in core.expire(now) if isinstance(order, Dial)]
    assert core.alone
    assert tries == 2 * ALONE_TRIES
    assert 1.0 < now < 3.0


def test_a_bootstrap_address_that_is_ours_is_no_reason_to_wait() -> None:
    core = exchange(bootstrap=("self.example:4001",))
    assert [order for order in core.expire(0.0) if isinstance(order, Dial)]
    core.handle(Connected("self.example:4001", core.membership.peer), 0.3)
    assert core.synced
    core.validate()


def test_a_neighbour_that_was_met_must_sync_before_we_are_synced() -> None:
    core = exchange(bootstrap=("one.example:4001",))
    core.expire(0.0)
    peer = key(1).peer_id
    orders = core.handle(NeighbourUp(peer), 0.2)
    core.handle(Connected("one.example:4001", peer), 0.2)
    said = [unpack(order.payload) for order in orders if isinstance(order, Send)]
    digests = [message for message in said if isinstance(message, Digest)]
    assert (core.synced, core.alone) == (False, False)
    empty = Listing(digests[0].round, Kind.RECORD, (), (), 64)
    core.handle(Arrived(peer, pack(empty)), 0.3)
    assert (core.synced, core.alone) == (True, False)


def test_garbage_costs_its_sender_the_connection_and_its_name_is_said() -> None:
    core = exchange()
    good, bad = key(1).peer_id, key(2).peer_id
    core.handle(NeighbourUp(good), 1.0)
    core.handle(NeighbourUp(bad), 1.0)
    assert drops(core.handle(Arrived(bad, b"\xff\x00garbage"), 1.1))[0][0] == bad
    core.handle(NeighbourUp(bad), 2.0)
    item = signed(5, record(5))
    forged = Deltas((signed(4, record(4)), Signed(item.kind, item.body, bytes(64), 0.0)))
    found = drops(core.handle(Arrived(bad, pack(forged)), 2.1))
    assert found[0][0] == bad
    assert bad in (found[0][1] or "")
    assert members(core) == {core.membership.peer, key(4).peer_id}
    assert core.handle(Arrived(bad, b"more"), 2.2) == []
    assert list(core.neighbours) == [good]


def test_news_goes_to_all_neighbours_but_its_source_in_one_batch() -> None:
    core = exchange()
    peers = [key(number).peer_id for number in range(1, 4)]
    for peer in peers:
        core.handle(NeighbourUp(peer), 1.0)
    news = [signed(number, record(number)) for number in range(10, 30)]
    for item in news:
        core.handle(Arrived(peers[0], pack(Deltas((item,)))), 25.0)
    sends = [order for order in core.expire(25.4) if isinstance(order, Send)]
    deltas = [(order.peer, unpack(order.payload)) for order in sends]
    told = {peer: message for peer, message in deltas if isinstance(message, Deltas)}
    assert set(told) == set(peers[1:])
    assert all(len(message.items) >= 20 for message in told.values())


def test_a_neighbour_that_tells_us_first_is_not_told() -> None:
    core = exchange()
    one, two = key(1).peer_id, key(2).peer_id
    core.handle(NeighbourUp(one), 1.0)
    core.handle(NeighbourUp(two), 1.0)
    core.expire(20.0)
    news = pack(Deltas((signed(10, record(10)),)))
    core.handle(Arrived(one, news), 25.0)
    core.handle(Arrived(two, news), 25.05)
    sent = [order for order in core.expire(25.4) if isinstance(order, Send)]
    assert not any(isinstance(unpack(order.payload), Deltas) for order in sent)


def test_above_the_degree_settled_neighbours_are_parted_from_politely() -> None:
    core = exchange()
    for number in range(1, NEIGHBOURS_HIGH + 4):
        core.handle(NeighbourUp(key(number).peer_id), 1.0)
    newest = key(50).peer_id
    core.handle(NeighbourUp(newest), 1.0 + PRUNE_AFTER_S - 1.0)
    orders = core.expire(1.0 + PRUNE_AFTER_S)
    told = [o.peer for o in orders if isinstance(o, Send) and unpack(o.payload) == Parting()]
    assert len(told) == 4
    assert newest not in told
    assert len(core.neighbours) == NEIGHBOURS_HIGH
    # One closes when it has read why; the rest are closed by us.
    assert drops(orders) == []
    core.handle(NeighbourDown(told[0]), 1.5 + PRUNE_AFTER_S)
    later = drops(core.expire(1.0 + PRUNE_AFTER_S + PARTING_S))
    assert [peer for peer, _ in later] == told[1:]


def test_who_parted_is_let_go_and_not_dialled_again_at_once() -> None:
    core = exchange()
    peer = key(1).peer_id
    core.handle(NeighbourUp(peer), 1.0)
    core.handle(Arrived(peer, pack(Deltas((signed(1, record(1)),)))), 1.1)
    orders = core.handle(Arrived(peer, pack(Parting())), 2.0)
    assert drops(orders) == [(peer, None)]
    assert not any(isinstance(o, Dial) for o in orders + core.handle(NeighbourDown(peer), 2.1))


def test_a_lost_neighbour_that_cannot_be_dialled_is_unreachable_unless_a_link_stands() -> None:
    for linked in (False, True):
        core = exchange()
        peer = key(1).peer_id
        core.handle(NeighbourUp(peer), 1.0)
        core.handle(Arrived(peer, pack(Deltas((signed(1, record(1)),)))), 1.1)
        if linked:
            core.handle(LinkStands(peer), 1.2)
        dials = [o for o in core.handle(NeighbourDown(peer), 2.0) if isinstance(o, Dial)]
        assert len(dials) == 1
        core.handle(DialFailed(dials[0].address), 2.1)
        assert (peer in members(core)) is linked
        core.handle(LinkFailed(peer), 2.2)
        assert peer not in members(core)


def test_leaving_is_the_last_word_and_is_said_to_every_neighbour() -> None:
    core = exchange()
    peer = key(1).peer_id
    core.handle(NeighbourUp(peer), 1.0)
    orders = core.handle(Leave(), 2.0)
    (goodbye,) = [
        message
        for order in orders
        if isinstance(order, Send) and isinstance(message := unpack(order.payload), Deltas)
    ]
    other = exchange(1)
    other.handle(NeighbourUp(core.membership.peer), 1.0)
    other.handle(Arrived(core.membership.peer, pack(goodbye)), 2.1)
    assert other.membership.present(core.membership.peer) is None
    assert any(isinstance(order, Remember) for order in orders)
    core.handle(Hold((task(1),), ()), 3.0)
    core.handle(Update(FACTS), 3.0)
    core.expire(1000.0)
    assert core.membership.left


def test_holdings_are_said_with_the_generation_of_the_record() -> None:
    core = exchange()
    core.handle(Hold((task(1),), ()), 1.0)
    generation = core.membership.generation
    before = core.availability.of(core.membership.peer)
    assert before is not None
    assert before.generation == generation
    core.membership.outrank(generation + 5, 2.0)
    core.expire(core.membership.announce_due_at())
    after = core.availability.of(core.membership.peer)
    assert after is not None
    assert after.generation == core.membership.generation == generation + 6


def test_a_neighbour_cannot_make_us_answer_without_end() -> None:
    core = filled(0, range(100, 1100))
    peer = key(1).peer_id
    core.handle(NeighbourUp(peer), 1.0)
    payload = pack(Digest(1, Kind.RECORD, 0, bytes(512)))
    answers = [core.handle(Arrived(peer, payload), 2.0) for _ in range(2000)]
    sent = sum(
        len(order.payload) for found in answers for order in found if isinstance(order, Send)
    )
    assert sent < 10 * 1024 * 1024


def test_a_neighbour_that_lists_nonsense_keeps_us_busy_for_a_bounded_time_only() -> None:
    core = exchange()
    peer = key(1).peer_id
    orders = core.handle(NeighbourUp(peer), 1.0)
    now = 1.0
    answers = 0
    while (
        any(isinstance(order, Send) and order.peer == peer for order in orders) and answers < 10_000
    ):
        sent = [unpack(order.payload) for order in orders if isinstance(order, Send)]
        orders = []
        now += 4.9
        for message in sent:
            if isinstance(message, Digest):
                answers += 1
                entries = tuple((number, 1, 0, 0) for number in range(2200))
                lie = Listing(message.round, message.kind, (), entries, message.first_bucket + 1)
                orders += core.handle(Arrived(peer, pack(lie)), now)
            elif isinstance(message, Want):
                answers += 1
    assert answers < 100
    core.validate()


def test_other_clusters_facts_do_not_mix() -> None:
    core = exchange()
    peer = key(1).peer_id
    core.handle(NeighbourUp(peer), 1.0)
    foreign = signed(1, record(1, facts=OwnFacts(cluster="elsewhere")))
    assert drops(core.handle(Arrived(peer, pack(Deltas((foreign,)))), 1.1))


def test_a_message_above_the_limit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(encode(b"\0" * GOSSIP_MESSAGE_MAX_BYTES))


OLD = "/ip4/10.0.0.9/tcp/4001/p2p/" + key(9).peer_id


def knows_the_group(core: Exchange) -> bool:
    return core.synced


def restarted(number: int, *known: str) -> Exchange:
    core = exchange(number, known=known)
    assert any(isinstance(order, Dial) for order in core.expire(0.0))
    return core


def test_two_that_restart_together_do_not_take_each_other_for_the_group() -> None:
    one, two = restarted(0, OLD), restarted(1, OLD)
    pair = Pair(one, two)
    pair.meet()
    pair.run(1.0)
    assert not knows_the_group(one)
    one.handle(DialFailed(OLD), pair.now)
    assert knows_the_group(one), "whom it knew is not there"
    third = filled(9, range(100, 110))
    pair.cores[key(9).peer_id] = third
    pair._carry(key(1).peer_id, two.handle(Connected(OLD, key(9).peer_id), pair.now))
    orders = third.handle(NeighbourUp(key(1).peer_id), pair.now)
    pair._carry(key(1).peer_id, two.handle(NeighbourUp(key(9).peer_id), pair.now))
    pair._carry(key(9).peer_id, orders)
    pair.run(0.5)
    assert knows_the_group(two)
    assert len(members(two)) >= 12


def test_an_address_that_swallows_packets_is_not_waited_for_for_long() -> None:
    one, two = restarted(0, OLD), restarted(1, OLD)
    pair = Pair(one, two)
    pair.meet()
    pair.run(SETTLE_S + 0.5)
    assert knows_the_group(one)
    assert knows_the_group(two)


def test_a_known_peer_that_the_group_knows_too_is_not_waited_for() -> None:
    one, two = restarted(0, OLD), filled(1, range(9, 12))
    pair = Pair(one, two)
    pair.meet()
    pair.run(0.5)
    assert knows_the_group(one)


def test_a_new_neighbour_is_remembered_soon() -> None:
    one, two = exchange(0), exchange(1)
    pair = Pair(one, two)
    pair.now = 5.0
    one.expire(5.0)
    pair.meet()
    remembered = [x for x in one.expire(6.1) if isinstance(x, Remember)]
    assert remembered[-1].known, "killed now, it finds its neighbour again"
