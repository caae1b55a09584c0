"""Finds the keeper of one task for a peer that wants it, and finds the next when that one fails.

Always: at most one peer is being asked; this peer itself is the last resort, so there is always
somebody to ask; messages of an older term, or of one who is not our keeper, are refused (fencing);
a redirect is followed to whomever it names (views differ), and only so often.

    idle ──members synced──▸ asking ──Enrolled──▸ settled ──link lost, silent, Redirect──▸ asking
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import get_args

from peerd.ids import PeerId, TaskId
from peerd.link.messages import (
    Delegate,
    Enrolled,
    LeaseGrant,
    LeaseRevoked,
    Message,
    Redirect,
    RosterUpdate,
    Unreadable,
    Verdict,
)
from peerd.rendezvous import ranked, weight
from peerd.scheduler.ports import Member


@dataclass(frozen=True, slots=True)
class Begin:
    """The task is wanted (or a holder takes part in it) from now on."""


@dataclass(frozen=True, slots=True)
class MembersNow:
    """The group as membership sees it; nobody is asked before it is `synced`."""

    members: tuple[Member, ...]
    synced: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of those that the core handles: a seeker FROM_KEEPER, an elector OF_SCHEDULER."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class Unreachable:
    """`peer` could not be dialled, or the link to it closed."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Reached:
    """A link to `peer` came up."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing comes over the link to `peer`, not even answers to pings; or, `late`, seconds late,
    and over links to others it is not so."""

    peer: PeerId
    late: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether nothing can be done but wait for the keeper."""

    waiting: bool


Event = Begin | MembersNow | Heard | Unreachable | Reached | Silent | Waiting


@dataclass(frozen=True, slots=True)
class EnrolAt:
    """Send `peer` an Enrol with these fields and our leases; dial `addresses` if there is no link,
    and answer with Unreachable where that fails."""

    peer: PeerId
    addresses: tuple[str, ...]
    candidates: tuple[PeerId, ...]
    unreachable: tuple[PeerId, ...]
    prior_term: int


@dataclass(frozen=True, slots=True)
class Settled:
    """`peer` keeps the task, with this term: lease asks and reports go there from now on."""

    peer: PeerId
    term: int


@dataclass(frozen=True, slots=True)
class Unsettled:
    """`peer` keeps the task no more, as far as we know; another is being sought."""

    peer: PeerId


Order = EnrolAt | Settled | Unsettled

TIMES_MAX = 4096
"""Peers whose failures are counted; then counting starts again. Guess."""
_OfTerm = Enrolled | LeaseGrant | LeaseRevoked | RosterUpdate | Verdict | Unreadable | Delegate
FROM_KEEPER = (*get_args(_OfTerm), Redirect)


@dataclass(frozen=True, slots=True)
class SeekerConfig:
    """Every figure of a seeker, with its source."""

    answer_s: float = 3.0  # Guess: a dial, and a would-be keeper's probes (0.75 s); twice as long
    unanswered_max: int = 2  # … for each in a row that did not answer: it may be our own link.
    quiet_s: float = 2.0  # design.md, 4.4: who waits so long unheard asks its keeper once more.
    check_min_s: float = 2.0  # Guess: what an honest keeper's worst second may cost, twice.
    check_times: float = 10.0  # … or so many times what it took to answer before. Guess.
    silence_s: float = 10.0  # Guess: more than twice what a keeper lets pass between two names.
    barred_s: float = 5.0  # Guess; doubles each time.
    barred_max_s: float = 60.0  # Guess.
    hops_max: int = 6  # Views differ by a few members at most (Guess).
    candidates: int = 3  # design.md, 4.3.
    unreachable_max: int = 16  # As an Enrol carries.
    term_jump_max: int = 1_000  # As KeeperConfig.term_jump_max.


class Seeker:
    """One task on the asking side. `shared` False: the task is this machine's own business."""

    def __init__(
        self, own: PeerId, task: TaskId, config: SeekerConfig | None = None, *, shared: bool = True
    ) -> None:
        self.own = own
        self.task = task
        self.config = config or SeekerConfig()
        self.keeper: PeerId | None = None
        self.term = 0
        self._shared = shared
        self._members: dict[PeerId, Member] = {}
        self._synced = False
        self._begun = False
        self._order: list[PeerId] = [own]
        self._asked: PeerId | None = None
        self._answer_by = inf
        self._barred: dict[PeerId, float] = {}
        self._times_barred: dict[PeerId, int] = {}
        self._not_reached: set[PeerId] = set()
        self._retried: set[PeerId] = set()
        self._hops = self._unanswered = 0
        self._waiting = self._checking = False
        self._sign_at = self._heard_at = self._asked_at = 0.0
        self._check_took_s: float | None = None

    # --- the door

    def handle(self, event: Event, now: float) -> list[Order]:
        match event:
            case Begin():
                self._begun = True
                return self._look(now)
            case MembersNow(members=members, synced=synced):
                return self._members_now(members, synced, now)
            case Heard(peer=peer, message=Redirect() as redirect):
                return self._redirected(peer, redirect, now)
            case Heard(peer=peer, message=Enrolled() as enrolled):
                return self._enrolled(peer, enrolled, now)
            case Heard(peer=peer, message=message):
                return self._heard(peer, message, now)
            case Unreachable(peer=peer):
                return self._unreachable(peer, now)
            case Reached(peer=peer):
                if peer in self._not_reached:
                    self._not_reached.discard(peer)
                    self._barred.pop(peer, None)
                    self._times_barred.pop(peer, None)
                return []
            case Silent(peer=peer, late=late):
                late = late and peer == self.keeper
                return self._give_up(peer, now) if late else self._silent(peer, now)
            case Waiting(waiting=waiting):
                if waiting and not self._waiting:
                    self._sign_at = self._heard_at = now
                self._waiting = waiting
                return []

    def expire(self, now: float) -> list[Order]:
        if self._asked is not None and self._answer_by <= now:
            silent, self._asked = self._asked, None
            self._unanswered += 1
            self._bar(silent, now)
            left = self._leave() if silent == self.keeper else []
            return [*left, *self._ask_next(now)]
        if self._keeper_silent_by() <= now and self.keeper is not None:
            return self._give_up(self.keeper, now)
        if self._check_at() <= now and self.keeper is not None:
            return self._check(self.keeper, now)
        return []

    def deadline(self) -> float:
        answer_by = self._answer_by if self._asked is not None else inf
        return min(answer_by, self._keeper_silent_by(), self._check_at())

    def accepts(self, peer: PeerId, message: Message) -> bool:
        """Whether a keeper's message counts: from our keeper, and not of an older term."""
        return (
            isinstance(message, _OfTerm)
            and peer == self.keeper
            and self.term <= message.term <= self.term + self.config.term_jump_max
        )

    def again(self, now: float) -> list[Order]:
        """What an Enrol says has changed: to the keeper once more, if there is one."""
        if self.keeper is None or self._asked is not None:
            return []
        return self._ask(self.keeper, (), now)

    def validate(self) -> None:
        assert self.own not in self._barred, "barred itself"
        assert self._not_reached <= self._barred.keys()
        assert self._asked is None or self._answer_by < inf
        assert self.keeper is None or self._asked is None or self._asked == self.keeper

    # --- what happens

    def _look(self, now: float) -> list[Order]:
        if self._begun and self._synced and self._asked is None and self.keeper is None:
            return self._ask_next(now)
        return []

    def _members_now(self, members: Collection[Member], synced: bool, now: float) -> list[Order]:
        self._members = {member.peer: member for member in members}
        self._synced = synced
        peers = self._members.keys() if self._shared else ()
        self._order = ranked({*peers, self.own}, self.task)
        return self._look(now)

    def _enrolled(self, peer: PeerId, message: Enrolled, now: float) -> list[Order]:
        if peer not in (self._asked, self.keeper):
            return []
        if message.term < self.term:
            if peer != self._asked:
                return []
            self._asked = None
            self._bar(peer, now)
            return [*(self._leave() if peer == self.keeper else []), *self._ask_next(now)]
        if self._asked not in (None, peer):
            return []
        left = self._leave() if self.keeper not in (None, peer) else []
        changed = self.keeper != peer or message.term != self.term
        if self._checking and peer == self.keeper:
            self._check_took_s = now - self._asked_at  # It is there; that is no sign of more.
        else:
            self._sign_at = now
        self._asked, self.keeper, self._unanswered = None, peer, 0
        self.term = min(message.term, self.term + self.config.term_jump_max)
        self._heard_at, self._hops, self._checking = now, 0, False
        self._retried.clear()
        self._times_barred.pop(peer, None)
        return [*left, Settled(peer, self.term)] if changed else left

    def _heard(self, peer: PeerId, message: Message, now: float) -> list[Order]:
        if not self.accepts(peer, message) or not isinstance(message, _OfTerm):
            return []
        self._heard_at = now
        if self._checking and self._asked == peer:
            self._asked, self._checking = None, False  # As good as an answer.
        if isinstance(message, LeaseGrant | Unreadable | Delegate) or (
            isinstance(message, RosterUpdate) and (message.peers or message.version)
        ):
            self._sign_at = now
        if message.term == self.term:
            return []
        self.term = message.term
        return [Settled(peer, self.term)]

    def _redirected(self, peer: PeerId, message: Redirect, now: float) -> list[Order]:
        if peer not in (self._asked, self.keeper) or self._asked not in (None, peer):
            return []
        to = message.to
        left = self._leave() if peer == self.keeper else []
        self._asked, self._unanswered = None, 0
        self._hops += 1
        if self._hops > self.config.hops_max or not (self._shared or to == self.own):
            self._bar(peer, now)
            return [*left, *self._ask_next(now)]
        if to in self._barred:
            if to in self._retried:
                return [*left, *self._ask(peer, (), now)]
            self._retried.add(to)
            del self._barred[to]
            self._not_reached.discard(to)
        return [*left, *self._ask(to, message.addresses, now)]

    def _unreachable(self, peer: PeerId, now: float) -> list[Order]:
        if peer == self.own:
            return []
        if peer == self._asked:
            self._asked = None
            self._bar(peer, now)
            self._not_reached.add(peer)
            left = self._leave() if peer == self.keeper else []
            return [*left, *self._ask_next(now)]
        if peer == self.keeper:
            # A link may close for no reason: one more dial, before another has to take over.
            return [*self._leave(), *self._ask(peer, (), now)]
        return []

    def _give_up(self, keeper: PeerId, now: float) -> list[Order]:
        self._asked = None
        self._bar(keeper, now)
        return [*self._leave(), *self._ask_next(now)]

    def _silent(self, peer: PeerId, now: float) -> list[Order]:
        """It stands still, or the way to it is broken; if not, it answers soon."""
        if peer != self.keeper or self._asked is not None:
            return []
        orders = self._check(peer, now)
        self._answer_by = min(self._answer_by, now + self.config.check_min_s)
        return orders

    # --- whom to ask

    def _ask_next(self, now: float) -> list[Order]:
        """The best in order that is not barred; this peer itself, if it comes to that."""
        for peer, until in list(self._barred.items()):
            if until <= now:
                del self._barred[peer]
                self._not_reached.discard(peer)
        if self._hops > self.config.hops_max:
            self._hops = 0
            return self._ask(self.own, (), now)
        best = next(peer for peer in self._order if peer not in self._barred)
        return self._ask(best, (), now)

    def _ask(self, peer: PeerId, addresses: tuple[str, ...], now: float) -> list[Order]:
        self._asked, self._asked_at, self._checking = peer, now, False
        longer = min(self._unanswered, self.config.unanswered_max)
        self._answer_by = now + self.config.answer_s * 2.0**longer
        member = self._members.get(peer)
        if member is not None:
            addresses = tuple(dict.fromkeys([*member.link_addresses, *addresses]))[:8]
        best = [each for each in self._order if each not in self._barred]
        barred = sorted(self._barred, key=lambda each: -weight(each, self.task))
        return [
            EnrolAt(
                peer, addresses, tuple(best[: self.config.candidates]),
                tuple(barred[: self.config.unreachable_max]), self.term,
            )
        ]  # fmt: skip

    def _check(self, keeper: PeerId, now: float) -> list[Order]:
        """Nothing was heard of it while we wait: whether it is there at all. The time to answer is
        measured: a busy keeper that is left has its leases granted twice."""
        orders = self._ask(keeper, (), now)
        self._checking = True
        if self._check_took_s is not None:
            within_s = self.config.check_times * self._check_took_s
            within_s = max(self.config.check_min_s, min(self.config.silence_s, within_s))
            self._answer_by = now + within_s
        return orders

    def _leave(self) -> list[Order]:
        assert self.keeper is not None
        left, self.keeper = self.keeper, None
        self._check_took_s, self._checking = None, False
        return [Unsettled(left)]

    def _bar(self, peer: PeerId, now: float) -> None:
        """Do not ask it for a while, longer each time; oneself is never barred."""
        if peer == self.own:
            return
        if len(self._times_barred) >= TIMES_MAX:
            self._times_barred.clear()
        times = self._times_barred.get(peer, 0)
        self._times_barred[peer] = times + 1
        for_s = self.config.barred_s * 2.0 ** min(times, 8)
        self._barred[peer] = now + min(for_s, self.config.barred_max_s)

    def _check_at(self) -> float:
        if self._asked is not None or self._keeper_silent_by() == inf:
            return inf
        return self._heard_at + self.config.quiet_s

    def _keeper_silent_by(self) -> float:
        if self.keeper is None or self.keeper == self.own or not self._waiting:
            return inf
        return self._sign_at + self.config.silence_s
