"""What neighbours say to each other about records and holdings (docs/protocol.md has the same).

Always: a message decodes to exactly one of these classes within the bounds its fields state, or it
is RemoteProtocolError; none is larger than 64 KiB encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from peerd.codec import WireCount, WireTerm, decode, encode
from peerd.gossip.items import BUCKET_COUNT, DIGEST_BYTES
from peerd.gossip.ports import GOSSIP_MESSAGE_MAX_BYTES
from peerd.gossip.records import Kind, Signed, Version

BATCH_MAX_BYTES: Final = GOSSIP_MESSAGE_MAX_BYTES - 4096
"""Room for the message around the items."""
ITEM_OVERHEAD_BYTES: Final = 64 + 24
"""The signature, the age, kind and the msgpack headers of one item."""
ITEMS_MAX: Final = 512
ENTRY_MAX_BYTES: Final = 29
ENTRIES_MAX: Final = 2200
"""× 29 bytes at most: 63.8 KB."""
WANTS_MAX: Final = 256
"""Asked for at once: at 300 bytes a record, the answer is 80 KB, so one or two messages."""

WireIdentity = Annotated[int, Meta(ge=0)]
WireMark = Annotated[int, Meta(ge=0, lt=1 << 32)]
Entry = tuple[WireIdentity, WireTerm, WireCount, WireMark]
Items = Annotated[tuple[Signed, ...], Meta(max_length=ITEMS_MAX)]
Buckets = Annotated[
    tuple[Annotated[int, Meta(ge=0, lt=BUCKET_COUNT)], ...], Meta(max_length=BUCKET_COUNT)
]


class _Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Deltas(_Message, frozen=True, tag=0):
    """Items the sender thinks are news."""

    items: Items


class Digest(_Message, frozen=True, tag=1):
    """The hashes of the sender's buckets; those from `first_bucket` on are asked about.

    Answered by Listing."""

    round: WireCount
    kind: Kind
    first_bucket: Annotated[int, Meta(ge=0, lt=BUCKET_COUNT)]
    hashes: Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class Listing(_Message, frozen=True, tag=2):
    """All the sender has in `buckets` (those that differ), or part of one that is named nowhere.

    Ask again from `next_bucket`; BUCKET_COUNT: that was all.
    """

    round: WireCount
    kind: Kind
    buckets: Buckets
    entries: Annotated[tuple[Entry, ...], Meta(max_length=ENTRIES_MAX)]
    next_bucket: Annotated[int, Meta(ge=0, le=BUCKET_COUNT)]


class Want(_Message, frozen=True, tag=3):
    """Asks for items by identity. Answered by one Answer."""

    round: WireCount
    kind: Kind
    items: Annotated[tuple[WireIdentity, ...], Meta(min_length=1, max_length=WANTS_MAX)]


class Answer(_Message, frozen=True, tag=4):
    """The items for the first `covered` identities of a Want (but for what is gone since)."""

    round: WireCount
    covered: Annotated[int, Meta(ge=1, le=WANTS_MAX)]
    items: Items


class Parting(_Message, frozen=True, tag=5):
    """The sender has too many neighbours and closes this connection; it is well otherwise."""


Message = Deltas | Digest | Listing | Want | Answer | Parting


def pack(message: Message) -> bytes:
    return encode(message)


def unpack(payload: bytes) -> Message:
    message: Message = decode(payload, _KIND, max_bytes=GOSSIP_MESSAGE_MAX_BYTES)
    return message


_KIND: Any = Message


def batches(items: Iterable[Signed]) -> Iterator[tuple[Signed, ...]]:
    """The items in their order, in batches that each fit a message."""
    batch: list[Signed] = []
    size_bytes = 0
    for item in items:
        item_bytes = len(item.body) + ITEM_OVERHEAD_BYTES
        if batch and (size_bytes + item_bytes > BATCH_MAX_BYTES or len(batch) == ITEMS_MAX):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item_bytes
    if batch:
        yield tuple(batch)


def version_of(entry: Entry) -> Version:
    return Version(*entry[1:])
