"""The tasks of one peer as a keeper: which there are, when they are due, and what is seen of them.

Always: a task is in `_active` exactly while it is kept, probed for or waited for; `_above` has the
cells that are kept, by their wider seat; the heap of due times holds each task's newest one (older
ones are skipped); idle tasks are forgotten, oldest first.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, OrderedDict, deque
from math import inf
from urllib.parse import urlsplit

from peerd import cells
from peerd.ids import PeerId, TaskId
from peerd.link.messages import LeaseInfo, Message, Redirect, RosterPeer
from peerd.rendezvous import weight
from peerd.scheduler import keeper_grants as grants
from peerd.scheduler.keeper_cells import above
from peerd.scheduler.keeper_events import KeeperConfig, Order, Rng, Send
from peerd.scheduler.keeper_seat import Seat
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.ports import Member

DEAD_MAX = 4096
"""Peers remembered as not reachable, or as lost. Guess."""


class KeeperTable:
    """The part of a KeeperCore that decides nothing."""

    def __init__(self, own: PeerId, rng: Rng, config: KeeperConfig | None = None) -> None:
        self.own = own
        self.config = config or KeeperConfig()
        self._rng = rng
        self._live: tuple[Member, ...] = ()
        self._by_peer: dict[PeerId, Member] | None = {}
        self._synced = False
        self._revision = 0
        self._seats: OrderedDict[TaskId, Seat] = OrderedDict()
        self._active: dict[TaskId, Seat] = {}
        self._above: dict[TaskId, dict[TaskId, None]] = {}
        self._dead: OrderedDict[PeerId, float] = OrderedDict()
        self._lost_at: OrderedDict[PeerId, float] = OrderedDict()
        self._late_at: OrderedDict[PeerId, float] = OrderedDict()
        self._called_at = -inf
        self.begun = 0
        self._due: list[tuple[float, TaskId]] = []
        self._out: list[Order] = []

    def deadline(self) -> float:
        """When `expire` wants to be called; inf for not at all."""
        return -inf if self._out else self._next_due()

    def _next_due(self) -> float:
        while self._due:
            at, task = self._due[0]
            seat = self._seats.get(task)
            if seat is not None and seat.due == at:
                return at
            heapq.heappop(self._due)
        return inf

    # --- views

    def tasks_kept(self) -> list[TaskId]:
        return [task for task, seat in self._active.items() if seat.kept is not None]

    def served(self) -> set[PeerId]:
        """Members of the kept tasks in which somebody still wants something."""
        kept = [seat.kept for seat in self._active.values() if seat.kept is not None]
        return {peer for each in kept if each.roster.wanting() for peer in each.roster.entries}

    def origins(self) -> dict[TaskId, int]:
        """Of each task that is kept and not read yet: a number that is the same for all that are
        read at the same place."""
        found: dict[TaskId, int] = {}
        for task, seat in self._active.items():
            kept = seat.kept
            if kept is None or kept.scope or kept.finished:
                continue
            if kept.spec is not None and kept.roster.wanting():
                place = urlsplit(kept.spec.url)
                named = hashlib.sha256(f"{place.scheme}://{place.netloc}".encode()).digest()
                found[task] = int.from_bytes(named[:7])
        return found

    def kept(self, task: TaskId) -> Kept | None:
        """For reading only."""
        seat = self._seats.get(task)
        return seat.kept if seat is not None else None

    def roster(self, task: TaskId) -> tuple[RosterPeer, ...]:
        kept = self.kept(task)
        return tuple(x.named() for x in kept.roster.entries.values()) if kept else ()

    def leases(self, task: TaskId, now: float) -> tuple[LeaseInfo, ...]:
        kept = self.kept(task)
        return tuple(x.info(now) for x in kept.book.leases.values()) if kept else ()

    def unneeded_reads(self, task: TaskId) -> dict[str, int]:
        """Pieces granted again, by reason; `audit` and `dispute` are reads to check another.

        Counted while this peer keeps the task; `counted` has what was counted before.
        """
        kept = self.kept(task)
        return {} if kept is None else kept.unneeded_reads()

    def counted(self, task: TaskId) -> dict[str, int]:
        """The same, over all the times that this peer kept the task."""
        seat = self._seats.get(task)
        if seat is None:
            return {}
        total = Counter(seat.counted)
        if seat.kept is not None:
            total.update(seat.kept.unneeded_reads())
        return dict(total)

    def liars(self, task: TaskId) -> dict[PeerId, str]:
        kept = self.kept(task)
        return dict(kept.roster.liars) if kept else {}

    def story(self, task: TaskId) -> tuple[str, ...]:
        """The last things that happened to a task, oldest first."""
        seat = self._seats.get(task)
        return tuple(seat.story) if seat is not None else ()

    def validate(self) -> None:
        for task, seat in self._seats.items():
            assert seat.task == task
            assert seat.kept is None or seat.probing is None, "probing what it keeps"
            active = seat.kept is not None or seat.probing is not None or bool(seat.waiting)
            assert active == (task in self._active), "the active tasks"
            assert len(seat.listed) <= self.config.versions_max
            if seat.kept is not None:
                seat.kept.validate()
                assert seat.kept.deadline() == seat.due, "when it is due"
        assert len(self._dead) <= DEAD_MAX

    # --- the small print

    @property
    def _members(self) -> dict[PeerId, Member]:
        """The group by peer; made when it is needed, for most peers keep nothing."""
        if self._by_peer is None:
            self._by_peer = {member.peer: member for member in self._live}
        return self._by_peer

    def _is_dead(self, peer: PeerId, now: float) -> bool:
        return self._dead.get(peer, -inf) > now

    def _keeps(self, seat: Seat, now: float) -> bool:
        """Whether the other keeper that was heard of is still believed in."""
        assert seat.keeper is not None
        if now - seat.keeper_at > self.config.handover_pause_s or self._is_dead(seat.keeper, now):
            return False
        if seat.given(self.config, now):
            return False
        return self._lost_at.get(seat.keeper, -inf) < seat.keeper_at

    def _follows(self, seat: Seat, now: float) -> bool:
        """Whether its keeper just died or got too slow for anybody to wait for, and this peer had
        its copies until then, or was left the task: no other standby knows more."""
        if seat.keeper is None or seat.copy is None:
            return False
        late_for_s = now - self._late_at.get(seat.keeper, -inf)
        if seat.given(self.config, now) or late_for_s <= self.config.late_s:
            return True
        if not self._is_dead(seat.keeper, now):
            return False
        lost_at = self._lost_at.get(seat.keeper, -inf)
        return seat.keeper_at <= lost_at and now - lost_at <= self.config.probe_wait_s

    def _after(self, seat: Seat, now: float) -> None:
        """After anything that happened to a kept task."""
        if seat.kept is not None:
            grants.plan(seat.kept, now)
            self._active[seat.task] = seat
        self._schedule(seat)

    def _let_go(self, seat: Seat) -> None:
        """The task is kept no more; what was counted stays."""
        assert seat.kept is not None
        if seat.kept.cell:
            self._end_cell(seat, seat.kept.cell)
        for reason, pieces in seat.kept.unneeded_reads().items():
            seat.counted[reason] = seat.counted.get(reason, 0) + pieces
        seat.kept = None
        self._active.pop(seat.task, None)

    def _end_cell(self, seat: Seat, cell: str) -> None:
        wider = above(seat.wide, cell)
        of_it = self._above.get(wider, {})
        of_it.pop(seat.task, None)
        if not of_it:
            self._above.pop(wider, None)

    def _schedule(self, seat: Seat) -> None:
        at = inf
        if seat.kept is not None:
            at = seat.kept.deadline()
        elif seat.probing is not None:
            at = seat.probing.until
        if at != seat.due:
            seat.due = at
            if at < inf:
                heapq.heappush(self._due, (at, seat.task))

    def _seat(self, task: TaskId) -> Seat:
        seat = self._seats.get(task)
        if seat is None:
            seat = Seat(task, weight(self.own, task), deque(maxlen=self.config.story_max))
            self._seats[task] = seat
            self._forget_some()
        else:
            self._seats.move_to_end(task)
        return seat

    def _rank(self, seat: Seat) -> None:
        """Its order is of those who can keep it: members that lie in its scope."""
        if seat.order_revision != self._revision:
            lies_in = cells.lies_in
            fit = [x.peer for x in self._members.values() if lies_in(x.peer, x.zone, seat.scope)]
            seat.rank(self.own, fit, self._revision)

    def _joins(self, seat: Seat, joined: list[PeerId]) -> list[PeerId]:
        """Those newcomers who can keep it, this peer left out."""
        members = self._members
        lies_in, scope = cells.lies_in, seat.scope
        return [x for x in joined if x != self.own and lies_in(x, members[x].zone, scope)]

    def _forget_some(self) -> None:
        """The longest unused task that nobody is busy with goes."""
        if len(self._seats) <= self.config.tasks_max:
            return
        for _, (task, seat) in zip(range(64), self._seats.items(), strict=False):
            if not seat.busy:
                if seat.kept is not None and seat.kept.cell:
                    self._end_cell(seat, seat.kept.cell)
                del self._seats[task]
                self._active.pop(task, None)
                return

    def _redirect(self, peer: PeerId, task: TaskId, to: PeerId) -> None:
        member = self._members.get(to)
        addresses = member.link_addresses[:8] if member is not None else ()
        self._send(peer, Redirect(task, to, addresses))

    def _send(self, peer: PeerId, message: Message) -> None:
        self._out.append(Send(peer, message))

    def _taken(self) -> list[Order]:
        orders = self._out[:]
        self._out.clear()
        return orders


def remember(table: OrderedDict[PeerId, float], peer: PeerId, at: float) -> None:
    table[peer] = at
    table.move_to_end(peer)
    while len(table) > DEAD_MAX:
        table.popitem(last=False)
