"""Who says that it holds what, and what is no longer true."""

from __future__ import annotations

import pytest

from peerd.codec import encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.availability import (
    ACTIVE_MAX,
    BLOOM_MAX_BYTES,
    BLOOM_TASKS_MAX,
    Availability,
    bloom_of,
)
from peerd.gossip.membership import Heard
from peerd.gossip.records import PeerRecord, Signed
from peerd.ids import PeerId, TaskId
from tests.gossip.builders import key, record, task

SENDER = key(99).peer_id
OWNER = key(1).peer_id
NOW = 5.0


class Owner:
    """Peer 1, and what others know of its record."""

    def __init__(self) -> None:
        self.availability = Availability(key(1))
        self.known: PeerRecord | None = record(1, generation=10)

    def record_of(self, peer: PeerId) -> PeerRecord | None:
        return self.known if peer == OWNER else None

    def says(self, tasks: list[TaskId], generation: int = 10) -> Signed:
        self.availability.announce(generation, tasks, [(task(500), 0.57)], NOW)
        item = self.availability.table.signed(OWNER, NOW)
        assert item is not None
        return item


def test_holders_are_those_whose_newest_word_it_is() -> None:
    owner, one = Owner(), Availability(key(0))
    first = owner.says([task(1), task(2)])
    second = owner.says([task(2)])
    assert one.hear(second, SENDER, owner.record_of, NOW).heard is Heard.NEWS
    assert one.hear(first, SENDER, owner.record_of, NOW).heard is Heard.OLD
    assert one.holders(task(2), owner.record_of) == [OWNER]
    assert one.holders(task(1), owner.record_of) == []
    assert one.holders(task(500), owner.record_of) == [OWNER]
    found = one.of(OWNER)
    assert found is not None
    assert found.progress() == {bytes.fromhex(task(500)): 50}
    one.validate()


def test_what_an_earlier_run_held_counts_no_more() -> None:
    owner, one = Owner(), Availability(key(0))
    item = owner.says([task(1)])
    one.hear(item, SENDER, owner.record_of, NOW)
    owner.known = record(1, generation=11)
    assert one.holders(task(1), owner.record_of) == []
    one.record_changed(OWNER, owner.known)
    assert one.of(OWNER) is None
    assert one.hear(item, SENDER, owner.record_of, NOW).heard is Heard.OLD
    assert one.hear(owner.says([task(1)], 11), SENDER, owner.record_of, NOW).heard is Heard.NEWS


def test_who_left_or_is_unknown_holds_nothing() -> None:
    owner, one = Owner(), Availability(key(0))
    item = owner.says([task(1)])
    owner.known = None
    assert one.hear(item, SENDER, owner.record_of, NOW).heard is Heard.OLD
    owner.known = record(1, generation=10, counter=5, left=True)
    assert one.hear(item, SENDER, owner.record_of, NOW).heard is Heard.OLD
    assert len(one.table) == 0


def test_holdings_ahead_of_their_record_wait_for_it() -> None:
    owner, one = Owner(), Availability(key(0))
    one.hear(owner.says([task(1)], 12), SENDER, owner.record_of, NOW)
    assert one.holders(task(1), owner.record_of) == []
    owner.known = record(1, generation=12)
    assert one.holders(task(1), owner.record_of) == [OWNER]


def test_a_wrong_signature_names_who_relayed_it() -> None:
    owner, one = Owner(), Availability(key(0))
    item = owner.says([task(1)])
    with pytest.raises(RemoteProtocolError, match=SENDER):
        one.hear(Signed(item.kind, item.body, bytes(64), 0.0), SENDER, owner.record_of, NOW)


def test_nothing_is_said_twice() -> None:
    one = Availability(key(0))
    assert not one.announce(1, [], [], NOW)
    assert one.announce(1, [task(1)], [], NOW)
    assert not one.announce(1, [task(1)], [], NOW)
    assert one.announce(2, [task(1)], [], NOW)
    assert one.announce(2, [], [], NOW)
    assert not one.announce(2, [], [], NOW)


@pytest.mark.parametrize(
    ("count", "false_most"), [(1, 0.01), (100, 0.01), (819, 0.015), (9999, 0.12)]
)
def test_the_filter_keeps_its_size_and_its_rate(count: int, false_most: float) -> None:
    held = [task(number) for number in range(count)]
    one = Availability(key(0))
    one.announce(1, held, [(task(number), 0.5) for number in range(20_000, 20_100)], NOW)
    said = one.of(one.peer)
    assert said is not None
    assert len(said.bloom) <= BLOOM_MAX_BYTES
    assert len(said.progress()) == ACTIVE_MAX
    assert len(encode(said)) <= 1900
    assert all(said.may_hold(bytes.fromhex(name)) for name in held[:BLOOM_TASKS_MAX])
    strangers = [task(number) for number in range(30_000, 33_000)]
    wrong = sum(said.may_hold(bytes.fromhex(name)) for name in strangers)
    assert wrong <= false_most * len(strangers)


def test_few_tasks_make_a_small_filter() -> None:
    assert bloom_of([]) == (1, b"")
    assert len(bloom_of([bytes.fromhex(task(1))])[1]) == 8
