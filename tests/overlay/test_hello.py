"""The gossip stream's frames, and which of two streams is kept: pure, so every case is cheap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.codec import encode
from peerd.errors import AdmissionRefused, IdentityCloned, OriginNotFound, RemoteProtocolError
from peerd.ids import PeerId
from peerd.overlay import hello as wire
from peerd.overlay.hello import Claim, Duplicate, Hello, Kind, Refused

HELLO = Hello(1, "red", bytes(16), 7, "peerd/1", ("/ip4/127.0.0.1/tcp/1",))


def body(frame: bytes) -> bytes:
    kind, length = wire.parse_header(frame[: wire.HEADER_BYTES])
    assert len(frame) == wire.HEADER_BYTES + length
    assert kind in Kind
    return frame[wire.HEADER_BYTES :]


def test_a_hello_arrives_as_it_was_sent() -> None:
    assert wire.decode_hello(body(wire.encode_hello(HELLO))) == HELLO


def test_a_later_hello_with_more_fields_is_read_to_its_version() -> None:
    later = encode((2, {"another": "shape"}))
    with pytest.raises(RemoteProtocolError, match="speaks wire version 1, the other 2"):
        wire.decode_hello(later)
    same_version = encode((1, "red", bytes(16), 0, "x", (), "new"))
    assert wire.decode_hello(same_version).cluster == "red"


def test_both_clusters_are_named() -> None:
    wire.check_hello(HELLO, "red")
    with pytest.raises(RemoteProtocolError, match="of cluster 'blue', the other of 'red'"):
        wire.check_hello(HELLO, "blue")


def test_a_remote_makes_us_raise_only_what_is_its_to_say() -> None:
    def said(code: str, *, ours: bool = False) -> Exception:
        return wire.refusal(encode(Refused(code, "because")), ours=ours)

    assert type(said(AdmissionRefused.code)) is AdmissionRefused
    assert type(said(IdentityCloned.code, ours=True)) is IdentityCloned
    assert type(said(IdentityCloned.code)) is RemoteProtocolError
    assert type(said(OriginNotFound.code)) is RemoteProtocolError
    assert type(said("nonsense")) is RemoteProtocolError
    assert "because" in str(said("nonsense"))
    assert type(wire.refusal(body(wire.encode_refused(Duplicate("two"))))) is Duplicate
    with pytest.raises(RemoteProtocolError):
        wire.refusal(b"garbage")


@given(st.binary(min_size=wire.HEADER_BYTES, max_size=wire.HEADER_BYTES))
def test_any_header_is_a_frame_or_an_error_of_the_remote(data: bytes) -> None:
    try:
        kind, length = wire.parse_header(data)
    except RemoteProtocolError:
        return
    assert 0 <= length <= wire.PAYLOAD_MAX_BYTES
    assert kind in Kind


def _msgpack(value: object) -> bytes:
    try:
        return encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return b"\xc1"


PLAIN = st.recursive(st.integers() | st.text() | st.binary() | st.none(), st.lists, max_leaves=8)


@given(st.binary(max_size=200) | PLAIN.map(_msgpack))
def test_any_hello_is_one_or_an_error_of_the_remote(data: bytes) -> None:
    try:
        assert wire.decode_hello(data).wire == 1
    except RemoteProtocolError:
        pass


A, B = PeerId("A"), PeerId("B")


@given(
    dials=st.permutations([("A", 1, 0.0), ("A", 2, 0.5), ("B", 1, 1.0), ("B", 2, 1.5)]),
    boots=st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)),
)
def test_both_ends_keep_the_same_of_crossing_streams(
    dials: list[tuple[str, int, float]], boots: tuple[bytes, bytes]
) -> None:
    """Whatever the order in which each of the two sees them come up."""

    def kept(own: PeerId, other: PeerId, order: list[tuple[str, int, float]]) -> tuple[bool, int]:
        boot = boots[0 if other == A else 1]
        best: Claim | None = None
        for dialler, number, up_at in order:
            new = wire.claim(own, other, dialler == own, number, boot, up_at)
            if best is None or wire.supersedes(new, best):
                best = new
        assert best is not None
        return best.by_smaller, best.dial

    assert kept(A, B, dials) == kept(B, A, sorted(dials)) == (True, 2)


def test_a_restarted_peer_and_one_that_lost_its_stream_are_let_in() -> None:
    old = wire.claim(A, B, True, 5, b"boot one", 100.0)
    again = wire.claim(A, B, False, 1, b"boot two", 100.1)
    assert wire.supersedes(again, old)
    back = wire.claim(A, B, False, 1, b"boot one", 100.0 + wire.CROSSING_S + 1)
    assert wire.supersedes(back, old)
    crossing = wire.claim(A, B, False, 1, b"boot one", 101.0)
    assert not wire.supersedes(crossing, old)
