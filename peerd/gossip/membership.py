"""Who belongs to the group: every peer's newest record, and which of them answer.

Always: a record is replaced by a greater Version alone; a record of ours that is greater than our
own makes us take a greater generation, so that no lost data directory and no clock set back
silences us; who left stays as a tombstone until no older record of it can be alive; `live` has this
peer, and nobody who left, expired or is marked unreachable. Expiry is not liveness. docs/adr/0009.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError
from peerd.gossip.items import Item, ItemTable
from peerd.gossip.records import (
    BODY_MAX_BYTES,
    GENERATION_MAX,
    TTL_MAX_S,
    Kind,
    Member,
    OwnFacts,
    PeerRecord,
    Signed,
    Version,
    check_own,
    mark_of,
    purpose_of,
    sign,
)
from peerd.ids import WIRE_VERSION, PeerId
from peerd.signing import SigningKey, verify

MEMBERS_MAX: Final = 20_000
"""Twice the 10,000 that design.md §5 bounds the memory for."""
REFRESH_MIN_S: Final = 60.0  # Guess: a few bytes a second among few peers.
REFRESH_PER_MEMBER_S: Final = 6.0
"""A flooded record of 300 bytes is sent by each peer to 6–8 neighbours: at 6 s of interval for
each member that is 0.4–0.6 KB/s at any size (tests/gossip/test_simulation.py)."""
REFRESH_MAX_S: Final = TTL_MAX_S / 3
TTL_MIN_S: Final = 300.0  # Guess: a dead peer among few is listed for five minutes.
TTL_INTERVALS: Final = 3  # Two announcements may be lost.
UNREACHABLE_FIRST_S: Final = 5.0  # Guess: a restart takes that long.
UNREACHABLE_MAX_S: Final = 300.0  # Guess.
CLAIM_FIRST_S: Final = 1.0  # Two clones outbid each other once a second at first,
CLAIM_MAX_S: Final = 64.0  # and hardly ever in the end.
CONFLICT_STRIKES: Final = 3
"""A stale record gives one strike at most if its age is right, and none if its owner is dead."""
RIVALS_MAX: Final = 8
BOOTS_MAX: Final = 16

Verify = Callable[[PeerId, str, bytes, bytes], bool]


class Rng(Protocol):
    """The part of random.Random that the cores of gossip use."""

    def random(self) -> float: ...


class Past(Struct, frozen=True):
    """What a data directory tells the next run, so that it is heard at once and knows itself."""

    generation: int = 0
    ttl_s: float = TTL_MIN_S
    boots: tuple[bytes, ...] = ()


class Place(NamedTuple):
    """Where a daemon with our identity is."""

    name: str
    addresses: tuple[str, ...]


class IdentityConflict(Struct, frozen=True):
    """Tell the operator: two daemons with one identity are alive, here and there."""

    ours: Place
    theirs: Place


class Heard(Enum):
    """What became of an item: known or newer is known; news, to be spread; about ourselves."""

    OLD = 0
    NEWS = 1
    OWN = 2


class Hearing(NamedTuple):
    """`same`: who told us has just what we have; `behind`: we have a newer one."""

    heard: Heard
    owner: PeerId
    generation: int
    same: bool = False
    behind: bool = False
    conflict: IdentityConflict | None = None


def heard_old(owner: PeerId, version: Version, known: Item | None) -> Hearing:
    """How an item stands to the one we know, before anything is done about it."""
    same = known is not None and known.version == version
    behind = known is not None and known.version > version
    return Hearing(Heard.OLD, owner, version.generation, same, behind)


class _Mark(NamedTuple):
    since: float
    until: float
    failures: int


class Membership:
    def __init__(
        self,
        key: SigningKey,
        facts: OwnFacts,
        *,
        boot: bytes,
        past: Past,
        wall_s: float,
        now: float,
        rng: Rng,
        verifier: Verify = verify,
        members_max: int = MEMBERS_MAX,
    ) -> None:
        self.peer = key.peer_id
        self.boot = boot
        self.facts = facts
        self.generation = min(GENERATION_MAX, max(past.generation + 1, int(wall_s)))
        self.ttl_s = min(TTL_MAX_S, max(TTL_MIN_S, past.ttl_s))
        self.left = False
        self.revision = 0
        self.table = ItemTable(Kind.RECORD, members_max)
        self._key = key
        self._rng = rng
        self._verify = verifier
        self._records: dict[PeerId, PeerRecord] = {}
        self._expires_at: dict[PeerId, float] = {}
        self._expiries: list[tuple[float, PeerId]] = []
        self._marks: dict[PeerId, _Mark] = {}
        self._live: list[Member] | None = None
        self._counter = -1
        self._earlier_boots = tuple(earlier for earlier in past.boots if earlier != boot)
        self._claim = self.generation
        self._claimed_at = now
        self._claim_pause_s = CLAIM_FIRST_S
        self._strikes: dict[bytes, int] = {}
        self._announce_at = now
        self.announce(now)

    # --- our own record

    def announce(self, now: float) -> None:
        """Signs our record anew; it is then the greatest that we know of ourselves."""
        if self._claim > self.generation:
            self.generation, self._counter = self._claim, -1
            self._claimed_at = now
        self._counter += 1
        self.ttl_s = min(TTL_MAX_S, max(self.ttl_s, TTL_INTERVALS * self._interval_s()))
        record = self.facts.record(
            self.peer, self.boot, self.generation, self._counter, self.ttl_s, self.left
        )
        check_own(record)
        body = encode(record)
        signed = sign(self._key, Kind.RECORD, body)
        self._store(record, Item(self.peer, _version(record, body), body, signed.signature, now))
        # Spread over half the interval: peers that started together do not announce together.
        self._share = 0.5 + 0.5 * self._rng.random()
        self._announced_at = now
        self._announce_at = float("inf")

    def announce_due_at(self) -> float:
        if self.left:
            return self._announce_at
        pause_s = min(self._share * self._interval_s(), self.ttl_s / 2)
        return min(self._announce_at, self._announced_at + pause_s)

    def update(self, facts: OwnFacts, now: float) -> bool:
        """Whether anything changed; the new record is then ready to be spread."""
        if facts == self.facts:
            return False
        self.facts = facts
        self.announce(now)
        return True

    def leave(self, now: float) -> None:
        self.left = True
        self.announce(now)

    def outrank(self, generation: int, now: float) -> None:
        """Something signed by us with a greater generation is about: take a greater one, soon."""
        self._claim = max(self._claim, min(GENERATION_MAX, generation + 1))
        self._announce_at = min(self._announce_at, max(now, self._claimed_at + self._claim_pause_s))

    def _interval_s(self) -> float:
        interval_s = max(REFRESH_MIN_S, REFRESH_PER_MEMBER_S * len(self.table))
        return min(REFRESH_MAX_S, interval_s)

    # --- what others say

    def hear(self, item: Signed, sender: PeerId, now: float) -> Hearing:
        """Takes in a record that `sender` relays; RemoteProtocolError if it should not have."""
        record: PeerRecord = decode(item.body, PeerRecord, max_bytes=BODY_MAX_BYTES)
        if record.wire != WIRE_VERSION or record.cluster != self.facts.cluster:
            raise RemoteProtocolError(
                f"{sender} relayed a record of cluster {record.cluster!r}, wire version "
                f"{record.wire}; here it is {self.facts.cluster!r}, {WIRE_VERSION}"
            )
        version = _version(record, item.body)
        known = self.table.get(record.peer)
        old = heard_old(record.peer, version, known)
        if item.age_s >= record.ttl_s or (known is not None and known.version >= version):
            return old
        if known is None and self.table.full():
            return old
        if not self._verify(record.peer, purpose_of(Kind.RECORD), item.body, item.signature):
            raise RemoteProtocolError(
                f"{sender} relayed a record of {record.peer} with a wrong signature"
            )
        born_at = now - item.age_s
        if record.peer == self.peer:
            return old._replace(heard=Heard.OWN, conflict=self._hear_own(record, born_at, now))
        fresh = Item(record.peer, version, item.body, item.signature, born_at)
        return old._replace(heard=Heard.NEWS) if self._store(record, fresh) else old

    def _hear_own(self, record: PeerRecord, born_at: float, now: float) -> IdentityConflict | None:
        """An earlier run's record outranks ours once; only a live rival outranks each new claim."""
        if self.left or record.generation < self._claim:
            return None
        strikes = 0
        if record.boot not in self._earlier_boots and born_at > self._claimed_at:
            strikes = self._strikes.get(record.boot, 0) + 1
            if record.boot in self._strikes or len(self._strikes) < RIVALS_MAX:
                self._strikes[record.boot] = strikes
            self._claim_pause_s = min(CLAIM_MAX_S, CLAIM_FIRST_S * 2**strikes)
        self.outrank(record.generation, now)
        if strikes != CONFLICT_STRIKES:
            return None
        return IdentityConflict(self.place(self.peer), _place(record))

    def place(self, peer: PeerId) -> Place:
        """Where a known peer is, for people."""
        return _place(self._records[peer])

    def _store(self, record: PeerRecord, item: Item) -> bool:
        before = self._records.get(record.peer)
        if not self.table.put(item):
            return False
        peer = record.peer
        self._records[peer] = record
        if peer != self.peer:
            # Never sooner than the record it replaces: that one must not come back after it.
            expires_at = max(item.born_at + record.ttl_s, self._expires_at.get(peer, item.born_at))
            self._expires_at[peer] = expires_at
            heappush(self._expiries, (expires_at, peer))
            self._bound_expiries()
        mark = self._marks.get(peer)
        if mark is not None and item.born_at > mark.since:
            del self._marks[peer]
            self._changed()
        if before is None or before.left != record.left or before.member() != record.member():
            self._changed()
        return True

    def _bound_expiries(self) -> None:
        """Each new record of a peer leaves a stale entry behind: rebuild before they pile up."""
        if len(self._expiries) > 2 * len(self._expires_at) + 64:
            self._expiries = [(at, peer) for peer, at in self._expires_at.items()]
            heapify(self._expiries)

    # --- time

    def deadline(self) -> float:
        expires_at = self._expiries[0][0] if self._expiries else float("inf")
        retry_at = min((mark.until for mark in self._marks.values()), default=float("inf"))
        return min(self.announce_due_at(), expires_at, retry_at)

    def expire(self, now: float) -> list[PeerId]:
        """Forgets whose time has run out, and lets in again who was unreachable long enough."""
        gone = []
        while self._expiries and self._expiries[0][0] <= now:
            expires_at, peer = heappop(self._expiries)
            if self._expires_at.get(peer) == expires_at:
                self._forget(peer)
                gone.append(peer)
        for peer, mark in self._marks.items():
            if mark.until <= now:
                self._marks[peer] = mark._replace(until=float("inf"))
                self._changed()
        return gone

    def _forget(self, peer: PeerId) -> None:
        self.table.remove(peer)
        del self._expires_at[peer]
        del self._records[peer]
        self._marks.pop(peer, None)
        self._changed()

    # --- who answers

    def unreachable(self, peer: PeerId, now: float) -> None:
        """Leaves it out of `live`, twice as long each time until it is reached again."""
        if peer == self.peer or peer not in self._records:
            return
        before = self._marks.get(peer)
        failures = 0 if before is None else before.failures
        if before is not None and self._out(peer):
            return
        pause_s = min(UNREACHABLE_MAX_S, UNREACHABLE_FIRST_S * 2 ** min(failures, 10))
        self._marks[peer] = _Mark(now, now + pause_s, failures + 1)
        self._changed()

    def reachable(self, peer: PeerId) -> None:
        if self._marks.pop(peer, None) is not None:
            self._changed()

    def _out(self, peer: PeerId) -> bool:
        mark = self._marks.get(peer)
        return mark is not None and mark.until != float("inf")

    # --- views

    def live(self) -> list[Member]:
        if self._live is None:
            self._live = [
                record.member()
                for peer, record in self._records.items()
                if peer == self.peer or not (record.left or self._out(peer))
            ]
        return self._live

    def is_live(self, peer: PeerId) -> bool:
        record = self._records.get(peer)
        return record is not None and not record.left and not self._out(peer)

    def record(self, peer: PeerId) -> PeerRecord | None:
        """The newest known, be it a tombstone."""
        return self._records.get(peer)

    def present(self, peer: PeerId) -> PeerRecord | None:
        """The record of a peer that has not left, be it reachable or not."""
        record = self._records.get(peer)
        return None if record is None or record.left else record

    def others(self) -> Iterable[PeerRecord]:
        """All who have not left, but for this peer."""
        return (
            record
            for peer, record in self._records.items()
            if peer != self.peer and not record.left
        )

    def past(self) -> Past:
        """What the next run must know of this one."""
        boots = (self.boot, *self._earlier_boots)
        return Past(self.generation, self.ttl_s, boots[:BOOTS_MAX])

    def _changed(self) -> None:
        self.revision += 1
        self._live = None

    def validate(self) -> None:
        self.table.validate()
        assert len(self._records) == len(self.table)
        assert set(self._expires_at) == set(self._records) - {self.peer}
        assert len(self._expiries) <= 2 * len(self._expires_at) + 64
        assert set(self._marks) <= set(self._expires_at)
        live = {member.peer for member in self.live()}
        assert self.peer in live
        for peer in live - {self.peer}:
            assert self.is_live(peer)
        own = self._records[self.peer]
        assert own.boot == self.boot
        assert own.generation <= self.generation


def _place(record: PeerRecord) -> Place:
    return Place(record.name, record.link_addresses + record.overlay_addresses)


def _version(record: PeerRecord, body: bytes) -> Version:
    return Version(record.generation, record.counter, mark_of(body))
