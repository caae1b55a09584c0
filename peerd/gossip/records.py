"""What a peer says of itself: its record and its holdings, each signed by its owner and versioned.

Always: a signature covers the exact bytes of the body, so whoever relays it cannot change it; of
two bodies of one owner and kind the one with the greater Version is right, whatever order they
arrive in; what was decoded here keeps within the bounds its fields state. docs/adr/0009.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from peerd.codec import WireCount, WirePeerId, WireSignature, WireTerm, decode, encode
from peerd.errors import RemoteProtocolError, UsageError
from peerd.ids import WIRE_VERSION, PeerId
from peerd.signing import SigningKey

BODY_MAX_BYTES: Final = 4096
"""A record with 8 + 8 addresses of the usual 20–40 bytes has 700; holdings have at most 1,900."""
ADDRESSES_MAX: Final = 8
TTL_MAX_S: Final = 86_400.0
"""Nobody's record outlives its last announcement by more than a day."""
GENERATION_MAX: Final = (1 << 53) - 1

# What people read on a terminal must not steer it, and an address must not break a log line.
WireName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,64}\Z")]
WireZone = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,128}\Z")]
WireOverlayAddress = Annotated[str, Meta(pattern=r"^/[\x21-\x7e]{1,254}\Z")]
WireLinkAddress = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,255}\Z")]
WireBoot = Annotated[bytes, Meta(min_length=16, max_length=16)]
WireBody = Annotated[bytes, Meta(min_length=1, max_length=BODY_MAX_BYTES)]
WireAge = Annotated[float, Meta(ge=0, le=TTL_MAX_S)]
WireTtl = Annotated[float, Meta(ge=1, le=TTL_MAX_S)]


class Member(Struct, frozen=True):
    """A peer of the group as membership knows it. Addresses are host:port of its links."""

    peer: PeerId
    link_addresses: tuple[str, ...]
    zone: str
    seed: bool
    scheduler: bool
    name: str


class Kind(IntEnum):
    """Which of its owner's two statements a signed item is."""

    RECORD = 0
    HOLDINGS = 1


_PURPOSES: Final = {Kind.RECORD: "record", Kind.HOLDINGS: "holdings"}


class Version(NamedTuple):
    """Orders the items of one owner and kind: each run has a greater generation, each item of a
    run a greater counter. `mark` is of the body: two clones may reach the same generation and
    counter, and all peers must still agree on one of the two."""

    generation: int
    counter: int
    mark: int


class Signed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An item as it travels: its owner's bytes, the signature over them, and how old they are.

    The age is not signed, for it grows on the way: a member may lie about it, to a bounded harm.
    """

    kind: Kind
    body: WireBody
    signature: WireSignature
    age_s: WireAge


class PeerRecord(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who a peer is and where. Overlay addresses stand without their /p2p/ end (it is `peer`)."""

    peer: WirePeerId
    generation: WireTerm
    counter: WireCount
    boot: WireBoot
    ttl_s: WireTtl
    wire: WireCount
    cluster: WireZone
    name: WireName
    zone: WireZone
    overlay_addresses: Annotated[tuple[WireOverlayAddress, ...], Meta(max_length=ADDRESSES_MAX)]
    link_addresses: Annotated[tuple[WireLinkAddress, ...], Meta(max_length=ADDRESSES_MAX)]
    seed: bool
    scheduler: bool
    left: bool

    def dial_addresses(self) -> tuple[str, ...]:
        """What the overlay dials: whoever answers there must prove to be this peer."""
        return tuple(f"{address}/p2p/{self.peer}" for address in self.overlay_addresses)

    def member(self) -> Member:
        return Member(
            self.peer, self.link_addresses, self.zone, self.seed, self.scheduler, self.name
        )


class OwnFacts(Struct, frozen=True):
    """What this peer says of itself. Overlay addresses may end in /p2p/ and its id."""

    cluster: str = ""
    name: str = ""
    zone: str = ""
    overlay_addresses: tuple[str, ...] = ()
    link_addresses: tuple[str, ...] = ()
    seed: bool = False
    scheduler: bool = False

    def record(
        self, peer: PeerId, boot: bytes, generation: int, counter: int, ttl_s: float, left: bool
    ) -> PeerRecord:
        """The record with these facts; of too many addresses the first are said."""
        ending = f"/p2p/{peer}"
        return PeerRecord(
            peer=peer,
            generation=generation,
            counter=counter,
            boot=boot,
            ttl_s=ttl_s,
            wire=WIRE_VERSION,
            cluster=self.cluster,
            name=self.name,
            zone=self.zone,
            overlay_addresses=tuple(
                address.removesuffix(ending) for address in self.overlay_addresses[:ADDRESSES_MAX]
            ),
            link_addresses=self.link_addresses[:ADDRESSES_MAX],
            seed=self.seed,
            scheduler=self.scheduler,
            left=left,
        )


def check_own(record: PeerRecord) -> None:
    """UsageError if others would refuse this record: better said at start than never heard."""
    body = encode(record)
    try:
        decode(body, PeerRecord, max_bytes=BODY_MAX_BYTES)
    except RemoteProtocolError as error:
        raise UsageError(
            f"this peer's name, zone, cluster or addresses cannot be announced ({error}); "
            "use short ones without control characters"
        ) from error


def sign(key: SigningKey, kind: Kind, body: bytes) -> Signed:
    return Signed(kind, body, key.sign(_PURPOSES[kind], body), 0.0)


def purpose_of(kind: Kind) -> str:
    return _PURPOSES[kind]


def mark_of(body: bytes) -> int:
    """32 bits of the body's hash: enough to tell two clones' bodies apart, cheap to list."""
    return int.from_bytes(blake2b(body, digest_size=4).digest(), "big")


def item_id(peer: PeerId) -> int:
    """64 bits that stand for a peer where thousands are listed."""
    return int.from_bytes(blake2b(peer.encode(), digest_size=8).digest(), "big")
