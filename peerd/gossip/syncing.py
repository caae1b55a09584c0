"""Anti-entropy: two neighbours compare what they hold and each gets what it lacks.

Always: we begin at most one sync at a time, and give it up after 5 s without an answer; what we
answer to others costs no state, and is bounded in bytes per second for each neighbour; every sync
ends, for each of its Digests asks about buckets behind those already listed.

    Digest → Listing → (Want → Answer)* → [Digest → …] → done; what the other lacks goes as Deltas.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from peerd.gossip.items import BUCKET_COUNT, ItemTable
from peerd.gossip.membership import Rng
from peerd.gossip.messages import (
    ENTRIES_MAX,
    ENTRY_MAX_BYTES,
    WANTS_MAX,
    Answer,
    Digest,
    Entry,
    Listing,
    Message,
    Want,
    batches,
    version_of,
)
from peerd.gossip.records import Kind
from peerd.ids import PeerId
from peerd.rate import TokenBucket
from peerd.units import MIB

PERIOD_S: Final = 30.0
"""Two digests of 512 bytes in 30 s are 34 bytes/s. What a lost batch left out comes then."""
ANSWER_TIMEOUT_S: Final = 5.0  # Guess: ten times a slow neighbour's answer.
SYNC_TIMEOUT_S: Final = 60.0
"""Guess: 20,000 records at 2 MB/s need 4 s; who dawdles must not keep us from others."""
GREETING_DELAY_S: Final = 1.0
"""Who is synced waits so long for a new neighbour to begin: a newcomer that pulls from one
neighbour is not pushed the same by all the others."""
ANSWERS_BYTES_S: Final = 2.0 * MIB
ANSWERS_BURST_BYTES: Final = 8.0 * MIB
"""Guess: 20,000 records at once; a 500-byte Digest must not buy 60 KiB of Listing for ever."""


class Sync(Struct):
    """A sync that we began."""

    peer: PeerId
    kind: Kind
    round: int
    until: float
    ends_at: float
    first_bucket: int = 0
    wanted: list[int] = []


class Syncing:
    def __init__(self, tables: dict[Kind, ItemTable], rng: Rng, now: float) -> None:
        self.records_done = False
        self._tables = tables
        self._rng = rng
        self._current: Sync | None = None
        self._due: dict[tuple[PeerId, Kind], float] = {}
        self._budgets: dict[PeerId, TokenBucket] = {}
        self._round = 0
        self._periodic_at = now + PERIOD_S * (0.5 + rng.random())

    # --- when

    def neighbour_up(self, peer: PeerId, now: float, *, greet: bool) -> None:
        """`greet`: we have had our own first syncs, and it may be a newcomer."""
        self._budgets[peer] = TokenBucket(ANSWERS_BYTES_S, ANSWERS_BURST_BYTES)
        delay_s = GREETING_DELAY_S * (0.3 + 0.7 * self._rng.random()) if greet else 0.0
        for kind in Kind:
            self._due[peer, kind] = now + delay_s

    def neighbour_down(self, peer: PeerId) -> None:
        self._budgets.pop(peer, None)
        for kind in Kind:
            self._due.pop((peer, kind), None)
        if self._current is not None and self._current.peer == peer:
            self._current = None

    def deadline(self) -> float:
        if self._current is not None:
            return self._current.until
        return min(min(self._due.values(), default=float("inf")), self._periodic_at)

    def expire(self, now: float) -> list[tuple[PeerId, Message]]:
        """Gives up who does not answer, begins what is due."""
        if self._current is not None:
            if now < self._current.until:
                return []
            self._due[self._current.peer, self._current.kind] = now + PERIOD_S
            self._current = None
        if now >= self._periodic_at:
            self._periodic_at = now + PERIOD_S * (0.5 + self._rng.random())
            neighbours = sorted(self._budgets)
            if neighbours:
                peer = neighbours[int(self._rng.random() * len(neighbours))]
                for kind in Kind:
                    self._due.setdefault((peer, kind), now)
        return self._begin(now)

    def _begin(self, now: float) -> list[tuple[PeerId, Message]]:
        due = [(kind, at, peer) for (peer, kind), at in self._due.items() if at <= now]
        if not due:
            return []
        # Records before holdings: these are refused as long as their owner is unknown.
        kind, _, peer = min(due)
        del self._due[peer, kind]
        self._round = (self._round + 1) % (1 << 30)
        self._current = Sync(peer, kind, self._round, now + ANSWER_TIMEOUT_S, now + SYNC_TIMEOUT_S)
        return [(peer, self._digest(self._current))]

    def _digest(self, sync: Sync) -> Digest:
        hashes = self._tables[sync.kind].digest()
        return Digest(sync.round, sync.kind, sync.first_bucket, hashes)

    def settled(self) -> bool:
        """Whether the records of all neighbours were compared with ours."""
        current = self._current
        return (
            self.records_done
            and (current is None or current.kind is not Kind.RECORD)
            and all(kind is not Kind.RECORD for _, kind in self._due)
        )

    # --- as the one who began

    def listing(
        self, peer: PeerId, message: Listing, now: float
    ) -> tuple[list[PeerId], list[tuple[PeerId, Message]]]:
        """Whose items the other lacks, and what to send next."""
        sync = self._current
        if sync is None or (sync.peer, sync.round, sync.kind) != _key(peer, message):
            return [], []
        table = self._tables[sync.kind]
        theirs = {entry[0]: version_of(entry) for entry in message.entries}
        sync.wanted = []
        for identity, version in theirs.items():
            ours = table.version(identity)
            if ours is None or ours < version:
                sync.wanted.append(identity)
        lacking = [
            identity
            for bucket in message.buckets
            for identity, version in table.bucket(bucket)
            if identity not in theirs or theirs[identity] < version
        ]
        sync.first_bucket = max(sync.first_bucket + 1, message.next_bucket)
        owners = [owner for identity in lacking if (owner := table.owner(identity)) is not None]
        return owners, self._next(sync, now)

    def answered(self, peer: PeerId, message: Answer, now: float) -> list[tuple[PeerId, Message]]:
        """Called after the items were taken in."""
        sync = self._current
        if sync is None or (sync.peer, sync.round) != (peer, message.round):
            return []
        del sync.wanted[: message.covered]
        return self._next(sync, now)

    def _next(self, sync: Sync, now: float) -> list[tuple[PeerId, Message]]:
        sync.until = min(now + ANSWER_TIMEOUT_S, sync.ends_at)
        if sync.wanted:
            wanted = tuple(sync.wanted[:WANTS_MAX])
            return [(sync.peer, Want(sync.round, sync.kind, wanted))]
        if sync.first_bucket < BUCKET_COUNT:
            return [(sync.peer, self._digest(sync))]
        self._current = None
        if sync.kind is Kind.RECORD:
            self.records_done = True
        return self._begin(now)

    # --- as the one who answers

    def digest(self, peer: PeerId, message: Digest, now: float) -> list[tuple[PeerId, Message]]:
        """The other began: no need that we do as well, unless we still lack a first sync."""
        if self.records_done:
            self._due.pop((peer, message.kind), None)
        table = self._tables[message.kind]
        entries: list[Entry] = []
        complete: list[int] = []
        next_bucket = BUCKET_COUNT
        for bucket in table.differing(message.hashes, message.first_bucket):
            found: list[Entry] = [
                (identity, *version) for identity, version in table.bucket(bucket)
            ]
            room = ENTRIES_MAX - len(entries)
            if len(found) <= room:
                complete.append(bucket)
                entries += found
            elif entries:
                next_bucket = bucket
                break
            else:
                # Larger than a message (identities can be ground into one bucket): a random part.
                start = int(self._rng.random() * len(found))
                entries = (found[start:] + found[:start])[:room]
                next_bucket = bucket + 1
                break
        listing = Listing(message.round, message.kind, tuple(complete), tuple(entries), next_bucket)
        return self._afford(peer, ENTRY_MAX_BYTES * len(entries), [(peer, listing)], now)

    def want(self, peer: PeerId, message: Want, now: float) -> list[tuple[PeerId, Message]]:
        table = self._tables[message.kind]
        owners = [table.owner(identity) for identity in message.items]
        found = [None if owner is None else table.signed(owner, now) for owner in owners]
        first = next(batches(item for item in found if item is not None), ())
        covered = len(found)
        if first:
            # Up to the last item that had room, and over what is gone.
            sent = 0
            for position, item in enumerate(found):
                if item is not None and sent == len(first):
                    covered = position
                    break
                sent += item is not None
        answer = Answer(message.round, covered, first)
        size_bytes = sum(len(item.body) for item in first)
        return self._afford(peer, size_bytes, [(peer, answer)], now)

    def _afford(
        self,
        peer: PeerId,
        size_bytes: int,
        sends: list[tuple[PeerId, Message]],
        now: float,
    ) -> list[tuple[PeerId, Message]]:
        budget = self._budgets.get(peer)
        if budget is None or budget.take(0, now) > 0:
            return []
        budget.take(512 + size_bytes, now)
        return sends


def _key(peer: PeerId, message: Listing) -> tuple[PeerId, int, Kind]:
    return peer, message.round, message.kind
