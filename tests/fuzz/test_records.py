"""Whatever bytes a neighbour sends, gossip decodes them or says RemoteProtocolError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.availability import BLOOM_MAX_BYTES, Holdings
from peerd.gossip.events import Arrived, Drop, NeighbourUp
from peerd.gossip.messages import Answer, Deltas, Digest, Listing, Parting, Want, pack, unpack
from peerd.gossip.ports import GOSSIP_MESSAGE_MAX_BYTES
from peerd.gossip.records import ADDRESSES_MAX, BODY_MAX_BYTES, Kind, PeerRecord, Signed, sign
from tests.fuzz.hostile import damaged, hostile, inputs, many, seeds
from tests.gossip.builders import exchange, key, record, signed

LEAVES = [key(1).peer_id, bytes(16), bytes(32), bytes(64), bytes(512)]
holdings = Holdings(key(1).peer_id, 1, 0, 7, memoryview(bytes(128)), memoryview(bytes(33)))
samples = [
    pack(Deltas((signed(1, record(1)), sign(key(1), Kind.HOLDINGS, encode(holdings))))),
    pack(Digest(1, Kind.RECORD, 0, bytes(512))),
    pack(Listing(1, Kind.HOLDINGS, (1, 2), ((5, 1, 0, 7),), 64)),
    pack(Want(1, Kind.RECORD, (1, 2, 3))),
    pack(Answer(1, 1, (signed(2, record(2)),))),
    pack(Parting()),
]


RECORDS = [encode(record(1)), encode(holdings)]


def refused_or(kind: Any, data: bytes) -> Any:
    try:
        return decode(data, kind, max_bytes=BODY_MAX_BYTES)
    except RemoteProtocolError:
        return None


@many
@given(seeds)
def test_a_message_decodes_within_its_bounds_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        try:
            message = unpack(hostile(rng, samples, LEAVES))
        except RemoteProtocolError:
            continue
        assert len(pack(message)) <= GOSSIP_MESSAGE_MAX_BYTES


@many
@given(seeds)
def test_a_record_decodes_within_its_bounds_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        found = refused_or(PeerRecord, hostile(rng, RECORDS, LEAVES))
        if found is not None:
            assert len(found.overlay_addresses) <= ADDRESSES_MAX
            assert found.name.isprintable() or "\x00" not in found.name
            assert all(address.startswith("/") for address in found.overlay_addresses)
            assert all(text.isascii() and text.isprintable() for text in found.dial_addresses())


@many
@given(seeds)
def test_holdings_decode_within_their_bounds_or_are_refused(seed: int) -> None:
    for rng in inputs(seed):
        found = refused_or(Holdings, hostile(rng, RECORDS, LEAVES))
        if found is not None:
            assert len(found.bloom) <= BLOOM_MAX_BYTES
            found.may_hold(rng.randbytes(32))
            assert all(0 <= percent <= 100 for percent in found.progress().values())


class _Target:
    """One core for all inputs, so that what one leaves behind meets the next."""

    def __init__(self) -> None:
        self.core = exchange(0)
        self.sender = key(7).peer_id
        self.now = 1.0


@pytest.fixture(scope="module")
def target() -> _Target:
    return _Target()


@many
@given(seed=seeds)
def test_a_core_survives_whatever_arrives(target: _Target, seed: int) -> None:
    core = target.core
    for rng in inputs(seed):
        target.now += rng.random()
        core.handle(NeighbourUp(target.sender), target.now)
        data = hostile(rng, samples, LEAVES)
        orders = core.handle(Arrived(target.sender, data), target.now)
        assert len(orders) < 50
        for order in orders:
            if isinstance(order, Drop):
                assert order.peer == target.sender
        assert core.deadline() > target.now
        core.validate()


@many
@given(seed=seeds)
def test_a_core_survives_whatever_a_member_signs(target: _Target, seed: int) -> None:
    """The signature is right; what it covers is not."""
    core = target.core
    for rng in inputs(seed):
        body = damaged(rng, RECORDS)
        if not 0 < len(body) <= BODY_MAX_BYTES:
            continue
        item: Signed = sign(key(1), rng.choice(list(Kind)), body)
        target.now += 0.01
        core.handle(NeighbourUp(target.sender), target.now)
        core.handle(Arrived(target.sender, pack(Deltas((item,)))), target.now)
        core.validate()
        assert len(core.membership.table) <= 20
