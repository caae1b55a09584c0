"""The shell around a peer's keeper core and seeker, as scheduler/service.py is with trio.

Always: the cores decide; what a keeper says reaches the download only if the seeker accepts it;
what is sent to oneself arrives like any other message, a step later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from peerd.errors import RemoteProtocolError
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
from peerd.scheduler.ports import Member, SwarmMember
from peerd.scheduler.service import OWED, OWED_MAX, REGISTER_S
from peerd.zones import within
from tools.sim.clock import Timer
from tools.sim.outbox import Outbox

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer

SLACK_S = 0.001
"""A core that is due at once is called that much later (scheduler/service.py)."""


class Keeping:
    """Both sides of keeping on one peer."""

    def __init__(self, peer: SimPeer) -> None:
        self._peer, self._world = peer, peer.world
        self.core = KeeperCore(peer.own, peer.rng, kept.KeeperConfig())
        self._directory = Directory(peer.own, peer.zone, peer.seed)
        self._seekers: dict[TaskId, tuple[SwarmMember, Ladder]] = {}
        self._at_seat: dict[TaskId, TaskId] = {}
        self._owed: dict[TaskId, deque[Message]] = {}
        self._outbox = Outbox(peer, self._undelivered)
        self._send = self._outbox.send
        self._registering = False
        self._begun = 0
        self._core_timer = Timer(peer.world.clock, peer.guarded(self._core_due))
        self._seek_timer = Timer(peer.world.clock, peer.guarded(self.seek_time))
        self._live: tuple[Member, ...] = ()
        self._synced = False

    # --- for the download (swarm.ports.Keepers)

    def join(self, member: SwarmMember) -> None:
        ladder = Ladder(self._peer.own, member.task, member.scope)
        self._seekers[member.task] = (member, ladder)
        self._seek(member.task, self._members_in(member.scope))
        self._seek(member.task, sought.Begin())

    def leave(self, task: TaskId) -> None:
        self.tell(task, msg.Withdraw(task))
        self.let_be(task)

    def let_be(self, task: TaskId) -> None:
        found = self._seekers.pop(task, None)
        for seat in found[1].seats if found is not None else ():
            self._at_seat.pop(seat, None)
        self._owed.pop(task, None)

    def tell(self, task: TaskId, message: Message) -> bool:
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

    def stands(self, task: TaskId) -> bool:
        found = self._seekers.get(task)
        return found is not None and found[1].keeper is not None

    def advised(self, advice: KeeperAdvice) -> None:
        by, last = f"leader {advice.leader}", frozenset(advice.last)
        self._keep(kept.KeeperAdvised(advice.task, last, advice.readers, advice.until, by))

    def holds(self, version: VersionInfo) -> None:
        found = self._seekers.get(version.task)
        self.let_be(version.task)
        self._directory.hold(version, here_only=found is not None and found[1].stands_below)
        self._register_soon()

    # --- what links and membership bring

    def heard(self, peer: PeerId, message: Message) -> None:
        if isinstance(message, sought.FROM_KEEPER):
            self._from_keeper(peer, message)
        else:
            self._keep(kept.MessageFrom(peer, message))

    def _from_keeper(self, peer: PeerId, message: Message) -> None:
        seat: TaskId = message.task  # type: ignore[union-attr]
        if isinstance(message, kept.News) and self.core.keeps_cell_of(seat):
            self._keep(kept.NewsFrom(peer, message))
        task = self._at_seat.get(seat, seat)
        found = self._seekers.get(task)
        if found is None:
            if isinstance(message, msg.LeaseGrant):
                back = msg.LeaseReport(
                    task, message.term, message.info.lease, msg.Outcome.RETURNED, (), "", ""
                )
                self._send(peer, back)
            return
        member, ladder = found
        self._seek(task, sought.Heard(peer, message))
        if ladder.accepts(peer, message) and task in self._seekers:
            member.keeper_says(message)

    def link_up(self, peer: PeerId) -> None:
        for task in tuple(self._seekers):
            self._seek(task, sought.Reached(peer))

    def link_down(self, peer: PeerId) -> None:
        self._keep(kept.LinkLost(peer))
        for task in tuple(self._seekers):
            self._seek(task, sought.Unreachable(peer))

    def members_changed(self, live: tuple[Member, ...], synced: bool) -> None:
        if live is self._live and synced == self._synced:
            return
        if self._directory.tasks():
            for gone in {x.peer for x in self._live} - {x.peer for x in live}:
                self._directory.lost(gone)
        self._live, self._synced = live, synced
        self._keep(kept.MembersChanged(live, synced))
        for task, (member, _) in tuple(self._seekers.items()):
            self._seek(task, self._members_in(member.scope))
        self._register_soon()

    def _members_in(self, scope: str) -> sought.MembersNow:
        """Those who can keep a seat in that scope."""
        live = self._live
        if scope:
            live = tuple(member for member in live if within(member.zone, scope))
        return sought.MembersNow(live, self._synced)

    def _undelivered(self, peer: PeerId) -> None:
        self._peer.views.unreachable(peer)
        self._directory.lost(peer)
        self._keep(kept.Undelivered(peer))
        for task in tuple(self._seekers):
            self._seek(task, sought.Unreachable(peer))

    # --- carrying out

    def _keep(self, event: kept.Event) -> None:
        try:
            orders: Sequence[kept.Order] = self.core.handle(event, self._world.clock.now)
            if isinstance(event, kept.MessageFrom) and isinstance(event.message, msg.Enrol):
                task = self.core.kept(event.message.task)
                members = 0 if task is None else len(task.roster.entries)
                self._world.fan_in_max = max(self._world.fan_in_max, members)
        except RemoteProtocolError as error:
            self._world.protocol_error(self._peer, error)
            orders = self.core.expire(self._world.clock.now)
        self._carry_out(orders)
        self._core_timer.set(max(self.core.deadline(), self._world.clock.now + SLACK_S))

    def _carry_out(self, orders: Iterable[kept.Order]) -> None:
        for order in orders:
            self._send(order.peer, order.message)
        if self.core.begun != self._begun:
            self._begun = self.core.begun
            self._began()

    def _began(self) -> None:
        if self._peer.scheduler is not None:
            self._peer.scheduler.began()

    def _core_due(self) -> None:
        now = self._world.clock.now
        if self.core.deadline() <= now:
            self._carry_out(self.core.expire(now))
        self._core_timer.set(max(self.core.deadline(), now + SLACK_S))

    def _seek(self, task: TaskId, event: sought.Event) -> None:
        found = self._seekers.get(task)
        if found is not None:
            self._follow(*found, found[1].handle(event, self._world.clock.now))

    def seek_time(self) -> None:
        """Also called with every tick of the download, which may have begun to wait."""
        now = self._world.clock.now
        for member, ladder in tuple(self._seekers.values()):
            ladder.handle(sought.Waiting(member.waiting()), now)
            if ladder.deadline() <= now:
                self._follow(member, ladder, ladder.expire(now))
            self._seek_timer.set(max(ladder.deadline(), now + SLACK_S))

    def _follow(self, member: SwarmMember, ladder: Ladder, orders: Iterable[At]) -> None:
        self._at_seat.update(dict.fromkeys(ladder.seats, member.task))
        for at in orders:
            match at.order:
                case sought.EnrolAt():
                    self._enrol(member, at.place, at.order)
                case sought.Settled(peer=peer, term=term):
                    if at.place.top:
                        member.keeper_found(peer, term)
                        self._began()
                    else:
                        member.cell_found(peer)
                    for message in self._owed.pop(member.task, ()) if at.place.top else ():
                        self._send(peer, message)
                case sought.Unsettled():
                    pass
        self._seek_timer.set(max(ladder.deadline(), self._world.clock.now + SLACK_S))

    def _enrol(self, member: SwarmMember, place: Place, at: sought.EnrolAt) -> None:
        state = member.enrolment()
        enrol = msg.Enrol(
            task=place.seat, spec=state.spec, candidates=at.candidates,
            unreachable=at.unreachable, prior_term=at.prior_term, wants=state.wants,
            access=state.access, zone=self._peer.zone, seed=self._peer.seed,
            version=state.version, have=state.have, leases=state.leases,
            scope=place.scope, wide=None if place.top else member.task,
            delegate=place.delegate, cell_keeper=place.cell_keeper,
        )  # fmt: skip
        self._send(at.peer, enrol)

    def _register_soon(self) -> None:
        if not self._registering and self._directory.tasks():
            self._registering = True
            self._world.clock.after(REGISTER_S, self._peer.guarded(self._register))

    def _register(self) -> None:
        self._registering = False
        if self._synced:
            for peer, holdings in self._directory.due(member.peer for member in self._live):
                self._send(peer, holdings)
