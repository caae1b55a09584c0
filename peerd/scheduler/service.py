"""The shell around keepers: those this peer is, and those it seeks for its own tasks.

Always: the cores decide, this carries out; what a keeper says reaches a member only if the seeker
accepts it (our keeper, no older term); tasks that are this machine's own are kept by a core that
knows of no other members, so nothing about them leaves.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import Final

import trio

from peerd.ids import PeerId, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.manifest import VersionInfo
from peerd.scheduler import keeper_events as kept
from peerd.scheduler import seeker as sought
from peerd.scheduler.advising import KeeperAdvice
from peerd.scheduler.holdings import Directory
from peerd.scheduler.keeper import KeeperCore
from peerd.scheduler.ladder import At, Ladder, Place
from peerd.scheduler.lateness import Lateness
from peerd.scheduler.outbox import Links, Outbox
from peerd.scheduler.ports import Member, Members, SwarmMember
from peerd.zones import within

log = logging.getLogger(__name__)

REGISTER_S: Final = 0.25
"""Complete versions are registered in batches, gathered for so long. Guess."""
SILENT_S: Final = 3.5
"""Of a link: a ping and its answer, and a second for who is busy. The keeper there is then asked
whether it is there, rather than when the link ends after 10 s."""
LOOKS_EVERY_S: Final = 0.5
REFRESH_S: Final = 600.0
"""All registrations are made again this often: soft state may be lost unnoticed. Guess."""

OWED: Final = (msg.LeaseReport, msg.Resolved, msg.Ended, msg.Dispute, msg.Doubted)
"""What the keeper that grants leases has to hear, whoever that is by then; other things are said
anew."""
OWED_MAX: Final = 256

KEEPER_MESSAGES: Final = (*msg.TO_KEEPER, *sought.FROM_KEEPER)
"""What the router brings here; the rest about a task is the swarm's."""


