"""What travels on a gossip stream, byte for byte (docs/protocol.md has the same).

A frame is: u32 length of the rest, u8 kind, body; big-endian. First each side sends its Hello,
then, if it takes the other's, WELCOME, else Refused and the end; then PAYLOADs, and BEATs in
silence.

Always: a frame is one of these kinds within its bounds, or it is RemoteProtocolError; pure.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from peerd.codec import WireAddress, WireCount, WireWords, decode, encode
from peerd.errors import AdmissionRefused, IdentityCloned, PeerdError, RemoteProtocolError
from peerd.ids import WIRE_VERSION, PeerId
from peerd.units import KIB

PAYLOAD_MAX_BYTES = 64 * KIB
"""design.md, section 5; gossip's own bound is the same."""
FRAME_MAX_BYTES = 1 + PAYLOAD_MAX_BYTES
CROSSING_S = 5.0
"""Two dials that crossed are both up within UPGRADE_S of each other."""

_HEADER = struct.Struct(">IB")
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    HELLO = 0
    WELCOME = 1  # empty: your hello is accepted
    REFUSED = 2
    BEAT = 3  # empty: still here
    PAYLOAD = 4


class Hello(Struct, frozen=True, array_like=True):
    """`wire` comes first, and more fields may follow: a later version must be able to be refused.

    `boot` names this run of the daemon; `dial` counts its dials, 0 from who was dialled.
    """

    wire: WireCount
    cluster: WireWords
    boot: Annotated[bytes, Meta(min_length=16, max_length=16)]
    dial: WireCount
    agent: WireWords
    addresses: Annotated[tuple[WireAddress, ...], Meta(max_length=8)]


class Refused(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Why this stream ends: `code` is of errors.py, or "duplicate"."""

    code: WireWords
    words: WireWords


DUPLICATE = "duplicate"


class Duplicate(Exception):
    """Another stream between the same two was kept. Never leaves overlay/."""


def frame(kind: Kind, body: bytes = b"") -> bytes:
    return _HEADER.pack(1 + len(body), kind) + body


def parse_header(data: bytes) -> tuple[Kind, int]:
    """The kind, and how many bytes of body follow."""
    length, kind = _HEADER.unpack(data)
    if not 1 <= length <= FRAME_MAX_BYTES:
        raise RemoteProtocolError(f"a frame of {length} bytes; at most {FRAME_MAX_BYTES} may come")
    try:
        return Kind(kind), length - 1
    except ValueError as error:
        raise RemoteProtocolError(f"a frame of unknown kind {kind}") from error


def encode_hello(hello: Hello) -> bytes:
    return frame(Kind.HELLO, encode(hello))


def decode_hello(body: bytes, own_wire: int = WIRE_VERSION) -> Hello:
    """RemoteProtocolError, in words that name both versions where that is the reason."""
    if len(body) > 4 * KIB:
        raise RemoteProtocolError("a hello of more than 4 KiB")
    try:
        hello: Hello = decode(body, Hello)
    except RemoteProtocolError:
        _check_wire(decode(body, Any), own_wire)
        raise
    _check_wire((hello.wire,), own_wire)
    return hello


def check_hello(hello: Hello, cluster: str) -> None:
    """RemoteProtocolError if it is of another cluster than `cluster`."""
    if hello.cluster != cluster:
        raise RemoteProtocolError(
            f"this peer is of cluster {cluster!r}, the other of {hello.cluster!r}; "
            "join only peers of the same cluster"
        )


def encode_refused(error: PeerdError | Duplicate) -> bytes:
    code = DUPLICATE if isinstance(error, Duplicate) else error.code
    return frame(Kind.REFUSED, encode(Refused(code, str(error)[:512])))


def refusal(body: bytes, *, ours: bool = False) -> PeerdError | Duplicate:
    """The error that the other side's Refused stands for. `ours`: its key is our own.

    A remote may not make us raise what it likes: admission is its to refuse, a cloned identity
    only one with our identity may speak of, and all else is RemoteProtocolError.
    """
    refused: Refused = decode(body, Refused)
    if refused.code == DUPLICATE:
        return Duplicate(refused.words)
    words = f"refused by the other side: {refused.words}"
    if refused.code == AdmissionRefused.code:
        return AdmissionRefused(words)
    if refused.code == IdentityCloned.code and ours:
        return IdentityCloned(words)
    return RemoteProtocolError(words)


class Claim(Struct, frozen=True):
    """What decides between two streams of the same two peers."""

    boot: bytes
    by_smaller: bool
    dial: int
    up_at: float


def claim(own: PeerId, other: PeerId, dialled: bool, dial: int, boot: bytes, now: float) -> Claim:
    """`dialled`: by us; `dial` is the dialler's count; `boot` the other's."""
    return Claim(boot, (own < other) == dialled, dial, now)


def supersedes(new: Claim, old: Claim) -> bool:
    """Whether `new` is kept and `old` closed; both ends come to the same answer.

    Another boot: the other restarted, the old stream is a corpse. Dialled by the same side: the
    later dial, for nobody dials whom it has. Crossing dials: the smaller id's. Otherwise the
    dialler of the new one has lost the old one, and we have not noticed yet.
    """
    if new.boot != old.boot:
        return True
    if new.by_smaller == old.by_smaller:
        return new.dial > old.dial
    return new.by_smaller or new.up_at - old.up_at > CROSSING_S


def _check_wire(fields: object, own_wire: int) -> None:
    wire = fields[0] if isinstance(fields, (tuple, list)) and fields else None
    if isinstance(wire, int) and wire != own_wire:
        raise RemoteProtocolError(
            f"this peer speaks wire version {own_wire}, the other {wire}; "
            "run the same release of peerd on both"
        )
