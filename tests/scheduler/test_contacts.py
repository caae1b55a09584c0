"""Of whom a peer hears who leads: nobody has too many who ask it, and nobody asks in a circle."""

from __future__ import annotations

from collections import Counter

import pytest

from peerd import cells
from peerd.ids import PeerId
from peerd.scheduler.contacts import contacts_of, electors_of, standbys_of


def group(count: int) -> list[PeerId]:
    return [PeerId(f"peer{number}") for number in range(count)]


def test_in_a_small_group_all_ask_the_electors_in_order() -> None:
    peers = group(40)
    electors = electors_of(peers[:5], 16)
    assert contacts_of(peers[9], peers, electors, 0) == electors
    assert contacts_of(electors[1], peers, electors, 0) == (electors[0], *electors[2:])


def test_no_more_than_sixteen_elect() -> None:
    assert len(electors_of(group(40), 16)) == 16


@pytest.mark.parametrize("count", [100, 1_000, 3_000])
def test_in_a_large_group_nobody_is_asked_by_many_and_all_ways_end_at_an_elector(
    count: int,
) -> None:
    peers = group(count)
    electors = electors_of(peers[:3], 16)
    bits = cells.bits_for(count)
    first = {peer: contacts_of(peer, peers, electors, bits)[0] for peer in peers}
    fan_in = Counter(first.values())
    assert max(fan_in.values()) <= cells.FAN_IN_MAX
    for peer in peers:
        seen = []
        while peer not in electors:
            seen.append(peer)
            peer = first[peer]
            assert peer not in seen, "a circle"
        assert len(seen) <= 2 + bits // cells.STEP_BITS


def test_the_second_of_a_cell_stands_in_for_the_first() -> None:
    peers = group(100)
    electors = electors_of(peers[:3], 16)
    bits = cells.bits_for(100)
    reader = peers[50]
    contacts = contacts_of(reader, peers, electors, bits)
    assert len(contacts) >= len(electors) + 1
    assert contacts[-len(electors):] == electors  # fmt: skip
    left = [peer for peer in peers if peer != contacts[0]]
    assert contacts_of(reader, left, electors, bits)[0] != contacts[0]


def test_the_next_two_stand_by() -> None:
    electors = electors_of(group(5), 16)
    assert standbys_of(electors, electors[0]) == electors[1:3]
    assert standbys_of(electors, electors[1]) == (electors[0], electors[2])
    assert standbys_of(electors, None) == ()
