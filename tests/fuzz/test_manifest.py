"""Whatever others say of versions, pieces and tasks is a value within its bounds, or an error."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import example, given

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError, UsageError
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.pieces import PIECE_COUNT_MAX, PIECE_LENGTH_MAX_BYTES, PieceSet, piece_length_for
from peerd.signing import SigningKey
from peerd.task import FILTERED_QUERY, SCHEMES, Ask, TaskSpec, ask_for, canonical_url, task_id
from tests.fuzz.hostile import hostile, inputs, many, odd_text, seeds

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

LEAVES = [KEY.peer_id, TASK, DIGEST, bytes(32), bytes(64), 1 << 22, 1 << 50, 1 << 24]
SCHEMES_TRIED = ["http", "HTTPS", "file", "ftp", "", "hTTp"]
HOSTS = ["h", "Example.ORG", "[::1]", "[", "]", "h]", "u:p@h", "@h", "[v1.x]", "", "İ", "h\u2100",
         "[fe80::1%25E]"]  # fmt: skip
PORTS = ["", "", ":", ":80", ":0443", ":65536", ":-1", ":x", ":٣"]
PATHS = ["", "/", "//", "/a/../b", "//evil/x", "/%2e%00"]
PARAMETERS = ["a=1", "Signature=x", "X-AMZ-DATE=2", "%53ignature=y", "", "=", "&", ";b=2", "%ff=%",
              "é=ü", "ns", "+=+", "a%00=b", "?"]  # fmt: skip


def any_version(rng: Random) -> VersionInfo:
    """Whatever a member may sign: the signature will be right, what it covers need not be."""
    info = VersionInfo(
        task=TASK,
        version=VERSION,
        length_bytes=rng.choice((None, rng.randrange(-2, 1 << 51), rng.randrange(1 << 30))),
        piece_length_bytes=rng.choice((rng.randrange(-1, (1 << 24) + 2), 1, 1 << 18, 1 << 24)),
        validator=rng.choice((None, odd_text(rng).encode(errors="ignore").decode())),
        ranged=rng.random() < 0.5,
        digest=rng.choice((None, DIGEST, odd_text(rng).encode(errors="ignore").decode())),
        attester=rng.choice((KEY.peer_id, PeerId("".join(rng.choices("123ABCxyzIl0", k=40))))),
        signature=bytes(64),
    )
    return consistent(info) if rng.random() < 0.5 else info


def any_url(rng: Random) -> str:
    if rng.random() < 0.1:
        return odd_text(rng)

    def one(tried: list[str]) -> str:
        return rng.choice(tried) if rng.random() < 0.9 else odd_text(rng)

    query = "&".join(one(PARAMETERS) for _ in range(rng.randrange(6)))
    place = f"{one(SCHEMES_TRIED)}://{one(HOSTS)}{rng.choice(PORTS)}{one(PATHS)}"
    return f"{place}?{query}#{odd_text(rng)}"


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


@many
@given(seeds)
def test_a_version_decodes_within_its_bounds_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        strange = encode(any_version(rng)) if rng.random() < 0.2 else b""
        info = decoded(VersionInfo, strange or hostile(rng, SAMPLES, LEAVES))
        if info is None:
            continue
        assert encode(decode(encode(info), VersionInfo)) == encode(info)
        if proven(info):
            use_version(info)


@many
@given(seeds)
def test_a_version_that_a_member_signed_is_usable_or_refused(seed: int) -> None:
    for rng in inputs(seed):
        received = decoded(VersionInfo, encode(any_version(rng).signed(KEY)))
        if received is not None and proven(received):
            use_version(received)


@many
@given(seeds)
def test_an_attestation_decodes_within_its_bounds_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        made = decoded(Attestation, hostile(rng, SAMPLES, LEAVES))
        if made is not None:
            assert 0 <= made.index < PIECE_COUNT_MAX
            assert (len(made.digest), len(made.signature)) == (32, 64)
            if proven(made):
                assert Attestation.made(KEY, made.version, made.index, made.digest) == made


@many
@given(seeds)
def test_no_field_of_an_attestation_can_be_changed(seed: int) -> None:
    made = Attestation.made(KEY, VERSION, PieceIndex(1), bytes(32))
    for rng in inputs(seed):
        values = list(msgspec.structs.astuple(made))
        other = [
            rng.randbytes(32).hex(),
            rng.randrange(1 << 22),
            rng.randbytes(32),
            SigningKey(rng.randbytes(32)).peer_id,
            rng.randbytes(64),
        ]
        field = rng.randrange(len(values))
        values[field] = other[field]
        assert proven(Attestation(*values)) == (Attestation(*values) == made)


@many
@given(seeds)
def test_a_task_decodes_within_its_bounds_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        data = hostile(rng, SAMPLES, LEAVES)
        for found in (decoded(TaskSpec, data), decoded(Ask, data)):
            if found is not None:
                use_spec(found if isinstance(found, TaskSpec) else found.spec)


def use_spec(spec: TaskSpec) -> None:
    assert len(spec.url) <= 8192
    assert len(spec.headers) <= 32
    assert spec.digest is None or len(spec.digest) == len(DIGEST)
    try:
        name = task_id(Ask(spec), b"secret")
    except ValueError:  # Its URL is none; check_url says so to whoever would read it.
        assert spec.digest is None
    else:
        assert len(bytes.fromhex(name)) == 32


@many
@given(seeds)
@example(0)
def test_a_bitmap_names_pieces_that_exist_or_is_refused(seed: int) -> None:
    for rng in inputs(seed):
        data = rng.randbytes(rng.choice((0, rng.randrange(40))))
        for size in (rng.randrange(-20, 400), -1, 8 * len(data), 8 * len(data) - 3):
            try:
                pieces = PieceSet.from_bytes(data, size)
            except ValueError:
                continue
            assert all(0 <= index < size for index in pieces)
            assert len(pieces) == len(list(pieces)) <= size
            assert pieces.end() <= size
            assert len(pieces.missing()) == size - len(pieces)
            assert pieces.to_bytes() == data


@many
@given(seeds)
def test_a_hostile_url_is_refused_or_has_one_canonical_form(seed: int) -> None:
    for rng in inputs(seed):
        url = any_url(rng)
        try:
            ask = ask_for(url)
        except UsageError:
            continue
        if not any("\ud800" <= character <= "\udfff" for character in url):
            use_url(ask, url)  # Neither JSON nor msgpack carries a lone surrogate to a daemon.


def use_url(ask: Ask, url: str) -> None:
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


@many
@given(seeds)
def test_hostile_headers_and_digests_are_refused_or_stay_on_their_line(seed: int) -> None:
    for rng in inputs(seed):
        headers = [
            (rng.choice(("Accept", "Range", "COOKIE", odd_text(rng))), odd_text(rng))
            for _ in range(rng.randrange(3))
        ]
        try:
            ask = ask_for("http://h/x", digest=rng.choice((None, DIGEST)), headers=headers)
        except (UsageError, ValueError):
            continue
        assert ask.spec.digest in (None, DIGEST)
        assert len(ask.spec.headers) + len(ask.credentials) == len(headers)
        for name, value in (*ask.spec.headers, *ask.credentials):
            assert name
            assert name == name.lower()
            assert not set(name + value) & {"\r", "\n"}
