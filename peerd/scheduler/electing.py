"""What electors and followers have in common: the lease they know, and to whom they pass it on.

Always: a lease is live for `lease_s` from when it was received here, by our own clock; one heard
before, or of an older term, lengthens nothing; who is barred is not asked, and bars end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from peerd.ids import PeerId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import Heeded, LeaderIs, LeaderLease, Subscribe
from peerd.scheduler.fence import Age, Fence
from peerd.scheduler.seeker import Heard as Heard
from peerd.scheduler.seeker import Reached as Reached
from peerd.scheduler.seeker import Unreachable as Unreachable


@dataclass(frozen=True, slots=True)
class GroupNow:
    """The group as membership sees it: who may lead, best-ranked first, and whom to ask for leases.

    `electors` are the first of those who are `eligible` and were not found unreachable; those that
    were are `away`: a leader reaches out to them. `contacts` are asked by who is no elector.
    """

    electors: tuple[PeerId, ...]
    eligible: frozenset[PeerId]
    contacts: tuple[PeerId, ...]
    synced: bool
    away: tuple[PeerId, ...] = ()


Event = GroupNow | Heard | Unreachable | Reached


@dataclass(frozen=True, slots=True)
class Send:
    """Over a link that is dialled where there is none; answer with Unreachable if it fails."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class Follow:
    """This one leads, as far as we know, with that term; None: nobody (degraded)."""

    leader: PeerId | None
    term: int
    why: str


Order = Send | Follow


@dataclass(frozen=True, slots=True)
class ElectingConfig:
    """Every figure of electing, with its source."""

    renew_s: float = 1.0  # design.md, section 6.
    lease_s: float = 3.0  # … the same.
    ask_s: float = 0.5  # Guess: a dial over 80 ms with one loss; who is gone costs so much.
    learn_s: float = 0.4  # Guess: with lease_s and a look, a new leader within 4 s (issue 4).
    stand_s: float = 1.0  # Guess: who is better ranked and free has stood and leads by then.
    bar_s: float = 3.0  # Guess: as long as a lease, so that a dead one is not asked in between.
    hops_max: int = 3  # Views differ by a leader or two at most (guess).
    patience_s: float = 0.7  # Guess: who elects has learnt by then, and said so.
    electors_max: int = 16  # Guess: each hears each leader's lease; more make nothing safer.
    subscribers_max: int = 128  # Twice the fan-in, for views of the group's size differ.


class Party:
    """The part of an elector or a follower that hears leases and passes them on."""

    def __init__(self, own: PeerId, fence: Fence, config: ElectingConfig) -> None:
        self.own, self.fence, self.config = own, fence, config
        self.leader: PeerId | None = None
        self.renewal = 0
        self.live_until = -inf
        self.subscribers: dict[PeerId, float] = {}
        self.heeding: dict[PeerId, int] = {}
        self.barred: dict[PeerId, float] = {}

    def live(self, now: float) -> bool:
        return self.leader is not None and self.live_until > now

    # --- the lease

    def follow(self, lease: LeaderLease, now: float) -> list[Order]:
        """A lease that is ours from now on, or was renewed; it is passed on."""
        proof, new = lease.proof, lease.proof != self.fence.newest or self.leader is None
        self.fence.take(proof)
        self.leader, self.renewal = proof.leader, lease.renewal
        self.live_until = now + self.config.lease_s
        passed: list[Order] = [Send(peer, lease) for peer in self._listening(now)]
        return [Follow(proof.leader, proof.term, "it leads"), *passed] if new else passed

    def unfollow(self, why: str) -> list[Order]:
        if self.leader is None:
            return []
        self.leader, self.live_until = None, -inf
        return [Follow(None, self.fence.term, why)]

    def renews(self, lease: LeaderLease) -> bool:
        """Of the leader that we follow, and not heard before; or we follow nobody now."""
        return self.leader is None or lease.renewal > self.renewal

    def lease(self) -> LeaderLease:
        assert self.fence.newest is not None, "who follows knows whom"
        return LeaderLease(self.fence.newest, self.renewal)

    def knows(self, now: float) -> LeaderIs:
        return LeaderIs(self.fence.newest, self.live(now))

    # --- who hears it from us

    def asked_by(self, peer: PeerId, ask: Subscribe, now: float) -> list[Order]:
        """An answer to whoever subscribes; electors hear leases of leaders alone."""
        self.barred.pop(peer, None)
        if not ask.electing and (
            peer in self.subscribers or len(self.subscribers) < self.config.subscribers_max
        ):
            self.subscribers[peer] = now
        passes = self.live(now) and not (ask.electing and self.leader != self.own)
        return [Send(peer, self.lease() if passes else self.knows(now))]

    def heeded_by(self, peer: PeerId, message: Heeded, now: float) -> bool:
        """Whether it follows the lease that we follow."""
        if peer in self.subscribers or len(self.heeding) < self.config.subscribers_max:
            self.heeding[peer] = message.term
        if peer in self.subscribers:
            self.subscribers[peer] = now
        return message.term == self.fence.term

    def _listening(self, now: float) -> list[PeerId]:
        """Those who subscribed here, without those who fell silent."""
        silent_at = now - 2 * self.config.lease_s
        for peer in [peer for peer, heard_at in self.subscribers.items() if heard_at < silent_at]:
            del self.subscribers[peer]
        return list(self.subscribers)

    # --- whom not to ask

    def bar(self, peer: PeerId, seconds: float, now: float) -> None:
        self.barred[peer] = max(self.barred.get(peer, -inf), now + seconds)

    def is_barred(self, peer: PeerId, now: float) -> bool:
        until = self.barred.get(peer)
        if until is None:
            return False
        if until > now:
            return True
        del self.barred[peer]
        return False

    def lost(self, peer: PeerId, bar_s: float, now: float) -> None:
        self.subscribers.pop(peer, None)
        self.heeding.pop(peer, None)
        self.bar(peer, bar_s, now)

    def keep_only(self, known: Collection[PeerId]) -> None:
        """Forget what is remembered of others."""
        self.barred = {peer: until for peer, until in self.barred.items() if peer in known}

    def age(self, message: LeaderLease | LeaderIs, now: float) -> Age:
        return Age.FOREIGN if message.proof is None else self.fence.age(message.proof, now)

    def heeds(self, peer: PeerId) -> bool:
        """Whether it said that it follows this term."""
        return self.heeding.get(peer) == self.fence.term

    def validate(self, now: float) -> None:
        assert len(self.subscribers) <= self.config.subscribers_max
        assert self.own not in self.subscribers, "nobody hears leases from itself"
        if self.live(now):
            assert self.fence.newest is not None
            assert self.fence.newest.leader == self.leader, "what is followed is the newest"
