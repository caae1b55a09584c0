"""The shell around electing and reporting: who leads, and what it sees of everybody.

Always: the cores decide, this carries out; a peer that may lead has an elector's core, every other
a follower's, and both know the same newest term; only who leads, or stands by, keeps a picture;
nothing here is needed for a download to go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

import trio

from peerd import cells
from peerd.ids import PeerId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import Report, Reports, TermProof
from peerd.scheduler.contacts import contacts_of, electors_of, standbys_of
from peerd.scheduler.electing import (
    ElectingConfig,
    Event,
    Follow,
    GroupNow,
    Heard,
    Order,
    Reached,
    Send,
    Unreachable,
)
from peerd.scheduler.election import Elector, State
from peerd.scheduler.fence import Fence, prove
from peerd.scheduler.following import Follower
from peerd.scheduler.outbox import Links, Outbox
from peerd.scheduler.ports import Members
from peerd.scheduler.reporting import Facts, Relay, Reporter, batches
from peerd.scheduler.topology import Topology
from peerd.signing import SigningKey

log = logging.getLogger(__name__)

KNOWN_MAX: Final = 256
"""Eligible members remembered while they cannot be reached. Guess: far above those that elect."""
LOOKS_EVERY_S: Final = 0.2
"""At most so often the group is ranked anew: of 10,000 that takes milliseconds. Guess."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads now, for `peerd status` and `peerd scheduler`. `state`: of this peer's core."""

    leader: PeerId | None
    term: int
    since_s: float
    state: str
    electors: tuple[PeerId, ...]
    standbys: tuple[PeerId, ...]
    contact: PeerId | None
    subscribers: int
    advises: bool
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class Picture:
    """What a leader, or a standby, sees. `age_s`: since the newest report; None: none came yet."""

    peers: int
    tasks: int
    borders: int
    reports: int
    age_s: float | None


