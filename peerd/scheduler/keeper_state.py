"""All that a keeper knows of one task that it keeps, and the few steps that every part shares.

Always: members are told no version before it is confirmed; whatever changes the leases or the
version also schedules a copy for the standbys; nothing here outlives the keeping: it is soft state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, TaskId, VersionId
from peerd.link.messages import (
    Access,
    KeeperState,
    LeaseGrant,
    LeaseKind,
    LeaseRevoked,
    Message,
    RosterPeer,
    RosterUpdate,
)
from peerd.manifest import VersionInfo
from peerd.scheduler.cell_state import CellState
from peerd.scheduler.keeper_alone import Alone
from peerd.scheduler.keeper_audits import Audits
from peerd.scheduler.keeper_events import KeeperAdvised, KeeperConfig, Order, Rng, Send, Timer
from peerd.scheduler.keeper_width import Width
from peerd.scheduler.leases import Lease, LeaseBook
from peerd.scheduler.ports import Member
from peerd.scheduler.roster import Entry, Roster
from peerd.task import TaskSpec, task_of_digest
from peerd.zones import seat_id

VALIDATED_NEVER_S = 1e9
"""Said of a version that this keeper never saw confirmed: the largest a message carries."""
RENEWED_PIECES = 4
"""A stream is renewed for so many pieces at a time. Guess."""
LEASES_TOLD_MAX = 256
MEMBERS_TOLD_MAX = 1024
GRANTED_TOLD_PIECES = 4096
"""512 bytes at most: a copy goes with every grant. Guess."""


class Doubt(Enum):
    """Why the version must be confirmed at the origin before it is used for something new."""

    NONE = "none"
    AGE = "old"
    CHANGED = "said to have changed"


@dataclass(slots=True, eq=False)
class Kept:
    """One task. `awaiting` are members of a former keeper that have not registered here yet, and
    `withheld` what they may hold or read (None: nobody knows); `rivals` may keep it meanwhile, and
    were asked; `failures` are those in a row, by peer; `claims`, by
    peer, say that the content changed; `voices` say who vouched for which version. `scope`: what is
    kept of it, a `zone`, a `cell` of either, or all; `wide` is the seat of what a cell is a part
    of. `took_s` is what the last leases of each zone's readers took, `readers` who read pieces
    last, and when (keeper_pace); `spread` are pieces that two hold, `rescued` those to be read anew
    (keeper_spread), `hedged` those granted though held (keeper_hedges); `bringers` ask to bring.
    """

    own: PeerId
    task: TaskId
    term: int
    config: KeeperConfig
    rng: Rng
    members: Mapping[PeerId, Member]
    out: list[Order]
    story: deque[str]
    roster: Roster
    book: LeaseBook
    audits: Audits
    width: Width
    wide: TaskId
    spec: TaskSpec | None = None
    scope: str = ""
    zone: str = ""
    cell: str = ""
    cells: CellState = field(default_factory=CellState)
    version: VersionInfo | None = None
    validated_at: float | None = None
    confirmed: bool = False
    doubt: Doubt = Doubt.NONE
    revalidate_at: float = -inf
    awaiting: set[PeerId] = field(default_factory=set)
    rivals: set[PeerId] = field(default_factory=set)
    withheld: int | None = None
    failures: dict[PeerId, tuple[str, str, float]] = field(default_factory=dict)
    claims: dict[PeerId, str] = field(default_factory=dict)
    voices: dict[PeerId, VersionId] = field(default_factory=dict)
    cooling: dict[PeerId, float] = field(default_factory=dict)
    lost: dict[PeerId, float] = field(default_factory=dict)
    unchecked: dict[PeerId, None] = field(default_factory=dict)
    checking: dict[PeerId, None] = field(default_factory=dict)
    unanswered: dict[PeerId, None] = field(default_factory=dict)
    bringers: dict[PeerId, None] = field(default_factory=dict)
    check_rounds: int = 0
    took_s: dict[str, deque[float]] = field(default_factory=dict)
    readers: dict[PeerId, float] = field(default_factory=dict)
    spread: int = 0
    rescued: int = 0
    hedged: int = 0
    alone: Alone = field(default_factory=Alone)
    advice: KeeperAdvised | None = None
    changes: deque[float] = field(default_factory=deque)
    resolving: bool = False
    timers: dict[Timer, float] = field(default_factory=dict)
    copied_at: float = -inf
    members_copied_at: float = -inf

    # --- words

    def say(self, now: float, words: str) -> None:
        self.story.append(f"{now:.3f} {words}")

    def send(self, peer: PeerId, message: Message) -> None:
        self.out.append(Send(peer, message))

    def wake(self, timer: Timer, at: float) -> None:
        """Sooner rather than later."""
        self.timers[timer] = min(at, self.timers.get(timer, inf))

    def deadline(self) -> float:
        slack_s = self.config.lease_slack_s
        at = min(self.timers.values(), default=inf)
        for lease in self.book.leases.values():
            at = min(at, lease.expires_at + slack_s)
        return at

    # --- the version

    @property
    def count(self) -> int | None:
        return None if self.version is None else self.version.piece_count

    @property
    def parallel(self) -> bool:
        """Whether extents can be read by several; else one reads one response."""
        return self.version is not None and self.version.ranged and self.count is not None

    @property
    def pinned(self) -> bool:
        """Whether a second reader can be sure to read the same version."""
        version = self.version
        return version is not None and (version.digest is not None or version.validator is not None)

    @property
    def resolved(self) -> bool:
        """Whether pieces of the version may be handed out to read."""
        return self.confirmed and self.doubt is not Doubt.CHANGED

    @property
    def finished(self) -> bool:
        """Whether members hold all of it together."""
        return self.roster.full is not None and self.roster.covered == self.roster.full

    def check_version(self, version: VersionInfo) -> VersionInfo:
        """The version itself, if it may be one of this task; RemoteProtocolError otherwise."""
        if self.zone:
            if seat_id(version.version, self.zone) != self.wide:
                raise RemoteProtocolError(f"version {version.version[:12]} has another seat")
            return version if version == self.version else version.verified()
        if version.task != self.wide:
            raise RemoteProtocolError(f"a version of task {version.task[:12]}, not this one")
        if self.spec is not None and self.spec.digest != version.digest:
            raise RemoteProtocolError(f"a version with digest {version.digest}")
        if version.digest is not None and self.wide != task_of_digest(version.digest):
            raise RemoteProtocolError(f"digest {version.digest} is not this task's")
        return version if version == self.version else version.verified()

    def set_version(self, version: VersionInfo, now: float, keep: Lease | None = None) -> None:
        """From now on this is the content; pieces of another version count no more."""
        old, self.version = self.version, version
        self.voices.setdefault(version.attester, version.version)
        if old is not None and fits(old, version) and old.ranged == version.ranged:
            if old.length_bytes is None and version.piece_count is not None:
                self.roster.ended(version.piece_count)
            return
        self.revoke_all(now, keep)
        self._begin(now)
        self.resolving = False
        self.say(now, f"version {version.version[:12]} of {version.piece_count} pieces")
        for entry in self.roster.entries.values():
            if entry.spare is not None and entry.spare[0] == version.version:
                self.roster.has(entry, entry.spare[1], now)

    def forget_version(self, now: float, words: str) -> None:
        """Nobody can go on with it: somebody has to resolve anew, and all start again."""
        self.say(now, f"version {self.version.version[:12] if self.version else '?'}: {words}")
        self.revoke_all(now)
        self.version, self.confirmed, self.doubt = None, False, Doubt.NONE
        self._begin(now)

    def _begin(self, now: float) -> None:
        count = self.count
        self.roster.begin(count)
        self.audits.begin(count, self.parallel)
        self.spread = self.rescued = self.hedged = 0
        self.withheld = None
        for asked in (self.unchecked, self.checking, self.unanswered):
            asked.clear()  # They hold another version.
        if self.parallel and count and not self.scope:
            self.book.cut(count, f"{self.own}/{self.task}")
        else:
            self.book.uncut()
        self.copy_soon(now)

    def push_version(self, now: float) -> None:
        """Tell it to all who wait for it or have another."""
        if self.version is None or not self.confirmed or self.doubt is Doubt.AGE:
            return
        update = RosterUpdate(self.task, self.term, self.version, (), ())
        for entry in self.roster.entries.values():
            if entry.told_version != self.version:
                entry.told_version = self.version
                self.send(entry.peer, update)
        for peer in self.listeners():
            if self.cells.told.get(peer) != self.version:
                self.cells.told[peer] = self.version
                self.send(peer, update)

    def listeners(self) -> list[PeerId]:
        """The keepers of cells that have delegates here, unless they are members themselves."""
        entries = self.roster.entries
        found = dict.fromkeys(x.cell_keeper for x in entries.values() if x.cell_keeper is not None)
        for peer in [x for x in self.cells.told if x not in found]:
            del self.cells.told[peer]
        return [peer for peer in found if peer not in entries]

    def age_s(self, now: float) -> float:
        if self.validated_at is None:
            return VALIDATED_NEVER_S
        return max(0.0, now - self.validated_at)

    # --- leases

    def grant(self, kind: LeaseKind, entry: Entry, first: int, count: int, now: float) -> Lease:
        expires_at = now + self.lease_s(entry, max(1, count))
        if kind is LeaseKind.RESOLVE and self.version is None:
            if self.resolving:
                self.book.count_again("resolve", 1)
            self.resolving = True
        lease = self.book.grant(kind, entry.peer, first, count, now, expires_at)
        self.line_up(entry, now)
        self.say(now, f"{kind.name} {first}+{count} to {entry.peer}")
        self.tell_lease(lease, now)
        self.wake(Timer.NAME, now + self.config.name_interval_s)
        self.wake(Timer.BEAT, now + self.config.beat_s)
        self.copy_soon(now)
        return lease

    def tell_lease(self, lease: Lease, now: float) -> None:
        # "Not modified" would not tell which of two members is right about the content.
        afresh = lease.kind is LeaseKind.RESOLVE and self.doubt is Doubt.CHANGED
        version = None if afresh else self.version
        self.send(lease.holder, LeaseGrant(self.task, self.term, lease.info(now), version))

    def lease_s(self, entry: Entry | None, pieces: int) -> float:
        """How long `entry` may take for so many pieces, after those it already has to read."""
        config = self.config
        if entry is None or entry.pace_s is None:
            return config.lease_default_s
        queued = pieces + sum(lease.count for lease in self.book.of(entry.peer))
        wanted = config.lease_margin * entry.pace_s * min(queued, 64)
        return max(config.lease_min_s, min(config.lease_max_s, wanted))

    def renew(self, entry: Entry, lease: Lease, now: float) -> None:
        """More time for a holder who gets on with it."""
        if lease.said_done:
            return
        if now - lease.made_at > self.config.lease_stall_max_s:
            self.say(now, f"{entry.peer} got nothing for long: not renewed")
            return
        more = RENEWED_PIECES if lease.kind is LeaseKind.STREAM else 0
        lease.expires_at = max(lease.expires_at, now + self.lease_s(entry, more))
        self.tell_lease(lease, now)
        self.copy_soon(now)

    def end_lease(self, lease: Lease, reason: str, now: float, *, unread: bool) -> None:
        """It is over; what nobody holds is to be read. `unread`: its holder says it did not."""
        left = lease.bits & ~self.roster.covered if lease.reads else 0
        self.book.end(lease)
        if lease.kind is LeaseKind.AUDIT:
            self.audits.give_up(lease.lease)
        if unread:
            self.book.granted &= ~left
        self.book.unread(left, reason)
        entry = self.roster.entries.get(lease.holder)
        if entry is not None:
            self.line_up(entry, now)
        self.copy_soon(now)

    def revoke(self, lease: Lease, reason: str, now: float) -> None:
        self.send(lease.holder, LeaseRevoked(self.task, self.term, lease.lease))
        self.end_lease(lease, reason, now, unread=False)

    def revoke_all(self, now: float, keep: Lease | None = None) -> None:
        for lease in list(self.book.leases.values()):
            if lease is not keep:
                self.revoke(lease, "version", now)

    def line_up(self, entry: Entry, now: float) -> None:
        """Whether it waits for a first lease may have changed."""
        held = len(self.book.by_holder.get(entry.peer, ()))
        self.roster.demand(entry, entry.room, held or int(entry.cool_until > now))

    def cool(self, entry: Entry, for_s: float, now: float) -> None:
        """Grant it nothing for a while."""
        entry.cool_until = self.cooling[entry.peer] = now + for_s
        self.wake(Timer.COOL, entry.cool_until)
        self.line_up(entry, now)

    def halted(self) -> bool:
        """Whether another may keep it meanwhile, and is still to say so."""
        return Timer.RIVALS in self.timers

    def paused(self) -> bool:
        """Whether members of a former keeper are still to say what they hold and read."""
        return Timer.PAUSE in self.timers

    # --- copies

    def copy_soon(self, now: float) -> None:
        self.wake(Timer.COPY, max(now, self.copied_at + self.config.copy_interval_s))

    def state(self, now: float, *, handover: bool, members: bool = True) -> KeeperState:
        entries = self.roster.entries.values()
        leases = [lease.info(now) for lease in self.book.reading()][:LEASES_TOLD_MAX]
        holders = [entry.peer for entry in entries if entry.complete][: self.config.holders_max]
        readers = list(self.book.by_holder)
        others = [entry.peer for entry in entries if entry.peer not in self.book.by_holder]
        return KeeperState(
            self.task, self.term, not handover, handover,
            self.version if self.confirmed else None,
            min(self.age_s(now), VALIDATED_NEVER_S), tuple(leases), tuple(holders),
            tuple([*readers, *others][:MEMBERS_TOLD_MAX]) if members else (),
            granted=self._granted(), enrolled=self.roster.others(self.own),
        )  # fmt: skip

    def _granted(self) -> bytes:
        """For who follows; with many pieces it is not told, for it goes with every copy."""
        count = self.count
        if not self.confirmed or not self.parallel or self.scope or not count:
            return b""
        if count > GRANTED_TOLD_PIECES:
            return b""
        bits = self.book.granted | self.roster.covered | (self.withheld or 0)
        return bits.to_bytes((count + 7) // 8, "little")

    def readers_named(self) -> tuple[RosterPeer, ...]:
        """A few who read now, or else who hold something: proof that waiting is worth it."""
        entries = self.roster.entries
        readers = [entries[peer] for peer in self.book.by_holder if peer in entries]
        if not readers:
            readers = [entry for entry in entries.values() if entry.bits]
        return tuple(entry.named() for entry in readers[:4])

    def unneeded_reads(self) -> dict[str, int]:
        """Pieces granted again, by reason, and reads to check what others said."""
        checks = {"audit": self.audits.pieces_audited, "dispute": self.audits.pieces_disputed,
                  "hedge": self.audits.pieces_hedged}  # fmt: skip
        return self.book.again | {reason: pieces for reason, pieces in checks.items() if pieces}

    def validate(self) -> None:
        self.roster.validate()
        self.book.validate()
        assert self.zone or self.version is None or self.version.task == self.wide
        assert self.version is not None or not (self.confirmed or self.roster.covered)
        for peer, entry in self.roster.entries.items():
            held = self.book.by_holder.get(peer, ())
            assert not (entry.access is Access.REFUSED and peer in self.roster.askers)
            waits = peer in self.roster.waiting or peer in self.roster.waiting_seeds
            assert not (held and waits), f"{peer} waits although it has a lease"
        for lease in self.audits.running:
            assert lease in self.book.leases, "an audit without a lease"
        assert set(self.lost) <= self.roster.entries.keys()


def fits(one: VersionInfo, other: VersionInfo) -> bool:
    """Whether pieces of the one are pieces of the other."""
    lengths = {one.length_bytes, other.length_bytes} - {None}
    same = one.version == other.version and one.piece_length_bytes == other.piece_length_bytes
    return same and len(lengths) < 2
