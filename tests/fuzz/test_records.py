"""Whatever bytes a neighbour sends, gossip decodes them or says RemoteProtocolError.

PEERD_FUZZ_EXAMPLES is the number of inputs for each test (default 100); `make fuzz` uses a million.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.availability import BLOOM_MAX_BYTES, Holdings
from peerd.gossip.events import Arrived, Drop, NeighbourUp
from peerd.gossip.messages import Answer, Deltas, Digest, Listing, Parting, Want, pack, unpack
from peerd.gossip.ports import GOSSIP_MESSAGE_MAX_BYTES
from peerd.gossip.records import ADDRESSES_MAX, BODY_MAX_BYTES, Kind, PeerRecord, Signed, sign
from tests.gossip.builders import exchange, key, record, signed

EXAMPLES = int(os.environ.get("PEERD_FUZZ_EXAMPLES", "100"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=80)
    | st.binary(max_size=80)
    | st.sampled_from([key(1).peer_id, bytes(16), bytes(32), bytes(64), bytes(512)])
)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=16), max_leaves=40)
holdings = Holdings(key(1).peer_id, 1, 0, 7, memoryview(bytes(128)), memoryview(bytes(33)))
samples = [
    pack(Deltas((signed(1, record(1)), sign(key(1), Kind.HOLDINGS, encode(holdings))))),
    pack(Digest(1, Kind.RECORD, 0, bytes(512))),
    pack(Listing(1, Kind.HOLDINGS, (1, 2), ((5, 1, 0, 7),), 64)),
    pack(Want(1, Kind.RECORD, (1, 2, 3))),
    pack(Answer(1, 1, (signed(2, record(2)),))),
    pack(Parting()),
]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A right message with some bytes changed, taken out, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                del data[at:]
    return bytes(data)


hostile = st.binary(max_size=400) | mutated(samples) | trees.map(msgspec.msgpack.encode)


def refused_or(kind: Any, data: bytes) -> Any:
    try:
        return decode(data, kind, max_bytes=BODY_MAX_BYTES)
    except RemoteProtocolError:
        return None


@given(hostile)
@fuzzed
def test_a_message_decodes_within_its_bounds_or_is_refused(data: bytes) -> None:
    try:
        message = unpack(data)
    except RemoteProtocolError:
        return
    assert len(pack(message)) <= GOSSIP_MESSAGE_MAX_BYTES


@given(hostile | mutated([encode(record(1))]))
@fuzzed
def test_a_record_decodes_within_its_bounds_or_is_refused(data: bytes) -> None:
    found = refused_or(PeerRecord, data)
    if found is not None:
        assert len(found.overlay_addresses) <= ADDRESSES_MAX
        assert found.name.isprintable() or "\x00" not in found.name
        assert all(address.startswith("/") for address in found.overlay_addresses)
        assert all(text.isascii() and text.isprintable() for text in found.dial_addresses())


@given(hostile | mutated([encode(holdings)]), st.binary(min_size=32, max_size=32))
@fuzzed
def test_holdings_decode_within_their_bounds_or_are_refused(data: bytes, task: bytes) -> None:
    found = refused_or(Holdings, data)
    if found is not None:
        assert len(found.bloom) <= BLOOM_MAX_BYTES
        found.may_hold(task)
        assert all(0 <= percent <= 100 for percent in found.progress().values())


class _Target:
    """One core for all inputs, so that what one leaves behind meets the next."""

    def __init__(self) -> None:
        self.core = exchange(0)
        self.sender = key(7).peer_id
        self.now = 1.0
        self.rng = Random(1)


@pytest.fixture(scope="module")
def target() -> _Target:
    return _Target()


@given(data=hostile)
@fuzzed
def test_a_core_survives_whatever_arrives(target: _Target, data: bytes) -> None:
    target.now += target.rng.random()
    core = target.core
    core.handle(NeighbourUp(target.sender), target.now)
    orders = core.handle(Arrived(target.sender, data), target.now)
    assert len(orders) < 50
    for order in orders:
        if isinstance(order, Drop):
            assert order.peer == target.sender
    assert core.deadline() > target.now
    core.validate()


@given(body=mutated([encode(record(1)), encode(holdings)]), kind=st.sampled_from(Kind))
@fuzzed
def test_a_core_survives_whatever_a_member_signs(target: _Target, body: bytes, kind: Kind) -> None:
    """The signature is right; what it covers is not."""
    if not 0 < len(body) <= BODY_MAX_BYTES:
        return
    item: Signed = sign(key(1), kind, body)
    core = target.core
    target.now += 0.01
    core.handle(NeighbourUp(target.sender), target.now)
    core.handle(Arrived(target.sender, pack(Deltas((item,)))), target.now)
    core.validate()
    assert len(core.membership.table) <= 20
