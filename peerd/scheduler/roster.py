"""Who is in the swarm of one task or holds it, as its keeper knows, and what they hold together.

Always: once settled, `covered` is the union of what the members hold of the current version, those
that lied left out; a peer is in a waiting line exactly if it asked for leases and has none; nobody
is named to itself. Sets of pieces are integers (leases.py); sets that are walked are dicts, so that
the same seed gives the same run.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, VersionId
from peerd.link.messages import Access, RosterPeer
from peerd.manifest import VersionInfo
from peerd.pieces import PIECE_COUNT_MAX
from peerd.scheduler.keeper_events import KeeperConfig, Rng
from peerd.scheduler.ports import STALLS

FRESH_S = 2.0
"""Attested pieces count as held that long although a bitmap says otherwise: it may be older than
the report, or the commit (design.md, section 7: 20 ms) may be late."""
MASKED_S = 2.0
"""After a verdict, bitmaps from before it may still arrive that long: four report intervals."""


COMPLAINTS_ENOUGH = 2
"""Members that have to complain about a holder. Guess."""
FORMER_MAX = 256
"""Members that left of whom it is remembered how they read. Guess."""
SLOW_ITSELF_S = 60.0
"""Who says of most holders that they stall, and got anything within that time, is slow itself. A
piece needs 10 s at 1 % of 20 Mbit/s, and five come side by side. Guess."""


def parse_bitmap(data: bytes, count: int | None) -> int:
    """The set a wire bitmap stands for; RemoteProtocolError where it does not fit the version."""
    if count is None:
        if len(data) * 8 > PIECE_COUNT_MAX:
            raise RemoteProtocolError(f"a bitmap of {len(data)} bytes")
        return int.from_bytes(data, "little")
    bits = int.from_bytes(data, "little")
    if len(data) != (count + 7) // 8 or bits >> count:
        raise RemoteProtocolError(f"a bitmap of {len(data)} bytes for {count} pieces")
    return bits


@dataclass(slots=True, eq=False)
class Entry:
    """One peer on the roster. `bits`: what it holds of the current version; `spare`: of another.

    `read`: what of it it read for this keeper, but for what is `stuck`: nobody else had that for
    long; `alone_mark`: what nobody else had, and when.
    `seen`, `unmet`, `unmet_since`: what it would bring over the border, what of it others are said
    to hold on this side, and since when it has asked for that and got nothing; `grew_at`: when it
    last held more than before.
    `stalled_by`: those of whom it said that they stall; `brings_more`: extents at once, above the
    first few;
    `heard_at`: when it last said anything to this keeper;
    `reader_at`: somebody there reads along from that piece on, and waits;
    `cell_keeper`: of the cell that it stands for; `outside`: those of others that it was told of.
    """

    peer: PeerId
    addresses: tuple[str, ...]
    zone: str
    seed: bool
    wants: bool
    access: Access
    enrolled_at: float
    heard_at: float
    bits: int = 0
    fresh: int = 0
    fresh_at: float = -1e9
    complete: bool = False
    room: int = 0
    lost_at: float | None = None
    cool_until: float = -1e9
    failures: int = 0
    pace_s: float | None = None
    made_at: float = -1e9
    read: int = 0
    stuck: int = 0
    alone_mark: tuple[float, int] = (-1e9, 0)
    spare: tuple[VersionId, int] | None = None
    told: set[PeerId] = field(default_factory=set)
    named_to: int = 0
    told_version: VersionInfo | None = None
    seen: int = 0
    unmet_since: float | None = None
    unmet: int = 0
    grew_at: float = -1e9
    cell_keeper: PeerId | None = None
    outside: set[PeerId] = field(default_factory=set)
    stalled_by: set[PeerId] = field(default_factory=set)
    brings_more: int = 0
    reader_at: int | None = None

    def named(self) -> RosterPeer:
        return RosterPeer(
            self.peer, self.addresses, self.zone, self.bits.bit_count(), self.complete, self.seed
        )


class Roster:
    """The members of one task. Whether a lost one is gone is its keeper's decision."""

    def __init__(self, config: KeeperConfig, rng: Rng) -> None:
        self.entries: dict[PeerId, Entry] = {}
        self.full: int | None = None
        self.waiting_seeds: dict[PeerId, None] = {}
        self.waiting: dict[PeerId, None] = {}
        self.askers: dict[PeerId, None] = {}
        self.liars: dict[PeerId, str] = {}
        self.shunned: dict[PeerId, str] = {}
        self._complaints: dict[PeerId, dict[PeerId, None]] = {}
        self.short_of_peers: dict[PeerId, None] = {}
        self._config = config
        self._rng = rng
        self.covered = 0
        self._stale = False
        self._masked = 0
        self._mask_until = -1e9
        self._names: list[PeerId] = []
        self._place: dict[PeerId, int] = {}
        self._former: OrderedDict[PeerId, tuple[float | None, int]] = OrderedDict()

    # --- who is here

    def add(self, entry: Entry) -> None:
        assert entry.peer not in self.entries
        self.entries[entry.peer] = entry
        # Whose link is slow is lost now and then, and comes back no faster.
        entry.pace_s, entry.failures = self._former.pop(entry.peer, (None, 0))
        self._place[entry.peer] = len(self._names)
        self._names.append(entry.peer)
        self.short_of_peers.setdefault(entry.peer)

    def remove(self, peer: PeerId) -> Entry | None:
        entry = self.entries.pop(peer, None)
        if entry is None:
            return None
        place, last = self._place.pop(peer), self._names.pop()
        if last != peer:
            self._names[place] = last
            self._place[last] = place
        self._former[peer] = (entry.pace_s, entry.failures)
        if len(self._former) > FORMER_MAX:
            self._former.popitem(last=False)
        if entry.bits:
            self._stale = True
        self._complaints.pop(peer, None)
        self.shunned.pop(peer, None)
        self.short_of_peers.pop(peer, None)
        self.demand(entry, 0, held=0)
        return entry

    def demand(self, entry: Entry, room: int, held: int) -> None:
        """Standing demand: `entry` wants to hold `room` leases and holds `held`."""
        entry.room = room
        if room and entry.access is not Access.REFUSED and self.trusted(entry.peer):
            self.askers.setdefault(entry.peer)
        else:
            self.askers.pop(entry.peer, None)
        line, other = self.waiting, self.waiting_seeds
        if entry.seed:
            line, other = other, line
        other.pop(entry.peer, None)
        if entry.peer in self.askers and not held:
            line.setdefault(entry.peer)
        else:
            line.pop(entry.peer, None)

    def others(self, *but: PeerId) -> int:
        """How many there are besides these."""
        return len(self.entries) - sum(peer in self.entries for peer in but)

    def wanting(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.wants and not entry.complete]

    # --- what they hold

    def begin(self, count: int | None) -> None:
        """A version of `count` pieces (None: not known yet) that nobody is known to hold."""
        self.full = None if count is None else (1 << count) - 1
        self.covered, self._stale, self._masked = 0, False, 0
        for entry in self.entries.values():
            entry.bits = entry.fresh = entry.read = entry.stuck = 0
            entry.complete = self.full == 0

    def ended(self, count: int) -> None:
        """The length is known now: the same pieces, and no others."""
        self.full = (1 << count) - 1
        self._stale = True
        for entry in self.entries.values():
            self._hold(entry, entry.bits & self.full)

    def has(self, entry: Entry, bits: int, now: float) -> None:
        """What `entry` says it holds; what it attested just now may not be in it yet."""
        if now < self._mask_until:
            bits &= ~self._masked
        if now - entry.fresh_at < FRESH_S:
            bits |= entry.fresh
        if bits & ~entry.bits:
            entry.grew_at = now
        self._hold(entry, bits)

    def attested(self, entry: Entry, bits: int, now: float) -> None:
        """`entry` read these pieces, so it holds them."""
        if now - entry.fresh_at >= FRESH_S:
            entry.fresh = 0
        entry.fresh |= bits
        entry.fresh_at = now
        self._hold(entry, entry.bits | bits)

    def convict(self, liar: PeerId, bits: int, words: str, now: float) -> None:
        """`liar` vouched wrongly for these pieces: nobody holds them any more."""
        if len(self.liars) < self._config.liars_max:
            self.liars[liar] = words
        self._masked = bits | (self._masked if now < self._mask_until else 0)
        self._mask_until = now + MASKED_S
        for entry in self.entries.values():
            entry.fresh &= ~bits
            self._hold(entry, entry.bits & ~bits)
        if liar in self.entries:
            self.demand(self.entries[liar], 0, held=0)
        self._stale = True

    def trusted(self, peer: PeerId) -> bool:
        """Whether what it holds counts: it neither lied nor fails those who ask it."""
        return peer not in self.liars and peer not in self.shunned

    def complain(self, by: Entry, about: PeerId, words: str, now: float) -> bool:
        """`by` gets nothing right from `about`. Whether that makes it shunned now.

        Two have to say so, or the only one who wants anything: one liar alone cannot have content
        read again that others hold. One of them is of its own zone, if anybody there wants it too.
        """
        entry = self.entries.get(about)
        if entry is None or about == by.peer or about in self.shunned:
            return False
        if words == STALLS and self._slow_itself(by, about, now):
            return False
        voices = self._complaints.setdefault(about, {})
        voices.setdefault(by.peer)
        others = sum(1 for each in self.wanting() if each.peer != about)
        if len(voices) < min(COMPLAINTS_ENOUGH, max(1, others)):
            return False
        near = {x.peer for x in self.wanting() if x.zone == entry.zone and x.peer != about}
        if near and not near & voices.keys():
            return False  # Those who fetch over the same border as each other: it is the border.
        if len(self.shunned) >= self._config.liars_max:
            return False
        self.shunned[about] = words
        self.demand(entry, 0, held=0)
        self._stale = True
        return True

    def _slow_itself(self, by: Entry, about: PeerId, now: float) -> bool:
        """Whether several stall, most of all, for one that gets pieces meanwhile."""
        by.stalled_by = (by.stalled_by & self.entries.keys()) | {about}
        holders = [each.peer for each in self.entries.values() if each.bits and each is not by]
        stall = sum(1 for peer in holders if peer in by.stalled_by)
        lately = now - max(by.grew_at, by.enrolled_at) < SLOW_ITSELF_S
        return lately and stall > 1 and 2 * stall > len(holders)

    def settle(self) -> int:
        """Bring `covered` up to date; returns the pieces that nobody holds any more.

        Only a loss makes this a walk over the roster.
        """
        if not self._stale:
            return 0
        before, self._stale, self.covered = self.covered, False, 0
        for entry in self.entries.values():
            if self.trusted(entry.peer):
                self.covered |= entry.bits
                if self.covered == self.full:
                    break
        return before & ~self.covered

    def _hold(self, entry: Entry, bits: int) -> None:
        if entry.bits & ~bits:
            self._stale = True
        entry.bits = bits
        entry.complete = bits == self.full
        if not self._stale and self.trusted(entry.peer):
            self.covered |= bits

    # --- who is told of whom

    def choose(self, entry: Entry, most: int) -> list[Entry]:
        """Members to name to `entry` that it was not told of: its zone first, then those who have
        something, then those whom the fewest know: newcomers find others with links to spare."""
        names = self._names
        sample = names if len(names) <= 2 * most else self._rng.sample(names, 2 * most)
        fit = [
            self.entries[peer]
            for peer in sample
            if peer != entry.peer and peer not in entry.told and self.trusted(peer)
            and self.entries[peer].lost_at is None
        ]  # fmt: skip
        order = self._rng.sample(fit, len(fit))
        order.sort(key=lambda other: (other.zone != entry.zone, not other.bits, other.named_to))
        return order[:most]

    def tell(self, entry: Entry, others: list[Entry]) -> None:
        """Remember who was named to whom."""
        entry.told.update(other.peer for other in others)
        for other in others:
            other.named_to += 1
        if len(entry.told) < self._config.told_enough:
            self.short_of_peers.setdefault(entry.peer)
        else:
            self.short_of_peers.pop(entry.peer, None)

    def untell(self, peer: PeerId) -> list[Entry]:
        """Those who were told of `peer`, which is gone; they may need others."""
        told = [entry for entry in self.entries.values() if peer in entry.told]
        for entry in told:
            entry.told.discard(peer)
            if len(entry.told) < self._config.told_enough:
                self.short_of_peers.setdefault(entry.peer)
        return told

    def validate(self) -> None:
        union = 0
        for entry in self.entries.values():
            assert entry.peer not in entry.told, "told of itself"
            assert self.full is None or not entry.bits & ~self.full, "holds what is not there"
            assert entry.complete == (entry.bits == self.full), f"{entry.peer} complete?"
            if self.trusted(entry.peer):
                union |= entry.bits
        assert self._stale or union == self.covered, "covered is not what the members hold"
        assert set(self._names) == set(self.entries) == set(self._place)
        assert (self.waiting.keys() | self.waiting_seeds.keys()) <= self.askers.keys()
        assert self.askers.keys() <= self.entries.keys()
