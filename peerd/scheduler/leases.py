"""The leases of one task that are outstanding, and the extents that wait for a reader.

Always: no two outstanding leases that read share a piece (audits may); a piece is in `leased`
exactly while such a lease covers it; a piece granted a second time is counted with its reason.
Sets of pieces are integers here, bit i for piece i: a grant must not cost a walk over all pieces.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from peerd.ids import LeaseId, PeerId, PieceIndex
from peerd.link.messages import LeaseInfo, LeaseKind
from peerd.pieces import PIECE_COUNT_MAX, extent_pieces
from peerd.rendezvous import weight

_ID_MAX = (1 << 53) - 1
READER_EXTENTS = 8
"""From a reader's place on so many are looked at for one to grant out of turn. Guess: as many as
one peer reads at once."""


def run_bits(first: int, count: int) -> int:
    """The set of pieces [first, first + count)."""
    return ((1 << count) - 1) << first


def lowest(bits: int) -> int:
    """The first piece of a set that is not empty."""
    return (bits & -bits).bit_length() - 1


def each(bits: int) -> Iterator[PieceIndex]:
    """The pieces of a set in order; cheap for few pieces only."""
    while bits:
        low = bits & -bits
        yield PieceIndex(low.bit_length() - 1)
        bits ^= low


@dataclass(slots=True, eq=False)
class Lease:
    """One outstanding lease. A STREAM without a known end has `count` 0 and no `bits`.

    `said_done`: it is not being used any more, but what came of its pieces is still to be heard.
    """

    lease: LeaseId
    kind: LeaseKind
    holder: PeerId
    first: int
    count: int
    granted_at: float
    expires_at: float
    made_at: float
    attested: int = 0
    said_done: bool = False

    @property
    def reads(self) -> bool:
        """Whether the lease reads what nobody else does."""
        return self.kind is not LeaseKind.AUDIT

    @property
    def bits(self) -> int:
        return run_bits(self.first, self.count)

    def covers(self, index: int) -> bool:
        if self.kind is LeaseKind.STREAM and self.count == 0:
            return self.first <= index < PIECE_COUNT_MAX
        return self.first <= index < self.first + self.count

    def info(self, now: float) -> LeaseInfo:
        left = max(0.0, self.expires_at - now)
        return LeaseInfo(self.lease, self.kind, self.holder, self.first, self.count, left)


@dataclass(slots=True, eq=False)
class _Pool:
    """Extents in the order in which this keeper grants them; `queued` are positions in it, `heap`
    has them, and some that were moved to the `end`."""

    extent: int
    order: dict[int, int]
    place: dict[int, int]
    heap: list[int]
    queued: set[int]
    end: int

    def push(self, extent: int, last: bool) -> None:
        position = self.place[extent]
        if position in self.queued and not last:
            return
        if last:
            self.queued.discard(position)  # And is skipped in the heap.
            del self.order[position]
            position, self.end = self.end, self.end + 1
            self.order[position], self.place[extent] = extent, position
        self.queued.add(position)
        heapq.heappush(self.heap, position)

    def take(self, extent: int) -> bool:
        """That one out of its turn; False if it does not wait."""
        position = self.place.get(extent, -1)
        if position not in self.queued:
            return False
        self.queued.discard(position)  # And is skipped in the heap.
        return True

    def pop(self) -> int:
        position = heapq.heappop(self.heap)
        while position not in self.queued:
            position = heapq.heappop(self.heap)
        self.queued.discard(position)
        return self.order[position]


class LeaseBook:
    """Grants and ends leases; decides nothing about who gets them."""

    def __init__(self, first_id: int) -> None:
        self.leases: dict[LeaseId, Lease] = {}
        self.by_holder: dict[PeerId, set[LeaseId]] = {}
        self.leased = 0
        self.granted = 0
        self.again: dict[str, int] = {}
        self._why: dict[str, int] = {}
        self._next_id = first_id
        self._pool: _Pool | None = None
        self._count = 0

    # --- extents

    def cut(self, count: int, key: str) -> None:
        """Start on a version of `count` pieces; `key` (keeper and task) seeds the order."""
        assert not self.leased, "extents are cut while none is being read"
        extent = extent_pieces(count)
        extents = range(-(-count // extent))
        order = sorted(extents, key=lambda number: weight(PeerId(str(number)), key))
        place = {number: position for position, number in enumerate(order)}
        places = range(len(order))
        self._pool = _Pool(
            extent, dict(enumerate(order)), place, list(places), set(places), len(order)
        )
        self._count = count
        self.granted = 0
        self._why = {}

    def uncut(self) -> None:
        """No version, or one without extents."""
        self._pool, self._count, self.granted, self._why = None, 0, 0, {}

    @property
    def drained(self) -> bool:
        """No extent waits (those that do may be covered meanwhile)."""
        return self._pool is None or not self._pool.queued

    @property
    def extents_waiting(self) -> int:
        return 0 if self._pool is None else len(self._pool.queued)

    def next_run(self, covered: int, reader_at: int | None = None) -> tuple[int, int] | None:
        """The next run of pieces, within one extent, that nobody holds or reads; of those that a
        reader waits for from there on the first, if they are to be granted yet."""
        pool = self._pool
        if pool is not None and reader_at is not None:
            number = reader_at // pool.extent
            for near in range(number, number + READER_EXTENTS):
                if self._free(pool, near, covered) and pool.take(near):
                    return self._run_of(pool, near, covered)
        while pool is not None and pool.queued:
            number = pool.pop()
            if self._free(pool, number, covered):
                return self._run_of(pool, number, covered)
        return None

    def _free(self, pool: _Pool, number: int, covered: int) -> int:
        """Pieces of that extent, from its first one on, that nobody holds or reads."""
        first = number * pool.extent
        size = max(0, min(pool.extent, self._count - first))
        return ((1 << size) - 1) & ~((covered | self.leased) >> first)

    def _run_of(self, pool: _Pool, number: int, covered: int) -> tuple[int, int]:
        """The first run of them; what is left of the extent waits for its next turn."""
        free = self._free(pool, number, covered)
        start = lowest(free)
        run = lowest(~(free >> start))
        if free >> (start + run):
            pool.push(number, last=False)
        return number * pool.extent + start, run

    def unread(self, bits: int, reason: str, *, last: bool = False) -> None:
        """These pieces are to be read (again); `reason` is counted when they are granted.

        `last`: after all others, for who holds them may come back.
        """
        if not bits:
            return
        self._why[reason] = self._why.get(reason, 0) | (bits & self.granted)
        if self._pool is None:
            return
        while bits:
            number = lowest(bits) // self._pool.extent
            self._pool.push(number, last)
            bits &= ~run_bits(number * self._pool.extent, self._pool.extent)

    # --- leases

    def grant(
        self, kind: LeaseKind, holder: PeerId, first: int, count: int, now: float, expires_at: float
    ) -> Lease:
        lease_id = LeaseId(self._next_id)
        self._next_id = min(self._next_id + 1, _ID_MAX)
        lease = Lease(lease_id, kind, holder, first, count, now, expires_at, now)
        if lease.reads:
            self._count_again(lease.bits)
        self._add(lease)
        return lease

    def adopt(self, info: LeaseInfo, now: float, expires_at: float) -> Lease | None:
        """A lease another keeper granted; None where its pieces are being read already."""
        lease = Lease(
            LeaseId(info.lease), info.kind, info.holder, info.first, info.count,
            -inf, expires_at, now,
        )  # fmt: skip
        if lease.bits & self.leased or not lease.reads:
            return None
        self._add(lease)
        self.granted |= lease.bits
        return lease

    def end(self, lease: Lease) -> None:
        del self.leases[lease.lease]
        mine = self.by_holder[lease.holder]
        mine.discard(lease.lease)
        if not mine:
            del self.by_holder[lease.holder]
        if lease.reads:
            self.leased &= ~lease.bits

    def reshape(self, lease: Lease, kind: LeaseKind, first: int, count: int) -> None:
        """A RESOLVE became what it turned out to be: piece 0, or the whole response."""
        assert lease.reads
        self.leased &= ~lease.bits
        lease.kind, lease.first, lease.count = kind, first, count
        overlap = lease.bits & self.leased
        assert not overlap, f"pieces {bin(overlap)} are being read"
        self._count_again(lease.bits)
        self.leased |= lease.bits

    def count_again(self, reason: str, pieces: int) -> None:
        self.again[reason] = self.again.get(reason, 0) + pieces

    def of(self, holder: PeerId) -> list[Lease]:
        return [self.leases[lease] for lease in sorted(self.by_holder.get(holder, ()))]

    def reading(self) -> list[Lease]:
        """All but audits."""
        return [lease for lease in self.leases.values() if lease.reads]

    def only(self, *kinds: LeaseKind) -> Lease | None:
        """An outstanding lease of one of these kinds."""
        return next((x for x in self.leases.values() if x.kind in kinds), None)

    def expired(self, now: float, slack_s: float) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.expires_at + slack_s <= now]

    def validate(self) -> None:
        seen = 0
        for lease in self.reading():
            assert not seen & lease.bits, f"lease {lease} reads what another does"
            seen |= lease.bits
        assert seen == self.leased, "leased pieces and leases differ"
        held = {lease for mine in self.by_holder.values() for lease in mine}
        assert held == set(self.leases), "leases by holder and leases differ"

    def _add(self, lease: Lease) -> None:
        self.leases[lease.lease] = lease
        self.by_holder.setdefault(lease.holder, set()).add(lease.lease)
        if lease.reads:
            self.leased |= lease.bits

    def _count_again(self, bits: int) -> None:
        twice = bits & self.granted
        self.granted |= bits
        for reason, why in self._why.items():
            if twice & why:
                self.count_again(reason, (twice & why).bit_count())
                self._why[reason] = why & ~twice
                twice &= ~why
        if twice:
            self.count_again("lost", twice.bit_count())
