"""Whatever others say of versions, pieces and tasks is a value within its bounds, or an error.

PEERD_FUZZ_EXAMPLES is the number of inputs for each test (default 150); `make fuzz` uses a million.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError, UsageError
from peerd.ids import PieceIndex, TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.pieces import PIECE_COUNT_MAX, PIECE_LENGTH_MAX_BYTES, PieceSet, piece_length_for
from peerd.signing import SigningKey
from peerd.task import FILTERED_QUERY, SCHEMES, Ask, TaskSpec, ask_for, canonical_url, task_id

EXAMPLES = int(os.environ.get("PEERD_FUZZ_EXAMPLES", "150"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

KEY = SigningKey(bytes(32))
TASK, VERSION = TaskId("a" * 64), VersionId("b" * 64)
DIGEST = "sha256:" + "c" * 64


def consistent(info: VersionInfo) -> VersionInfo:
    """With the id and the cut that follow from the rest, as far as there are any."""
    length = info.length_bytes if info.length_bytes is None else max(0, info.length_bytes)
    validator = info.validator if info.digest is None else None
    version = version_id(
        info.task, digest=info.digest, validator=validator, length_bytes=length, nonce=b""
    )
    return msgspec.structs.replace(
        info,
        version=version,
        length_bytes=length,
        validator=validator,
        piece_length_bytes=piece_length_for(length),
    )


PINNED = consistent(
    VersionInfo(TASK, VERSION, 3_000_000, 1 << 20, None, True, DIGEST, KEY.peer_id, bytes(64))
).signed(KEY)
SPEC = TaskSpec("https://h/x?a=1", DIGEST, "t", "app", (("accept", "*/*"),))
SAMPLES = [
    encode(value)
    for value in (
        PINNED,
        consistent(msgspec.structs.replace(PINNED, length_bytes=None, digest=None)).signed(KEY),
        Attestation.made(KEY, VERSION, PieceIndex(1), bytes(32)),
        SPEC,
        Ask(SPEC, (("authorization", "x"),)),
    )
]

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=80)
    | st.binary(max_size=80)
    | st.sampled_from([KEY.peer_id, TASK, DIGEST, bytes(32), bytes(64), 1 << 22, 1 << 50, 1 << 24])
)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=10), max_leaves=30)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A right value with some bytes changed, taken out, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(SAMPLES)))
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


hostile = st.binary(max_size=300) | mutated() | trees.map(msgspec.msgpack.encode)
anything = st.builds(
    VersionInfo,
    task=st.just(TASK),
    version=st.just(VERSION),
    length_bytes=st.none() | st.integers(-2, 1 << 51) | st.integers(0, 1 << 30),
    piece_length_bytes=st.integers(-1, (1 << 24) + 1) | st.sampled_from([1, 1 << 18, 1 << 24]),
    validator=st.none() | st.text(max_size=40),
    ranged=st.booleans(),
    digest=st.none() | st.just(DIGEST) | st.text(max_size=80),
    attester=st.just(KEY.peer_id) | st.text("123456789ABCxyzIl0", max_size=70),
    signature=st.just(bytes(64)),
)
versions = anything | anything.map(consistent)
"""Whatever a member may sign: the signature will be right, what it covers need not be."""
odd_text = st.text(max_size=30) | st.text("\r\n\t\0 :;,=\u00a0\u0130\ud800é%", max_size=10)
queries = st.lists(
    st.sampled_from(["a=1", "Signature=x", "X-AMZ-DATE=2", "%53ignature=y", "", "=", "&", ";b=2",
                     "%ff=%", "é=ü", "ns", "+=+", "a%00=b", "?"])
    | odd_text, max_size=6,
).map("&".join)  # fmt: skip
urls = odd_text | st.builds(
    "{}://{}{}{}?{}#{}".format,
    st.sampled_from(["http", "HTTPS", "file", "ftp", "", "hTTp"]) | odd_text,
    st.sampled_from(
        [
            "h",
            "Example.ORG",
            "[::1]",
            "[",
            "]",
            "h]",
            "u:p@h",
            "@h",
            "[v1.x]",
            "",
            "İ",
            "h\u2100",
            "[fe80::1%25E]",
        ]
    )
    | odd_text,
    st.sampled_from(["", ":", ":80", ":0443", ":65536", ":-1", ":x", ":٣"]),
    st.sampled_from(["", "/", "//", "/a/../b", "//evil/x", "/%2e%00"]) | odd_text,
    queries,
    odd_text,
)


def decoded(kind: Any, data: bytes) -> Any:
    try:
        return decode(data, kind)
    except RemoteProtocolError:
        return None


def proven(value: Any) -> bool:
    try:
        return value.verified() is value
    except RemoteProtocolError:
        return False


def use_version(info: VersionInfo) -> None:
    """What a download does with a version as soon as it is verified."""
    assert 1 <= info.piece_length_bytes <= PIECE_LENGTH_MAX_BYTES
    count = info.piece_count
    if count is None:
        assert info.span(5) == (5 * info.piece_length_bytes, info.piece_length_bytes)
        assert info.bytes_of(PieceSet(8, (1, 7))) == 2 * info.piece_length_bytes
        return
    assert info.length_bytes is not None
    assert 0 <= count <= PIECE_COUNT_MAX
    assert info.bytes_of(PieceSet.full(count)) == info.length_bytes
    for index in {-1, 0, count // 2, count - 1, count}:
        try:
            offset, size = info.span(index)
        except ValueError:
            assert not 0 <= index < count
            continue
        assert 0 <= index < count
        assert 0 < size <= info.piece_length_bytes
        assert 0 <= offset < offset + size <= info.length_bytes
        assert info.bytes_of(PieceSet(count, (index,))) == size
    if count:
        offset, size = info.span(count - 1)
        assert offset + size == info.length_bytes


@given(hostile | versions.map(encode))
@fuzzed
def test_a_version_decodes_within_its_bounds_or_is_refused(data: bytes) -> None:
    info = decoded(VersionInfo, data)
    if info is None:
        return
    assert encode(decode(encode(info), VersionInfo)) == encode(info)
    if proven(info):
        use_version(info)


@given(versions)
@fuzzed
def test_a_version_that_a_member_signed_is_usable_or_refused(info: VersionInfo) -> None:
    received = decoded(VersionInfo, encode(info.signed(KEY)))
    if received is not None and proven(received):
        use_version(received)


@given(hostile)
@fuzzed
def test_an_attestation_decodes_within_its_bounds_or_is_refused(data: bytes) -> None:
    made = decoded(Attestation, data)
    if made is not None:
        assert 0 <= made.index < PIECE_COUNT_MAX
        assert (len(made.digest), len(made.signature)) == (32, 64)
        if proven(made):
            assert Attestation.made(KEY, made.version, made.index, made.digest) == made


@given(st.integers(0, 4), st.data())
@fuzzed
def test_no_field_of_an_attestation_can_be_changed(field: int, data: st.DataObject) -> None:
    made = Attestation.made(KEY, VERSION, PieceIndex(1), bytes(32))
    values = list(msgspec.structs.astuple(made))
    other = [
        st.text("0123456789abcdef", min_size=64, max_size=64),
        st.integers(0, (1 << 22) - 1),
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=32, max_size=32).map(lambda seed: SigningKey(seed).peer_id),
        st.binary(min_size=64, max_size=64),
    ]
    values[field] = data.draw(other[field])
    assert proven(Attestation(*values)) == (Attestation(*values) == made)


@given(hostile)
@fuzzed
def test_a_task_decodes_within_its_bounds_or_is_refused(data: bytes) -> None:
    for kind in (TaskSpec, Ask):
        found = decoded(kind, data)
        if found is None:
            continue
        spec = found if isinstance(found, TaskSpec) else found.spec
        assert len(spec.url) <= 8192
        assert len(spec.headers) <= 32
        assert spec.digest is None or len(spec.digest) == len(DIGEST)
        try:
            name = task_id(Ask(spec), b"secret")
        except ValueError:  # Its URL is none; check_url says so to whoever would read it.
            assert spec.digest is None
        else:
            assert len(bytes.fromhex(name)) == 32


@given(st.binary(max_size=40), st.integers(-20, 400))
@example(b"", -1)
@fuzzed
def test_a_bitmap_names_pieces_that_exist_or_is_refused(data: bytes, count: int) -> None:
    for size in (count, 8 * len(data), 8 * len(data) - 3):
        try:
            pieces = PieceSet.from_bytes(data, size)
        except ValueError:
            continue
        assert all(0 <= index < size for index in pieces)
        assert len(pieces) == len(list(pieces)) <= size
        assert pieces.end() <= size
        assert len(pieces.missing()) == size - len(pieces)
        assert pieces.to_bytes() == data


@given(urls)
@fuzzed
def test_a_hostile_url_is_refused_or_has_one_canonical_form(url: str) -> None:
    try:
        ask = ask_for(url)
    except UsageError:
        return
    if any("\ud800" <= character <= "\udfff" for character in url):
        return  # Neither JSON nor msgpack carries a lone surrogate to a daemon.
    name = task_id(ask, b"secret")
    canonical = canonical_url(url)
    assert canonical.partition(":")[0] in SCHEMES
    assert "#" not in canonical
    assert "@" not in canonical.split("/")[2]
    assert canonical_url(canonical) == canonical
    assert task_id(ask_for(canonical), b"secret") == name
    parameters = canonical.partition("?")[2].split("&")
    assert not {text.partition("=")[0].lower() for text in parameters} & FILTERED_QUERY
    if len(url) <= 8192:
        assert decode(encode(ask.spec), TaskSpec) == ask.spec


@given(
    st.lists(st.tuples(odd_text | st.sampled_from(["Accept", "Range", "COOKIE"]), odd_text)),
    st.none() | st.just(DIGEST) | odd_text,
)
@fuzzed
def test_hostile_headers_and_digests_are_refused_or_stay_on_their_line(
    headers: list[tuple[str, str]], digest: str | None
) -> None:
    try:
        ask = ask_for("http://h/x", digest=digest, headers=headers)
    except (UsageError, ValueError):
        return
    assert ask.spec.digest in (None, DIGEST)
    assert len(ask.spec.headers) + len(ask.credentials) == len(headers)
    for name, value in (*ask.spec.headers, *ask.credentials):
        assert name
        assert name == name.lower()
        assert not set(name + value) & {"\r", "\n"}
