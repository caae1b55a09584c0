"""The signed items of one kind, by owner, with the 64 hashes that anti-entropy compares.

Always: at most `count_max` items; `digest()` depends on the owners and versions held alone, so two
tables with the same digest hold the same (but for hash collisions); an item's age grows with `now`.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from peerd.gossip.records import TTL_MAX_S, Kind, Signed, Version, item_id
from peerd.ids import PeerId

BUCKET_COUNT: Final = 64
"""64 × 8 bytes fit one packet; one new record among 1,000 then costs a list of 16."""
DIGEST_BYTES: Final = BUCKET_COUNT * 8


class Item(Struct, frozen=True):
    """One item as it is held. `born_at` is the moment of its signing, by our clock."""

    peer: PeerId
    version: Version
    body: bytes
    signature: bytes
    born_at: float


class ItemTable:
    def __init__(self, kind: Kind, count_max: int) -> None:
        self.kind = kind
        self.count_max = count_max
        self._items: dict[int, Item] = {}
        self._ids: dict[PeerId, int] = {}
        self._buckets: list[dict[int, int]] = [{} for _ in range(BUCKET_COUNT)]
        self._hashes = [0] * BUCKET_COUNT

    def __len__(self) -> int:
        return len(self._items)

    def full(self) -> bool:
        return len(self._items) >= self.count_max

    def get(self, peer: PeerId) -> Item | None:
        identity = self._ids.get(peer)
        return None if identity is None else self._items[identity]

    def version(self, identity: int) -> Version | None:
        item = self._items.get(identity)
        return None if item is None else item.version

    def owner(self, identity: int) -> PeerId | None:
        item = self._items.get(identity)
        return None if item is None else item.peer

    def put(self, item: Item) -> bool:
        """False, and nothing changes: no room, or another owner's id has the same 64 bits."""
        identity = item_id(item.peer)
        before = self._items.get(identity)
        if before is None and self.full():
            return False
        if before is not None and before.peer != item.peer:
            return False
        self._items[identity] = item
        self._ids[item.peer] = identity
        bucket = identity % BUCKET_COUNT
        entry = _entry_hash(identity, item.version)
        self._hashes[bucket] ^= self._buckets[bucket].get(identity, 0) ^ entry
        self._buckets[bucket][identity] = entry
        return True

    def remove(self, peer: PeerId) -> None:
        identity = self._ids.pop(peer, None)
        if identity is not None:
            del self._items[identity]
            bucket = identity % BUCKET_COUNT
            self._hashes[bucket] ^= self._buckets[bucket].pop(identity)

    def signed(self, peer: PeerId, now: float) -> Signed | None:
        """The item as it is to be sent now."""
        item = self.get(peer)
        if item is None:
            return None
        age_s = min(TTL_MAX_S, max(0.0, now - item.born_at))
        return Signed(self.kind, item.body, item.signature, round(age_s, 3))

    def digest(self) -> bytes:
        return b"".join(value.to_bytes(8, "big") for value in self._hashes)

    def differing(self, digest: bytes, first_bucket: int = 0) -> list[int]:
        """The buckets from `first_bucket` on in which the other table is not like ours."""
        return [
            bucket
            for bucket in range(first_bucket, BUCKET_COUNT)
            if self._hashes[bucket].to_bytes(8, "big") != digest[bucket * 8 : bucket * 8 + 8]
        ]

    def bucket(self, bucket: int) -> Iterator[tuple[int, Version]]:
        for identity in self._buckets[bucket]:
            yield identity, self._items[identity].version

    def validate(self) -> None:
        assert len(self._items) == len(self._ids) <= self.count_max
        for index, bucket in enumerate(self._buckets):
            expected = 0
            for identity, entry in bucket.items():
                assert identity % BUCKET_COUNT == index
                assert entry == _entry_hash(identity, self._items[identity].version)
                expected ^= entry
            assert expected == self._hashes[index]
        assert sum(map(len, self._buckets)) == len(self._items)


def _entry_hash(identity: int, version: Version) -> int:
    text = f"{identity}/{version.generation}/{version.counter}/{version.mark}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
