"""What a keeper hears, what it orders, what it waits for, and its figures. The core is keeper.py.

Always: events and orders are frozen; a KeeperConfig is the same for the life of a core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from peerd.ids import PeerId, TaskId
from peerd.link.messages import Enrolled, Message, RosterUpdate, Unreadable, Verdict
from peerd.scheduler.ports import Member

Item = TypeVar("Item")


class Rng(Protocol):
    """The part of random.Random that the cores use; seeded by whoever builds them."""

    def random(self) -> float: ...
    def getrandbits(self, k: int, /) -> int: ...
    def sample(self, population: Sequence[Item], k: int) -> list[Item]: ...


@dataclass(frozen=True, slots=True)
class MessageFrom:
    """One of messages.TO_KEEPER arrived from a proven peer (or from this one, looped back)."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link to `peer` closed; it may come back."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class LinksLate:
    """Over the links to these peers answers take seconds now."""

    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class KeeperLate:
    """Answers of `peer`, that keeps something, take seconds now, and others' do not."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Undelivered:
    """`peer` could not be dialled: what was sent to it is lost, and it counts as dead for now."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """The group as membership sees it now. Unless `synced` this peer keeps nothing yet."""

    members: tuple[Member, ...]
    synced: bool


@dataclass(frozen=True, slots=True)
class KeeperAdvised:
    """The scheduler's leader says whom to grant reads after all others, and how many may read at
    once (0: as you find best); good until then."""

    task: TaskId
    last: frozenset[PeerId]
    readers: int
    until: float
    by: str


@dataclass(frozen=True, slots=True)
class Hinted:
    """Gossip says that these peers may hold the task (a Bloom filter: may be wrong)."""

    task: TaskId
    peers: tuple[PeerId, ...]


News = Enrolled | RosterUpdate | Verdict | Unreadable
"""What a cell's keeper hears from the wider one."""


@dataclass(frozen=True, slots=True)
class NewsFrom:
    """What another keeper says of a seat of which this peer keeps a cell."""

    peer: PeerId
    message: News