class SchedulerService:
    """`run` it after links and gossip. `wall_s`: seconds since 1970 when trio's clock shows 0."""

    def __init__(
        self, key: SigningKey, members: Members, links: Links, rng: Random,
        facts: Callable[[], Facts], *, wall_s: float, config: ElectingConfig | None = None,
    ) -> None:  # fmt: skip
        self._key, self._own = key, key.peer_id
        self._members, self._links = members, links
        self.config = config or ElectingConfig()
        self.fence = Fence(wall_s)
        self.core: Elector | Follower = Follower(self._own, self.fence, self.config)
        self.topology = Topology()
        self._reporter = Reporter(self._own, rng)
        self._relay = Relay()
        self._facts = facts
        self._handed: tuple[PeerId, ...] = ()
        self._told_to: tuple[PeerId | None, PeerId | None] = (None, None)
        self._electors: tuple[PeerId, ...] = ()
        self._known: dict[PeerId, None] = {}
        self._bits = 0
        self._seen: tuple[int, bool] | None = None
        self._looked_at = -inf
        self._since = 0.0
        self._wake = trio.Event()
        self._outbox: Outbox | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; who heard this peer lead then sees its links close."""
        async with trio.open_nursery() as nursery:
            self._outbox = Outbox(self._links, nursery, self._undelivered)
            self._since = trio.current_time()
            task_status.started()
            try:
                await self._keep_time()
            finally:
                self._outbox = None

    # --- what is seen of it

    @property
    def leader(self) -> PeerId | None:
        """Whom to heed now; None: degraded."""
        return self.core.leader(trio.current_time())

    def leadership(self) -> Leadership:
        now, core = trio.current_time(), self.core
        elector = core if isinstance(core, Elector) else None
        leader = core.leader(now)
        return Leadership(
            leader=leader,
            term=core.term,
            since_s=now - self._since,
            state=core.state.value,
            electors=self._electors,
            standbys=standbys_of(self._electors, leader),
            contact=core.contact if isinstance(core, Follower) else None,
            subscribers=len(core.party.subscribers),
            advises=elector is not None and elector.advises(now),
            picture=self._picture(now),
        )

    def _picture(self, now: float) -> Picture | None:
        seen = self.topology
        if not self.sees():
            return None
        age_s = now - seen.heard_at if seen.reports else None
        return Picture(len(seen.peers), len(seen.tasks), len(seen.borders), seen.reports, age_s)

    def sees(self) -> bool:
        """Whether this peer leads, or is one of the two that would be next."""
        leader = self.core.leader(trio.current_time())
        return leader == self._own or self._own in standbys_of(self._electors, leader)

    def reports_something(self) -> bool:
        """Whether it is in a swarm now."""
        return bool(self._facts().swarms)

    # --- what links and gossip bring

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        if isinstance(message, Reports):
            self._reported(peer, message.reports)
        else:
            self._do(Heard(peer, message))

    def link_up(self, peer: PeerId) -> None:
        self._do(Reached(peer))

    def link_down(self, peer: PeerId) -> None:
        self._relay.lost(peer)
        self._do(Unreachable(peer))

    def members_changed(self) -> None:
        """The group changed (gossip.on_change): looked at soon."""
        self._wake.set()

    def _undelivered(self, peer: PeerId, words: str) -> None:
        log.debug("%s cannot be reached: %s", peer, words)
        self._members.unreachable(peer)
        self._do(Unreachable(peer))

    # --- the group

    def _look(self, now: float) -> None:
        seen = (self._members.revision, self._members.synced)
        if seen == self._seen or now < self._looked_at + LOOKS_EVERY_S:
            return
        self._seen, self._looked_at = seen, now
        live = self._members.live()
        here = {member.peer for member in live if member.scheduler}
        away = self._gone_away(here)
        self._electors = electors_of(here, self.config.electors_max)
        group = [member.peer for member in live]
        self._bits = cells.bits_for(len(group), self._bits)
        self._choose_core()
        contacts = contacts_of(self._own, group, self._electors, self._bits)
        eligible = frozenset((*here, *away))
        self._do(GroupNow(self._electors, eligible, contacts, self._members.synced, away))

    def _gone_away(self, here: set[PeerId]) -> tuple[PeerId, ...]:
        """Eligible members that membership left out, for they could not be reached."""
        self._known.update(dict.fromkeys(sorted(here)))
        for peer in tuple(self._known):
            member = self._members.member(peer)
            if member is None or not member.scheduler or len(self._known) > KNOWN_MAX:
                del self._known[peer]
        away = [peer for peer in self._known if peer not in here]
        return tuple(away[: self.config.electors_max])

    def _choose_core(self) -> None:
        """An elector where this peer is among those who may lead, else a follower."""
        elects = self._own in self._electors
        if elects == isinstance(self.core, Elector):
            return
        self.core = (
            Elector(self._own, self._sign, self.fence, self.config) if elects
            else Follower(self._own, self.fence, self.config)
        )  # fmt: skip

    def _sign(self, term: int) -> TermProof:
        return prove(self._key, term)

    # --- reports

    def _reported(self, peer: PeerId, reports: tuple[Report, ...]) -> None:
        """Of those who subscribed here; to a leader, of electors; of it, to one that stands by."""
        leader = self.core.leader(trio.current_time())
        if peer == leader and self.sees():
            self._see(reports)
        elif peer in self.core.party.subscribers or (self.leads() and peer in self._electors):
            self._pass_on(peer, reports)

    def _pass_on(self, child: PeerId, reports: tuple[Report, ...]) -> None:
        if self.leads():
            self._see(reports)
        self._relay.take(child, reports, trio.current_time())
        self._wake.set()

    def _see(self, reports: tuple[Report, ...]) -> None:
        now = trio.current_time()
        for report in reports:
            member = self._members.member(report.peer)
            if member is not None:
                self.topology.report(report, member.zone, now)

    def leads(self) -> bool:
        """Whether this peer leads; who does and is cut off does not know it yet."""
        return isinstance(self.core, Elector) and self.core.state is State.LEADING

    def _hearers(self) -> tuple[PeerId, ...]:
        """To whom reports go from here: the standbys from who leads, else one step further up."""
        leader = self.core.leader(trio.current_time())
        if leader == self._own:
            return standbys_of(self._electors, leader)
        if isinstance(self.core, Follower):
            return (self.core.contact,) if leader and self.core.contact else ()
        return (leader,) if leader else ()

    def _report(self, now: float) -> None:
        """What is due of this peer's own reports and of those that it passes on."""
        leader = self.core.leader(now)
        hears = leader if isinstance(self.core, Elector) else self.core.contact
        if (leader, hears) != self._told_to:
            self._told_to = (leader, hears)
            if leader is None:
                self._reporter.stop()
            else:
                self._reporter.anew(now)
            if not self.sees():
                self.topology.clear()
        if self._reporter.deadline() <= now:
            report = self._reporter.look(self._facts(), now)
            if report is not None:
                self._pass_on(self._own, (report,))
        self._hand_over()
        if self._relay.due <= now:
            for message in self._relay.flush():
                for peer in self._hearers():
                    self._send(peer, message)
        self.topology.expire(now)

    def _hand_over(self) -> None:
        """All that is seen to who stands by from now on."""
        heeds = self.core.party.heeds
        standbys = tuple(filter(heeds, self._hearers())) if self.leads() else ()
        for peer in standbys:
            if peer not in self._handed:
                for message in batches(list(self.topology.as_reports())):
                    self._send(peer, message)
        self._handed = standbys

    # --- carrying out

    def _do(self, event: Event) -> None:
        self._carry_out(self.core.handle(event, trio.current_time()))

    def _carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Send(peer=peer, message=message):
                    self._send(peer, message)
                case Follow(leader=leader, term=term, why=why):
                    self._since = trio.current_time()
                    if leader is None:
                        log.info("no scheduler: %s (term %d); going on without", why, term)
                    else:
                        log.info("scheduled by %s, term %d", leader, term)
        self._wake.set()

    def _send(self, peer: PeerId, message: Message) -> None:
        if self._outbox is not None:
            self._outbox.send(peer, message)

    async def _keep_time(self) -> None:
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            self._look(now)
            if self.core.deadline() <= now:
                self._carry_out(self.core.expire(now))
            self._report(now)
            self._wake = trio.Event()
            behind = (self._members.revision, self._members.synced) != self._seen
            due = min(
                self.core.deadline(), self._reporter.deadline(), self._relay.due,
                self.topology.deadline(), self._looked_at + LOOKS_EVERY_S if behind else inf,
            )  # fmt: skip
            with trio.move_on_at(max(due, now + 0.001)):
                await self._wake.wait()
