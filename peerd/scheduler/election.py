"""Who of the eligible peers leads: one elector's part in finding out, and in leading.

Always: an elector leads only with a term above all that it learnt of, signed, and after asking all
electors that it can reach; it yields to whoever leads with a greater order (term, weight, id), and
asks nobody else's leave: without a quorum each side of a partition has its leader, for advice is
safe when wrong (design.md, section 6; ADR 0018).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import takewhile
from math import inf
from typing import Final

from peerd.ids import PeerId
from peerd.link.scheduler_messages import Heeded, LeaderIs, LeaderLease, Subscribe, TermProof
from peerd.scheduler.electing import (
    ElectingConfig,
    Event,
    GroupNow,
    Heard,
    Order,
    Party,
    Reached,
    Send,
    Unreachable,
)
from peerd.scheduler.fence import Age, Fence


class State(Enum):
    """Words that `peerd scheduler` shows."""

    IDLE = "idle"  # the group is not known yet
    LOOKING = "looking"  # asks those that are better ranked who leads
    STANDING = "standing"  # nobody leads that is better ranked: learns the highest term
    LEADING = "leading"
    FOLLOWING = "following"


STEPS: Final = {
    State.IDLE: {State.LOOKING, State.STANDING, State.FOLLOWING},
    State.LOOKING: {State.LOOKING, State.STANDING, State.FOLLOWING},
    State.STANDING: {State.LEADING, State.LOOKING, State.FOLLOWING},
    State.LEADING: {State.STANDING, State.LOOKING, State.FOLLOWING},
    State.FOLLOWING: {State.FOLLOWING, State.LOOKING, State.STANDING},
}
"""All that may become of a state; anything else is a mistake of ours."""


class Elector:
    """One peer that may lead. `sign` gives the proof that it leads with a term."""

    def __init__(
        self,
        own: PeerId,
        sign: Callable[[int], TermProof],
        fence: Fence,
        config: ElectingConfig | None = None,
    ) -> None:
        self.own = own
        self.config = config or ElectingConfig()
        self.state = State.IDLE
        self.party = Party(own, fence, self.config)
        self._sign = sign
        self._electors: tuple[PeerId, ...] = ()
        self._away: tuple[PeerId, ...] = ()
        self._asked: set[PeerId] = set()
        self._there: set[PeerId] = set()
        self._hops = 0
        self._pending: set[PeerId] = set()
        self._due = inf
        self._heard_at = -inf

    # --- what is seen of it

    def leader(self, now: float) -> PeerId | None:
        """Whom to heed now: this peer itself where it leads."""
        return self.party.leader if self.party.live(now) else None

    @property
    def term(self) -> int:
        return self.party.fence.term

    def advises(self, now: float) -> bool:
        """It leads, and somebody followed it within a lease: else its picture is of nobody."""
        return self.state is State.LEADING and now - self._heard_at <= self.config.lease_s

    def validate(self, now: float) -> None:
        self.party.validate(now)
        leads = self.state is State.LEADING
        assert leads == (self.party.leader == self.own), "who leads follows itself"
        assert bool(self._asked or self._there) == (self.state is State.LOOKING)
        assert self.own not in self._asked
        assert not self._pending or self.state is State.STANDING
        assert self.own not in self._pending

    # --- the door

    def handle(self, event: Event, now: float) -> list[Order]:
        match event:
            case GroupNow():
                return self._group(event, now)
            case Heard(peer=peer, message=Subscribe() as ask):
                return self._subscribed(peer, ask, now)
            case Heard(peer=peer, message=LeaderLease() as lease):
                return self._leased(peer, lease, now)
            case Heard(peer=peer, message=LeaderIs() as told):
                return self._told(peer, told, now)
            case Heard(peer=peer, message=Heeded() as heeded):
                if self.party.heeded_by(peer, heeded, now) and self.state is State.LEADING:
                    self._heard_at = now
            case Unreachable(peer=peer):
                return self._unreachable(peer, now)
            case Reached(peer=peer):
                self.party.barred.pop(peer, None)
        return []

    def deadline(self) -> float:
        return self._due

    def expire(self, now: float) -> list[Order]:
        if now < self._due:
            return []
        match self.state:
            case State.LEADING:
                return self._renew(now)
            case State.STANDING:
                return self._lead(now)
            case State.LOOKING:
                for peer in self._asked | self._there:
                    self.party.bar(peer, self.config.bar_s, now)
                return self._look(now)
            case State.FOLLOWING:
                return self._leaderless("its lease ran out", now)
            case State.IDLE:
                self._due = inf
        return []

    # --- finding the leader

    def _group(self, group: GroupNow, now: float) -> list[Order]:
        self._electors, self._away = group.electors, group.away
        self.party.fence.eligible = group.eligible
        self.party.keep_only(group.eligible)
        self._pending.intersection_update(group.electors)
        if self.state is State.IDLE and group.synced:
            return self._look(now)
        gone = self.party.leader not in group.eligible
        if self.state is State.FOLLOWING and gone:
            return self._leaderless("it left", now)
        if self.state is State.LOOKING and not (self._asked | self._there) <= group.eligible:
            return self._look(now)
        if self.state is State.STANDING and not self._pending:
            return self._lead(now)
        return []

    def _leaderless(self, why: str, now: float) -> list[Order]:
        if self.party.leader is not None:
            self.party.bar(self.party.leader, self.config.bar_s, now)
        return [*self.party.unfollow(why), *self._look(now)]

    def _look(self, now: float, hint: PeerId | None = None) -> list[Order]:
        """Ask whoever is said to lead, else all that are better ranked; if none is, stand."""
        self._hops = self._hops + 1 if hint is not None else 0
        better = takewhile(lambda peer: peer != self.own, self._electors)
        fit = [peer for peer in better if not self.party.is_barred(peer, now)]
        asked = fit if hint is None else [hint]
        if not asked:
            return self._stand(now)
        self._become(State.LOOKING)
        self._asked, self._there = set(asked), set()
        self._due = now + self.config.ask_s
        return [Send(peer, self._ask()) for peer in asked]

    def _ask(self) -> Subscribe:
        return Subscribe(self.party.fence.newest, True)

    def _stand(self, now: float) -> list[Order]:
        self._become(State.STANDING)
        self._pending = {
            peer for peer in self._electors
            if peer != self.own and not self.party.is_barred(peer, now)
        }  # fmt: skip
        self._due = now + self.config.learn_s
        if not self._pending:
            return self._lead(now)
        return [Send(peer, self._ask()) for peer in self._electors if peer in self._pending]

    # --- leading

    def _lead(self, now: float) -> list[Order]:
        self._become(State.LEADING)
        self._heard_at = now
        return self._say(LeaderLease(self._sign(self.party.fence.next_term()), 1), now)

    def _renew(self, now: float) -> list[Order]:
        proof = self.party.fence.newest
        assert proof is not None
        assert proof.leader == self.own, "who leads signed the newest term"
        return self._say(LeaderLease(proof, self.party.renewal + 1), now)

    def _say(self, lease: LeaderLease, now: float) -> list[Order]:
        """To all electors, also those that could not be reached, and all who subscribed here."""
        self._due = now + self.config.renew_s
        orders = self.party.follow(lease, now)
        others = [
            peer for peer in (*self._electors, *self._away)
            if peer != self.own and peer not in self.party.subscribers
            and not self.party.is_barred(peer, now)
        ]  # fmt: skip
        return [*orders, *(Send(peer, lease) for peer in others)]

    def _yield(self, why: str, now: float, hint: PeerId | None = None) -> list[Order]:
        """Another term is newer than ours: follow who leads with it, else stand with a newer."""
        orders = self.party.unfollow(why)
        return [*orders, *(self._stand(now) if hint is None else self._look(now, hint))]

    # --- what others say

    def _subscribed(self, peer: PeerId, ask: Subscribe, now: float) -> list[Order]:
        orders: list[Order] = []
        if ask.known is not None and self.party.fence.age(ask.known, now) is Age.NEWER:
            orders = self._outdone(ask.known, live=False, now=now)
        if self.state is State.LEADING:
            self._heard_at = now
        return [*orders, *self.party.asked_by(peer, ask, now)]

    def _outdone(self, proof: TermProof, *, live: bool, now: float) -> list[Order]:
        """A term is newer than all that we knew. `live`: who says so follows it."""
        if self.state is State.FOLLOWING:
            assert self.party.leader is not None
            return [Send(self.party.leader, LeaderIs(proof, live))]
        self.party.fence.take(proof)
        if self.state is not State.LEADING:
            return []
        hint = proof.leader if live and proof.leader != self.own else None
        return self._yield("a newer term is known", now, hint)

    def _leased(self, peer: PeerId, lease: LeaderLease, now: float) -> list[Order]:
        if peer != lease.proof.leader or peer == self.own:
            return []
        party = self.party
        match party.age(lease, now):
            case Age.NEWER:
                pass
            case Age.SAME if party.renews(lease):
                pass
            case Age.OLDER:
                leads = self.state is State.LEADING
                return [Send(peer, party.lease() if leads else party.knows(now))]
            case _:
                return []
        party.barred.pop(peer, None)
        orders = party.follow(lease, now)
        self._become(State.FOLLOWING)
        self._due = party.live_until
        return [*orders, Send(peer, Heeded(lease.proof.term))]

    def _told(self, peer: PeerId, told: LeaderIs, now: float) -> list[Order]:
        """An answer to who looks or stands, or a word to who leads with an older term."""
        self.party.barred.pop(peer, None)
        if told.proof is not None and self.party.age(told, now) is Age.NEWER:
            orders = self._outdone(told.proof, live=told.live, now=now)
            if orders:
                return orders
        leads = told.proof.leader if told.proof is not None and told.live else None
        if leads == self.own or (leads is not None and self.party.is_barred(leads, now)):
            leads = None
        if self.state is State.LOOKING and peer in self._asked:
            if leads is not None and leads != peer and self._hops < self.config.hops_max:
                return self._look(now, leads)
            self._asked.discard(peer)
            self._there.add(peer)
            self._due = now + self.config.stand_s
        elif self.state is State.STANDING and peer in self._pending:
            if leads is not None:
                return self._look(now, leads)
            self._pending.discard(peer)
            if not self._pending:
                return self._lead(now)
        return []

    def _unreachable(self, peer: PeerId, now: float) -> list[Order]:
        # Who leads reaches out each second: the other leader of a healed partition may be there.
        leads = self.state is State.LEADING
        self.party.lost(peer, self.config.renew_s / 2 if leads else self.config.bar_s, now)
        if self.state is State.FOLLOWING and peer == self.party.leader:
            return self._leaderless("it cannot be reached", now)
        if self.state is State.LOOKING and peer in self._asked | self._there:
            self._asked.discard(peer)
            self._there.discard(peer)
            return [] if self._asked or self._there else self._look(now)
        if peer in self._pending:
            self._pending.discard(peer)
            if not self._pending:
                return self._lead(now)
        return []

    def _become(self, state: State) -> None:
        assert state in STEPS[self.state], f"{self.own}: from {self.state} to {state}"
        self.state = state
        if state is not State.LOOKING:
            self._asked, self._there = set(), set()
        if state is not State.STANDING:
            self._pending = set()