Event = (
    MessageFrom
    | LinkLost
    | LinksLate
    | KeeperLate
    | Undelivered
    | MembersChanged
    | Hinted
    | NewsFrom
    | KeeperAdvised
)


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver `message` to `peer`: dial if no link is up, loop it back if it is this peer itself.

    Where dialling fails, answer with Undelivered.
    """

    peer: PeerId
    message: Message


Order = Send


class Timer(Enum):
    """What a kept task waits for, beside the ends of leases."""

    PAUSE = "members to register again"
    RIVALS = "others to say that they keep it, after this process stood still"
    BEAT = "the next second, so that a standstill shows, while leases are out"
    CHECK = "registered holders to answer"
    LOST = "a lost member to come back"
    COOL = "a failed reader's pause to end"
    OVERDUE = "the time to look for leases that others would have read"
    JUDGE = "somebody else to ask for leases"
    TELL = "news to be gathered for the members"
    NAME = "waiting members to be told who reads"
    COPY = "changes to be gathered for the standbys"
    BETTER = "the time to ask better-ranked members again"
    IDLE = "anybody to come"


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """Every figure of a keeper, with its source."""

    readers_first: int = 12  # reference/peers.md: 8–16 at once for 8 to 64 peers, all together.
    readers_min: int = 8  # The same; fewer do not spread what they read fast enough.
    readers_max: int = 24  # Guess: what a gigabit origin can give to peers of 50 Mbit/s.
    bringers_max: int = 12  # As `readers_first`.
    ramp_first: int = 2  # Reads at once before a piece is there. Simulated: 24 are 24 pieces' time.
    leases_each_min: int = 2  # One being read, one queued: no round trip between extents.
    leases_each_max: int = 8  # Alone, eight keep an origin busy (Guess; peers.md: 8 readers).
    leases_all_wanted: int = 16  # Few readers share this many. peers.md: up to 16 reads at once.

    lease_default_s: float = 4.0  # Guess, until a holder's pace is known.
    lease_min_s: float = 2.0  # Guess: some round trips and a scheduling hiccup.
    lease_max_s: float = 30.0  # Guess: what a dead reader may hold up at most.
    lease_margin: float = 3.0  # Guess: a lease lasts this many times the expected time.
    lease_slack_s: float = 0.5  # Transit of a grant: its holder's deadline is later by that much.
    overdue_min_s: float = 1.0  # Guess: a few origins' slow answers.
    overdue_check_s: float = 0.25  # Guess: a quarter of it.
    unattested_s: float = 1.0  # Two report intervals (Progress), then it counts as unread.
    lease_stall_max_s: float = 120.0  # Guess: renewals without one piece end here.
    pace_weight: float = 0.3  # Guess: weight of the newest measurement of a reader's pace.

    late_s: float = 1.0  # Two looks at links (scheduler/service.py).
    beat_s: float = 1.0  # Guess: half of `still_s`.
    still_s: float = 2.0  # Members leave a keeper after some 2 s (lateness): it may be none now.
    probe_wait_s: float = 0.75  # A dial and a round trip take some ms; a dead host is silent.
    probes_max: int = 3  # Better-ranked ones asked before the first grant.
    better_interval_s: float = 5.0  # Guess: two keepers that can reach each other find out by then.
    reregister_s: float = 3.0  # Guess: members hear of a new keeper by then.
    lost_grace_s: float = 1.5  # Three report intervals of 0.5 s (Progress).
    dead_s: float = 5.0  # Guess: how long a peer that could not be dialled is left out.
    merges_max: int = 3  # Rosters taken over within `handover_pause_s` that may pause the grants.
    handovers_max: int = 3  # Within `handover_pause_s`: views may differ for long. Guess.
    handover_pause_s: float = 30.0  # Guess.

    fresh_s: float = 60.0  # Guess: content without a digest is confirmed that often.
    failure_backoff_s: float = 1.0  # Guess; doubles with each failure of the same peer.
    behind_backoff_s: float = 5.0  # Guess: the same where others read with success.
    failure_backoff_max_s: float = 30.0  # Guess.
    failure_forget_s: float = 60.0  # Guess.
    failures_enough: int = 3  # Different peers that failed in a row: it is not them.
    asks_within_s: float = 2.0  # Guess: who enrolled and did not ask by then will not read.
    changes_max: int = 5  # Versions in `failure_forget_s` before we call the origin unusable.

    audit_share: float = 0.005  # design.md, Attestations: 0.5 % of the pieces.
    audit_budget: float = 0.01  # design.md, 4.4: hedges and audits, 1 % of the content.
    alone_s: float = 2.0  # Guess: pieces that none but a reader has for so long do not spread.
    spread_first: int = 2  # Extents a reader may have to itself before one spread. Guess.
    audits_pending_max: int = 64

    bring_trust_s: float = 3.0  # Guess: what is held in a scope turns up there within that time,
    bring_trust_max_s: float = 30.0  # or this, while the one that asks gets other pieces. Guess.

    told_first: int = 32  # Peers named in an answer; a swarm has ≤ 20 links (design.md, 4.5).
    told_enough: int = 20  # Who was named fewer hears of newcomers.
    told_outside: int = 12  # By a cell's keeper: of other cells, the rest of its own. Guess: half.
    tell_interval_s: float = 0.05  # Guess: news is gathered that long.
    name_interval_s: float = 4.0  # Waiting members hear of the reader that often (Seeker: 10 s).
    copy_interval_s: float = 0.02  # Standbys are at most this far behind.
    copy_members_s: float = 1.0  # The member list (≤ 53 KB) goes with every copy at most so often.
    copy_members_free: int = 32  # … unless it is this short.
    standbys: int = 2  # design.md, 4.3.

    seeds_enlisted_max: int = 3
    holders_checked: int = 4  # Registered holders asked at once whether they are still there.
    holder_rounds_max: int = 3
    holders_max: int = 256  # As KeeperState carries.
    roster_max: int = 16_384  # Guess. Cells keep it at some 64; views may differ.
    tasks_max: int = 16_384  # Guess: idle ones are forgotten, oldest first.
    idle_s: float = 600.0  # Guess: a kept task with nobody in it is let go.
    versions_max: int = 4  # Versions remembered for one task.
    term_jump_max: int = 1_000  # A hostile term may not use up the numbers.
    liars_max: int = 16  # Verdicts repeated to newcomers of one task.
    story_max: int = 64  # Lines remembered for one task.
