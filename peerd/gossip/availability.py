"""What each peer holds, coarsely: a Bloom filter of its tasks, and those it is fetching.

Always: a peer's holdings count only beside a record of the same generation, so that what an earlier
run held, and what its owner withdrew or left behind, does not come back; a filter has at most 1 KiB
and the holdings of one peer at most 1.9 KB. False positives: 1 in 100 up to 819 tasks, 1 in 11
at 1,638; of more tasks the newest 1,638 are said. docs/adr/0009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from peerd.codec import WireCount, WirePeerId, WireTerm, decode, encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.items import Item, ItemTable
from peerd.gossip.membership import MEMBERS_MAX, Heard, Hearing, Verify, heard_old
from peerd.gossip.records import (
    BODY_MAX_BYTES,
    Kind,
    PeerRecord,
    Signed,
    Version,
    mark_of,
    purpose_of,
    sign,
)
from peerd.ids import PeerId, TaskId
from peerd.signing import SigningKey, verify

BLOOM_MAX_BYTES: Final = 1024
BLOOM_BITS_PER_TASK: Final = 10
"""0.8 % false positives with 7 hashes (Bloom 1970; m/n = 10, k = 0.69 · m/n)."""
BLOOM_TASKS_MAX: Final = 8 * BLOOM_MAX_BYTES // 5
"""At 5 bits a task 9 % are false: fuller filters would say nothing."""
HASHES_MAX: Final = 8
ACTIVE_MAX: Final = 16
PROGRESS_STEP_PERCENT: Final = 10
"""Coarse on purpose: gossip never drives piece requests, and each step costs a flood."""

ACTIVE_ENTRY_BYTES: Final = 33
"""A task id and its progress in percent. Packed: tuples of them would cost 120 bytes each."""


class Holdings(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One peer's filter and active tasks (newest first), both views into the signed body: ten
    thousand peers' copies would not fit the 64 MB of design.md §5."""

    peer: WirePeerId
    generation: WireTerm
    counter: WireCount
    hashes: Annotated[int, Meta(ge=1, le=HASHES_MAX)]
    bloom: Annotated[memoryview, Meta(max_length=BLOOM_MAX_BYTES)]
    active: Annotated[memoryview, Meta(max_length=ACTIVE_MAX * ACTIVE_ENTRY_BYTES)]

    def progress(self) -> dict[bytes, int]:
        """The active tasks with their progress in percent; a part of an entry counts as none."""
        starts = range(0, len(self.active) - ACTIVE_ENTRY_BYTES + 1, ACTIVE_ENTRY_BYTES)
        return {bytes(self.active[i : i + 32]): min(100, self.active[i + 32]) for i in starts}

    def may_hold(self, task: bytes) -> bool:
        if len(self.bloom) and all(
            self.bloom[bit >> 3] >> (bit & 7) & 1
            for bit in _bits(task, self.hashes, 8 * len(self.bloom))
        ):
            return True
        active = bytes(self.active)
        at = active.find(task)
        while at > 0 and at % ACTIVE_ENTRY_BYTES:
            at = active.find(task, at + 1)
        return at >= 0


def _bits(task: bytes, hashes: int, bit_count: int) -> list[int]:
    """A task id is a hash already: two halves of it give all (Kirsch & Mitzenmacher 2006)."""
    first = int.from_bytes(task[:8], "big")
    step = int.from_bytes(task[8:16], "big") | 1
    return [(first + i * step) % bit_count for i in range(hashes)]


def bloom_of(tasks: Sequence[bytes]) -> tuple[int, bytes]:
    """(hashes, filter) for these tasks; the filter is as small as the rate allows."""
    if not tasks:
        return 1, b""
    size_bytes = 8
    while 8 * size_bytes < BLOOM_BITS_PER_TASK * len(tasks) and size_bytes < BLOOM_MAX_BYTES:
        size_bytes *= 2
    hashes = max(1, min(HASHES_MAX, round(0.69 * 8 * size_bytes / len(tasks))))
    bloom = bytearray(size_bytes)
    for task in tasks:
        for bit in _bits(task, hashes, 8 * size_bytes):
            bloom[bit >> 3] |= 1 << (bit & 7)
    return hashes, bytes(bloom)