class KeeperService:
    """Implements swarm.ports.Keepers; `run` it after links and gossip."""

    def __init__(
        self, own: PeerId, members: Members, links: Links, rng: Random, *, zone: str, seed: bool,
        fresh_s: float,
    ) -> None:  # fmt: skip
        self._own, self._members, self._links = own, members, links
        self._zone, self._seed = zone, seed
        config = kept.KeeperConfig(fresh_s=fresh_s)
        self.core = KeeperCore(own, rng, config)
        self._private = KeeperCore(own, rng, config)
        self._seekers: dict[TaskId, tuple[SwarmMember, Ladder]] = {}
        self._at_seat: dict[TaskId, TaskId] = {}
        self._owed: dict[TaskId, deque[Message]] = {}
        self._directory = Directory(own, zone, seed)
        self._live: set[PeerId] = set()
        self._seen = (-1, False)
        self._registering = False
        self._looked_at = 0.0
        self._lateness = Lateness(links, members)
        self._serves = False
        self.on_begin: Callable[[], None] = lambda: None
        self._begun = 0
        self._wake = trio.Event()
        self._outbox: Outbox | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps and seeks until cancelled. Leases granted by then run out by themselves."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._outbox = Outbox(self._links, nursery, self._undelivered)
            alone = self._members.member(self._own)
            own = (alone,) if alone else (Member(self._own, (), self._zone, False, False, ""),)
            self._private.handle(kept.MembersChanged(own, True), trio.current_time())
            self.members_changed()
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._refresh)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._outbox = self._nursery = None

    # --- for the swarm (swarm.ports.Keepers)

    def join(self, member: SwarmMember) -> None:
        shared = member.enrolment().shared
        ladder = Ladder(self._own, member.task, member.scope, shared=shared)
        self._seekers[member.task] = (member, ladder)
        self._seek(member.task, self._members_in(member.scope, tuple(self._members.live())))
        self._seek(member.task, sought.Begin())

    def leave(self, task: TaskId) -> None:
        """No more business in it; the keeper is told."""
        self.tell(task, msg.Withdraw(task))
        self.let_be(task)

    def let_be(self, task: TaskId) -> None:
        """Nothing more is wanted there; its keeper goes on counting what it heard we hold."""
        found = self._seekers.pop(task, None)
        for seat in found[1].seats if found is not None else ():
            self._at_seat.pop(seat, None)
        self._owed.pop(task, None)

    def tell(self, task: TaskId, message: Message) -> bool:
        """To the task's keeper; False where none is known now (it is told all on enrolling)."""
        found = self._seekers.get(task)
        if found is None:
            return False
        ladder = found[1]
        if ladder.keeper is None and isinstance(message, OWED):
            self._owed.setdefault(task, deque(maxlen=OWED_MAX)).append(message)
        told = ladder.addressed(message)
        for peer, addressed in told:
            self._send(peer, addressed)
        return bool(told)

    def term(self, task: TaskId) -> int:
        found = self._seekers.get(task)
        return found[1].term if found else 0

    def holds(self, version: VersionInfo) -> None:
        """A complete version is held: registered now, and after changes in the group."""
        found = self._seekers.get(version.task)
        self.let_be(version.task)
        self._directory.hold(version, here_only=found is not None and found[1].stands_below)
        self._register_soon()

    def dropped(self, task: TaskId) -> None:
        for peer in self._directory.drop(task):
            self._send(peer, msg.Withdraw(task))

    # --- for the scheduler

    def stands(self, task: TaskId) -> bool:
        """Whether this peer has enrolled with the task's own keeper, or is that."""
        found = self._seekers.get(task)
        return found is not None and found[1].keeper is not None

    def origins(self) -> dict[TaskId, int]:
        """The tasks that are kept here for others (keeper_table)."""
        return self.core.origins()

    def advised(self, advice: KeeperAdvice) -> None:
        """The scheduler's leader says whom to grant last in a task that is kept here: a hint."""
        by = f"leader {advice.leader}, term {advice.term}"
        last = frozenset(advice.last)
        event = kept.KeeperAdvised(advice.task, last, advice.readers, advice.until, by)
        self._keep(self.core, event)

    # --- for status

    def tasks_kept(self) -> int:
        return len(self.core.tasks_kept())

    def story(self, task: TaskId) -> tuple[str, ...]:
        """What this peer did as the task's keeper."""
        return (*self.core.story(task), *self._private.story(task))

    # --- what links and gossip bring

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        """RemoteProtocolError where the peer broke the protocol."""
        if isinstance(message, sought.FROM_KEEPER):
            self._from_keeper(peer, message)
        else:
            self._to_keeper(peer, message)

    def _from_keeper(self, peer: PeerId, message: Message) -> None:
        seat: TaskId = message.task  # type: ignore[union-attr]
        if isinstance(message, kept.News) and self.core.keeps_cell_of(seat):
            self._keep(self.core, kept.NewsFrom(peer, message))
        task = self._at_seat.get(seat, seat)
        found = self._seekers.get(task)
        if found is None:
            if isinstance(message, msg.LeaseGrant):
                self._give_back(peer, message)
            return
        member, ladder = found
        self._seek(task, sought.Heard(peer, message))
        if ladder.accepts(peer, message) and task in self._seekers:
            member.keeper_says(message)

    def _give_back(self, peer: PeerId, grant: msg.LeaseGrant) -> None:
        """A lease for a task that we want no more."""
        lease, returned = grant.info.lease, msg.Outcome.RETURNED
        self._send(peer, msg.LeaseReport(grant.task, grant.term, lease, returned, (), "", ""))

    def _to_keeper(self, peer: PeerId, message: Message) -> None:
        core = self._core_for(peer, message)
        if isinstance(message, msg.Enrol) and core is self.core and core.kept(message.task) is None:
            hints = tuple(self._members.holders(message.task))
            if hints:
                self._keep(core, kept.Hinted(message.task, hints))
        self._keep(core, kept.MessageFrom(peer, message))

    def _core_for(self, peer: PeerId, message: Message) -> KeeperCore:
        """The private core has this machine's own tasks; nobody else can speak of them."""
        task = message.version.task if isinstance(message, msg.Ended) else getattr(
            message, "task", None
        )  # fmt: skip
        if peer != self._own or task is None:
            return self.core
        if isinstance(message, msg.Enrol):
            found = self._seekers.get(task)
            return self._private if found and not found[0].enrolment().shared else self.core
        return self._private if self._private.kept(task) is not None else self.core

    def link_up(self, peer: PeerId) -> None:
        self._seek_all(sought.Reached(peer))

    def link_down(self, peer: PeerId) -> None:
        self._keep(self.core, kept.LinkLost(peer))
        self._seek_all(sought.Unreachable(peer))

    def members_changed(self) -> None:
        """The group, or whether this peer is synced, changed (gossip.on_change)."""
        seen = (self._members.revision, self._members.synced)
        if seen == self._seen or self._outbox is None:
            return
        self._seen = seen
        live = tuple(self._members.live())
        now_live = {member.peer for member in live}
        for peer in self._live - now_live:
            self._directory.lost(peer)
        self._live = now_live
        self._keep(self.core, kept.MembersChanged(live, self._synced()))
        for task, (member, _) in tuple(self._seekers.items()):
            self._seek(task, self._members_in(member.scope, live))
        self._register_soon()

    def _members_in(self, scope: str, live: tuple[Member, ...]) -> sought.MembersNow:
        """Those who can keep a seat in that scope."""
        fit = tuple(member for member in live if within(member.zone, scope))
        return sought.MembersNow(fit, self._synced())

    def _synced(self) -> bool:
        return self._members.synced

    def _undelivered(self, peer: PeerId, words: str) -> None:
        log.info("%s cannot be reached: %s", peer, words)
        self._members.unreachable(peer)
        self._directory.lost(peer)
        self._keep(self.core, kept.Undelivered(peer))
        self._seek_all(sought.Unreachable(peer))

    # --- carrying out

    def _keep(self, core: KeeperCore, event: kept.Event) -> None:
        self._send_all(core.handle(event, trio.current_time()))

    def _send_all(self, orders: Sequence[kept.Order]) -> None:
        for order in orders:
            self._send(order.peer, order.message)
        if self.core.begun != self._begun:
            self._begun = self.core.begun
            self.on_begin()
        self._wake.set()

    def _seek(self, task: TaskId, event: sought.Event) -> None:
        found = self._seekers.get(task)
        if found is not None:
            self._follow(*found, found[1].handle(event, trio.current_time()))

    def _seek_all(self, event: sought.Event) -> None:
        for task in tuple(self._seekers):
            self._seek(task, event)

    def _follow(self, member: SwarmMember, ladder: Ladder, orders: Iterable[At]) -> None:
        self._at_seat.update(dict.fromkeys(ladder.seats, member.task))
        for at in orders:
            match at.order:
                case sought.EnrolAt():
                    self._enrol(member, at.place, at.order)
                case sought.Settled(peer=peer, term=term):
                    self._settled(member, ladder, at.place, peer, term)
                case sought.Unsettled(peer=peer):
                    log.debug("seat %s: %s keeps it no more", at.place.seat[:12], peer)
        self._wake.set()

    def _settled(
        self, member: SwarmMember, ladder: Ladder, place: Place, peer: PeerId, term: int
    ) -> None:
        log.debug("seat %s: kept by %s, term %d", place.seat[:12], peer, term)
        if place.top:
            member.keeper_found(peer, term)
            self.on_begin()
        else:
            member.cell_found(peer)
        for message in self._owed.pop(member.task, ()) if place.top else ():
            self._send(peer, message)

    def _enrol(self, member: SwarmMember, place: Place, at: sought.EnrolAt) -> None:
        state = member.enrolment()
        enrol = msg.Enrol(
            task=place.seat,
            spec=state.spec,
            candidates=at.candidates,
            unreachable=at.unreachable,
            prior_term=at.prior_term,
            wants=state.wants,
            access=state.access,
            zone=self._zone,
            seed=self._seed,
            version=state.version,
            have=state.have,
            leases=state.leases,
            scope=place.scope,
            wide=None if place.top else member.task,
            delegate=place.delegate,
            cell_keeper=place.cell_keeper,
        )
        self._send(at.peer, enrol, at.addresses)

    def _send(self, peer: PeerId, message: Message, addresses: Sequence[str] = ()) -> None:
        if self._outbox is not None:
            self._outbox.send(peer, message, addresses)

    def _register_soon(self) -> None:
        if not self._registering and self._nursery is not None:
            self._registering = True
            self._nursery.start_soon(self._register)

    async def _register(self) -> None:
        await trio.sleep(REGISTER_S)
        self._registering = False
        if not self._members.synced:
            return
        for peer, holdings in self._directory.due(self._live):
            self._send(peer, holdings)
        self._members.hold(self._directory.tasks(), [])

    async def _refresh(self) -> None:
        while True:
            await trio.sleep(REFRESH_S)
            for peer in self._live:
                self._directory.lost(peer)
            self._register_soon()

    # --- time

    async def _keep_time(self) -> None:
        """Calls each core when it is due; woken by whatever may have changed that."""
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            for core in (self.core, self._private):
                if core.deadline() <= now:
                    self._send_all(core.expire(now))
            if self._looked_at + LOOKS_EVERY_S <= now:
                self._look_at_links(now)
            for member, ladder in tuple(self._seekers.values()):
                self._expire(member, ladder, now)
            with trio.move_on_at(max(self._due(), trio.current_time() + 0.001)):
                await self._wake.wait()

    def _expire(self, member: SwarmMember, ladder: Ladder, now: float) -> None:
        ladder.handle(sought.Waiting(member.waiting()), now)
        if ladder.deadline() <= now:
            self._follow(member, ladder, ladder.expire(now))

    def _look_at_links(self, now: float) -> None:
        """A keeper that stands still (SIGSTOP, swap) holds its links, and nobody else grants; one
        whose own link is slow has all wait for it, too."""
        at = [(task, peer) for task, (_, x) in self._seekers.items() for peer in x.keepers]
        served = self.core.served()
        late = self._lateness.look({*served, *(peer for _, peer in at)})
        if late & served:
            self._keep(self.core, kept.LinksLate(late & served))
        for task, peer in at:
            if peer in late and self._lateness.alone(peer, self._live):
                self._keep(self.core, kept.KeeperLate(peer))
                self._seek(task, sought.Silent(peer, late=True))
            elif self._links.silent_s(peer) > SILENT_S:
                self._seek(task, sought.Silent(peer))
        self._looked_at, self._serves = now, bool(served)

    def _due(self) -> float:
        looks = bool(self._seekers) or self._serves
        looks_at = self._looked_at + LOOKS_EVERY_S if looks else inf
        due = min(self.core.deadline(), self._private.deadline(), looks_at)
        return min([due, *(ladder.deadline() for _, ladder in self._seekers.values())], default=inf)
