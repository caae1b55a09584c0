"""Who leads, for a peer that does not lead itself: it hears leases from one contact at a time.

Always: of the contacts it asks the best-ranked that answers, and stays with it; where no lease is
live for `patience_s` it asks the next; it follows no older term after a newer one. In a large group
its contact is one of its cell, who hears leases further up (peerd/cells.py, ADR 0018).

    idle ──contacts known──▸ seeking ──any answer──▸ attached ──link lost, no lease──▸ seeking
"""

from __future__ import annotations

from enum import Enum
from math import inf

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
    """Where a follower stands with its contact."""

    IDLE = "idle"
    SEEKING = "seeking"
    ATTACHED = "attached"


class Follower:
    """One peer that follows whoever leads, and passes its leases on to whoever asks it."""

    def __init__(self, own: PeerId, fence: Fence, config: ElectingConfig | None = None) -> None:
        self.own = own
        self.config = config or ElectingConfig()
        self.state = State.IDLE
        self.party = Party(own, fence, self.config)
        self.contact: PeerId | None = None
        self._contacts: tuple[PeerId, ...] = ()
        self._due = inf

    # --- what is seen of it

    def leader(self, now: float) -> PeerId | None:
        return self.party.leader if self.party.live(now) else None

    @property
    def term(self) -> int:
        return self.party.fence.term

    def validate(self, now: float) -> None:
        self.party.validate(now)
        assert self.contact != self.own
        assert self.party.leader != self.own
        assert (self.state is State.IDLE) <= (self.contact is None)

    # --- the door

    def handle(self, event: Event, now: float) -> list[Order]:
        match event:
            case GroupNow():
                return self._group(event, now)
            case Heard(peer=peer, message=Subscribe() as ask):
                return [*self._newer(ask.known, now), *self.party.asked_by(peer, ask, now)]
            case Heard(peer=peer, message=LeaderLease() as lease):
                return self._leased(peer, lease, now)
            case Heard(peer=peer, message=LeaderIs() as told):
                return self._told(peer, told, now)
            case Heard(peer=peer, message=Heeded() as heeded):
                self.party.heeded_by(peer, heeded, now)
            case Unreachable(peer=peer):
                self.party.lost(peer, self.config.bar_s, now)
                if peer == self.contact:
                    return self._seek(now)
            case Reached(peer=peer):
                self.party.barred.pop(peer, None)
        return []

    def deadline(self) -> float:
        """Also that of its lease, though a contact may outlive it."""
        live_until = self.party.live_until if self.party.leader is not None else inf
        return min(self._due, live_until)

    def expire(self, now: float) -> list[Order]:
        orders: list[Order] = []
        if self.party.leader is not None and not self.party.live(now):
            orders = self.party.unfollow("its lease ran out")
            self._due = now + self.config.patience_s
        if now >= self._due:
            if self.contact is not None:
                self.party.bar(self.contact, self.config.bar_s, now)
            orders += self._seek(now)
        return orders

    # --- contacts

    def _group(self, group: GroupNow, now: float) -> list[Order]:
        self._contacts = group.contacts if group.synced else ()
        self.party.fence.eligible = group.eligible
        self.party.keep_only(group.eligible)
        orders: list[Order] = []
        if self.party.leader is not None and self.party.leader not in group.eligible:
            orders = self.party.unfollow("it left")
        if self.contact is None or self.contact not in self._contacts:
            orders += self._seek(now)
        return orders

    def _seek(self, now: float) -> list[Order]:
        fit = (peer for peer in self._contacts if not self.party.is_barred(peer, now))
        self.contact = next(fit, None)
        if self.contact is None:
            ends = [self.party.barred[peer] for peer in self._contacts]
            self.state, self._due = State.IDLE, min(ends, default=inf)
            return []
        self.state, self._due = State.SEEKING, now + self.config.ask_s
        return [Send(self.contact, Subscribe(self.party.fence.newest, False))]

    def _answered(self, now: float) -> None:
        """Our contact lives; it has a while to say who leads."""
        if self.state is State.SEEKING:
            self.state, self._due = State.ATTACHED, now + self.config.patience_s

    # --- what is heard

    def _leased(self, peer: PeerId, lease: LeaderLease, now: float) -> list[Order]:
        if lease.proof.leader == self.own or peer not in (self.contact, lease.proof.leader):
            return []
        match self.party.age(lease, now):
            case Age.NEWER:
                pass
            case Age.SAME if self.party.renews(lease):
                pass
            case Age.OLDER:
                return [Send(peer, self.party.knows(now))]
            case _:
                return []
        if peer == self.contact:
            self.state, self._due = State.ATTACHED, inf
        return [*self.party.follow(lease, now), Send(peer, Heeded(lease.proof.term))]

    def _told(self, peer: PeerId, told: LeaderIs, now: float) -> list[Order]:
        if peer == self.contact:
            self._answered(now)
            return []
        return self._newer(told.proof, now)

    def _newer(self, proof: TermProof | None, now: float) -> list[Order]:
        """Somebody below us knows a newer term: whoever leads us must know it, to be followed."""
        known = LeaderIs(proof, False) if proof is not None else None
        if known is None or self.contact is None or self.party.age(known, now) is not Age.NEWER:
            return []
        return [Send(self.contact, known)]
