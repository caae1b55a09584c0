"""What a peer knows of one task as its keeper, its standby or its directory.

Always: at most one of `kept` and `probing` is set; a copy is only as good as the keeper that sent
it, so its leases count by their own ends; sizes are bounded by KeeperConfig.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from msgspec.structs import replace

from peerd.ids import PeerId, TaskId, VersionId
from peerd.link.messages import Enrol, KeeperState, LeaseInfo
from peerd.manifest import VersionInfo
from peerd.rendezvous import weight
from peerd.scheduler.keeper_events import KeeperConfig
from peerd.scheduler.keeper_state import VALIDATED_NEVER_S, Kept

ORDER_KEPT = 16
"""So many of the best-ranked members are remembered for a task."""


@dataclass(slots=True, eq=False)
class Copy:
    """What another keeper told of the task, and when."""

    state: KeeperState
    at: float

    def leases(self, now: float) -> list[LeaseInfo]:
        """Those that have not run out, with the time they have left."""
        passed_s = now - self.at
        return [
            LeaseInfo(x.lease, x.kind, x.holder, x.first, x.count, x.expires_in_s - passed_s)
            for x in self.state.leases
            if x.expires_in_s > passed_s
        ]

    def age_s(self, now: float) -> float:
        """How long ago its version was confirmed."""
        return min(self.state.validated_s + now - self.at, VALIDATED_NEVER_S)


@dataclass(slots=True, eq=False)
class Probing:
    """Asked before the first grant: better-ranked members, standbys, and who may hold it."""

    waiting_for: set[PeerId]
    until: float
    answers: dict[PeerId, Copy] = field(default_factory=dict)
    named: int = 0


@dataclass(slots=True, eq=False)
class Listed:
    """A version and the peers that registered as holding all of it."""

    info: VersionInfo
    holders: dict[PeerId, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Seat:
    """One task, one scope of a version, or a cell of either (`scope`, as the first who enrols says;
    `wide` is then the seat of the whole).

    `keeper` is who else was heard to keep it, and when; `given_at`: when it left it to this peer;
    `left_at`: when this peer's links were late, and it left it to another.
    """

    task: TaskId
    own_weight: int
    story: deque[str]
    kept: Kept | None = None
    probing: Probing | None = None
    copy: Copy | None = None
    keeper: PeerId | None = None
    keeper_at: float = -inf
    given_at: float = -inf
    left_at: float = -inf
    term_heard: int = 0
    yields: list[float] = field(default_factory=list)
    claimed_at: float = -inf
    merges: list[float] = field(default_factory=list)
    waiting: dict[PeerId, Enrol] = field(default_factory=dict)
    redirected: dict[PeerId, PeerId] = field(default_factory=dict)
    probed: set[PeerId] = field(default_factory=set)
    listed: dict[VersionId, Listed] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    hints: tuple[PeerId, ...] = ()
    scope: str = ""
    wide: TaskId = field(init=False)
    order: list[PeerId] = field(default_factory=list)
    own_place: int = 0
    order_revision: int = -1
    due: float = inf

    def __post_init__(self) -> None:
        self.wide = self.task

    @property
    def busy(self) -> bool:
        """Whether forgetting it would cost anybody a download."""
        if self.probing is not None or self.waiting:
            return True
        return self.kept is not None and bool(self.kept.book.leases or self.kept.roster.wanting())

    def say(self, now: float, words: str) -> None:
        self.story.append(f"{now:.3f} {words}")

    def outranked_by(self, peer: PeerId) -> bool:
        return weight(peer, self.task) > self.own_weight

    def left_to(self, peer: PeerId, standbys: int) -> bool:
        """Whether a keeper stays: it outranks this peer, or is the first in order or a standby."""
        return self.outranked_by(peer) or peer in self.order[: 1 + standbys]

    def given(self, config: KeeperConfig, now: float) -> bool:
        """Whether who kept it left it to this peer, and did not take it back."""
        return self.given_at >= self.keeper_at and now - self.given_at <= config.handover_pause_s

    def may_yield(self, config: KeeperConfig, now: float) -> bool:
        """Not again and again: views may differ for long."""
        self.yields = [at for at in self.yields if now - at <= config.handover_pause_s]
        return len(self.yields) < config.handovers_max

    def heard_term(self, term: int, jump_max: int) -> None:
        """Terms grow by one a keeper; one that jumps far is believed only so far."""
        self.term_heard = max(self.term_heard, min(term, self.term_heard + jump_max))

    def rank(self, own: PeerId, live: Iterable[PeerId], revision: int) -> None:
        """Bring the order of the members up to date: the best few, and this peer's place."""
        if self.order_revision == revision:
            return
        weighed = sorted((-weight(peer, self.task), peer) for peer in {*live, own})
        self.own_place = weighed.index((-self.own_weight, own))
        last = max(ORDER_KEPT, self.own_place + 3) if self.own_place < 64 else ORDER_KEPT
        self.order = [peer for _, peer in weighed[:last]]
        self.order_revision = revision

    def standbys(self, count: int) -> list[PeerId]:
        """The next in order after this peer (those after the best few where it ranks far down)."""
        return self.order[self.own_place + 1 : self.own_place + 1 + count]

    def to_be_told(self, count: int) -> list[PeerId]:
        """Who gets copies: the standbys, and whom others ask first where that is not this peer."""
        return [*self.standbys(count), *self.order[: min(count, self.own_place)]]

    def concerns(self, joined: PeerId, count: int) -> bool:
        """Whether a newcomer is to have a copy: it ranks above the last of the standbys."""
        standbys = self.standbys(count)
        if len(standbys) < count:
            return True
        return weight(joined, self.task) > weight(standbys[-1], self.task)

    def better(self, extra: Iterable[PeerId]) -> list[PeerId]:
        """Members, and others that are named, that outrank this peer; the best first."""
        known = self.order[: self.own_place] if self.own_place < len(self.order) else self.order
        others = [peer for peer in extra if self.outranked_by(peer)]
        if not others:
            return list(known)
        return sorted({*known, *others}, key=lambda peer: (-weight(peer, self.task), peer))

    def store_copy(self, state: KeeperState, now: float) -> None:
        """The newest state; an update without a member list keeps the former one."""
        if self.copy is not None and not state.members:
            state = replace(state, members=self.copy.state.members)
        self.copy = Copy(state, now)

    def list_holder(self, info: VersionInfo, peer: PeerId, config: KeeperConfig) -> None:
        """Remember that `peer` says it holds all of this version."""
        listed = self.listed.get(info.version)
        if listed is None:
            while len(self.listed) >= config.versions_max:
                del self.listed[next(iter(self.listed))]
            listed = self.listed[info.version] = Listed(info)
        if len(listed.holders) < config.holders_max:
            listed.holders[peer] = None

    def unlist_holder(self, peer: PeerId) -> None:
        for version, listed in list(self.listed.items()):
            listed.holders.pop(peer, None)
            if not listed.holders:
                del self.listed[version]

    def answer(self, now: float) -> KeeperState:
        """For a Probe, while this peer does not keep the task."""
        best = max(self.listed.values(), key=lambda listed: len(listed.holders), default=None)
        version, age_s = (best.info if best else None), VALIDATED_NEVER_S
        holders = tuple(best.holders) if best else ()
        if self.copy is None:
            return KeeperState(
                self.task, self.term_heard, False, False, version, age_s, (), holders, (),
                self.keeper,
            )  # fmt: skip
        state = self.copy.state
        if state.version is not None:
            holders = holders if version is not None and _same(version, state.version) else ()
            version, age_s = state.version, self.copy.age_s(now)
            holders = tuple(dict.fromkeys([*state.holders, *holders]))[:256]
        leases = tuple(self.copy.leases(now))
        return KeeperState(
            self.task, max(self.term_heard, state.term), False, False, version, age_s, leases,
            holders, state.members if leases else (), self.keeper,
        )  # fmt: skip


def _same(one: VersionInfo, other: VersionInfo) -> bool:
    return one.version == other.version