class Availability:
    def __init__(
        self, key: SigningKey, *, verifier: Verify = verify, members_max: int = MEMBERS_MAX
    ) -> None:
        self.peer = key.peer_id
        self.table = ItemTable(Kind.HOLDINGS, members_max)
        self._key = key
        self._verify = verifier
        self._holdings: dict[PeerId, Holdings] = {}

    def announce(
        self,
        generation: int,
        tasks: Sequence[TaskId],
        active: Sequence[tuple[TaskId, float]],
        now: float,
    ) -> bool:
        """Signs what we hold (newest first), if it is not what we said last in this generation."""
        hashes, bloom = bloom_of([bytes.fromhex(task) for task in tasks[:BLOOM_TASKS_MAX]])
        doing = b"".join(
            bytes.fromhex(task) + bytes([_percent(done)]) for task, done in active[:ACTIVE_MAX]
        )
        before = self._holdings.get(self.peer)
        if before is None and not tasks and not active:
            return False
        if before is not None and before.generation == generation:
            if before.hashes == hashes and before.bloom == bloom and before.active == doing:
                return False
            counter = before.counter + 1
        else:
            counter = 0
        holdings = Holdings(
            self.peer, generation, counter, hashes, memoryview(bloom), memoryview(doing)
        )
        body = encode(holdings)
        signed = sign(self._key, Kind.HOLDINGS, body)
        version = Version(generation, counter, mark_of(body))
        self._store(holdings, Item(self.peer, version, body, signed.signature, now))
        return True

    def hear(
        self,
        item: Signed,
        sender: PeerId,
        record_of: Callable[[PeerId], PeerRecord | None],
        now: float,
    ) -> Hearing:
        """Takes in holdings that `sender` relays; RemoteProtocolError if it should not have.

        Without a record of their owner they are dropped: records come first, and anti-entropy
        brings the holdings again.
        """
        holdings: Holdings = decode(item.body, Holdings, max_bytes=BODY_MAX_BYTES)
        version = Version(holdings.generation, holdings.counter, mark_of(item.body))
        known = self.table.get(holdings.peer)
        record = record_of(holdings.peer)
        old = heard_old(holdings.peer, version, known)
        if record is None or record.left or holdings.generation < record.generation:
            return old
        if known is not None and known.version >= version:
            return old
        if not self._verify(holdings.peer, purpose_of(Kind.HOLDINGS), item.body, item.signature):
            raise RemoteProtocolError(
                f"{sender} relayed holdings of {holdings.peer} with a wrong signature"
            )
        if holdings.peer == self.peer:
            return old._replace(heard=Heard.OWN)
        fresh = Item(holdings.peer, version, item.body, item.signature, now - item.age_s)
        return old._replace(heard=Heard.NEWS) if self._store(holdings, fresh) else old

    def _store(self, holdings: Holdings, item: Item) -> bool:
        if not self.table.put(item):
            return False
        self._holdings[holdings.peer] = holdings
        return True

    def record_changed(self, peer: PeerId, record: PeerRecord | None) -> None:
        """The owner left, expired, or is in a new run: what it held before counts no more."""
        holdings = self._holdings.get(peer)
        if holdings is None:
            return
        if record is None or record.left or record.generation > holdings.generation:
            self.table.remove(peer)
            del self._holdings[peer]

    def of(self, peer: PeerId) -> Holdings | None:
        return self._holdings.get(peer)

    def holders(
        self, task: TaskId, record_of: Callable[[PeerId], PeerRecord | None]
    ) -> list[PeerId]:
        """Who says that it holds or fetches the task, but for ourselves. May be wrong."""
        name = bytes.fromhex(task)
        return [
            peer
            for peer, holdings in self._holdings.items()
            if peer != self.peer and holdings.may_hold(name) and _counts(holdings, record_of(peer))
        ]

    def validate(self) -> None:
        self.table.validate()
        assert len(self._holdings) == len(self.table)


def _counts(holdings: Holdings, record: PeerRecord | None) -> bool:
    return record is not None and holdings.generation == record.generation


def _percent(progress: float) -> int:
    percent = int(100 * max(0.0, min(1.0, progress)))
    return percent - percent % PROGRESS_STEP_PERCENT
