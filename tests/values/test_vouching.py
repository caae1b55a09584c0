"""Signatures, attestations and versions: what is not right is refused, whoever sent it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd import signing
from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.signing import SigningKey
from peerd.units import KIB

KEY, OTHER = SigningKey(b"1" * 32), SigningKey(b"2" * 32)
TASK, VERSION = TaskId("a" * 64), VersionId("b" * 64)
DIGEST = "sha256:" + "d" * 64
PIECE = 256 * KIB


def info(length: int | None = 2 * PIECE + 20, piece: int = PIECE, **change: Any) -> VersionInfo:
    version = version_id(TASK, digest=None, validator='"e"', length_bytes=length, nonce=b"")
    made = VersionInfo(TASK, version, length, piece, '"e"', True, None, KEY.peer_id, b"\0" * 64)
    return msgspec.structs.replace(made, **change).signed(KEY)


def test_a_signature_holds_for_its_purpose_alone() -> None:
    signature = KEY.sign("record", b"x")
    assert signing.verify(KEY.peer_id, "record", b"x", signature)
    assert not signing.verify(KEY.peer_id, "other", b"x", signature)
    assert not signing.verify(OTHER.peer_id, "record", b"x", signature)


@pytest.mark.parametrize("text", ["", "0OIl", "12D3KooW", "Qm" * 20])
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        signing.public_key_of(PeerId(text))


def test_an_attestation_is_bound_to_all_it_says() -> None:
    made = Attestation.made(KEY, VERSION, PieceIndex(3), b"d" * 32)
    assert decode(encode(made), Attestation).verified() == made
    for change in (
        {"index": 4}, {"digest": b"e" * 32}, {"version": "c" * 64}, {"attester": OTHER.peer_id}
    ):  # fmt: skip
        with pytest.raises(RemoteProtocolError):
            msgspec.structs.replace(made, **change).verified()


def test_a_version_is_bound_to_all_it_says() -> None:
    assert decode(encode(info()), VersionInfo).verified().piece_count == 3
    for change in ({"length_bytes": 99}, {"ranged": False}, {"validator": None}):
        with pytest.raises(RemoteProtocolError):
            msgspec.structs.replace(info(), **change).verified()
    with pytest.raises(RemoteProtocolError, match="pieces"):
        info(length=1 << 40, piece=1).verified()


@pytest.mark.parametrize(
    "change",
    [
        {"length_bytes": 99},
        {"validator": '"f"'},
        {"validator": None, "digest": DIGEST},
        {"digest": DIGEST},
        {"piece_length_bytes": 2 * PIECE},
        {"task": "c" * 64},
    ],
)
def test_a_member_cannot_say_two_things_of_one_version(change: dict[str, Any]) -> None:
    """Its own signature does not help it: the id says what was pinned."""
    assert info().verified() == info()
    with pytest.raises(RemoteProtocolError, match="not what its id pins"):
        info(**change).verified()


def test_the_id_stays_when_the_end_is_found() -> None:
    unknown = info(length=None, piece=1024 * KIB)
    msgspec.structs.replace(unknown, length_bytes=5).signed(KEY).verified()


def test_spans_of_a_version() -> None:
    assert info().span(2) == (2 * PIECE, 20)
    assert info(length=None).span(2) == (2 * PIECE, PIECE)
    assert info(length=0).piece_count == 0


def test_what_pins_a_version_names_it() -> None:
    def named(**change: object) -> VersionId:
        facts = {"digest": None, "validator": None, "length_bytes": 5, "nonce": b"n"} | change
        return version_id(TASK, **facts)  # type: ignore[arg-type]

    digest = "sha256:" + "a" * 64
    assert named(digest=digest) == named(digest=digest, validator='"x"', nonce=b"m")
    assert named(digest=digest) != named(digest=digest, length_bytes=6)
    assert named(validator='"x"') == named(validator='"x"', nonce=b"m")
    assert named(validator='"x"') != named(validator='"x"', length_bytes=6)
    assert named() != named(nonce=b"m")


@given(st.binary(max_size=300))
def test_garbage_is_a_remote_error_and_nothing_else(data: bytes) -> None:
    for kind in (VersionInfo, Attestation):
        try:
            decode(data, kind)
        except RemoteProtocolError:
            continue


def test_too_much_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(RemoteProtocolError, match="at most 4"):
        decode(b"12345", int, max_bytes=4)
