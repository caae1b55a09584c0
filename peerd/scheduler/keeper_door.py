"""What members of kept tasks say to their keeper, and what holders register.

Always: who is not on the roster is told where to enrol, and changes nothing else.
"""

from __future__ import annotations

from peerd.cells import lies_in
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, TaskId
from peerd.link.messages import (
    BringAsk,
    CellHolds,
    Complaint,
    Dispute,
    Doubted,
    Ended,
    Enrol,
    HedgeAsk,
    LeaseAsk,
    LeaseReport,
    Progress,
    Register,
    Resolved,
    Sample,
    Withdraw,
)
from peerd.rendezvous import ranked
from peerd.scheduler import keeper_borders as borders
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler import keeper_hedges as hedges
from peerd.scheduler import keeper_holders as holders
from peerd.scheduler import keeper_members as members
from peerd.scheduler import keeper_outcomes as outcomes
from peerd.scheduler.keeper_seat import ORDER_KEPT, Seat
from peerd.scheduler.keeper_table import KeeperTable
from peerd.task import Ask, task_id, task_of_digest

OfMember = (
    LeaseAsk
    | LeaseReport
    | Resolved
    | Ended
    | Progress
    | Dispute
    | Complaint
    | Doubted
    | BringAsk
    | HedgeAsk
)


class MembersDoor(KeeperTable):
    """The part of a KeeperCore that hears members."""

    def _seat_asked(self, peer: PeerId, message: Enrol) -> Seat:
        """The seat that an Enrol names; RemoteProtocolError where its parts do not fit."""
        spec = message.spec
        zone, _, wide = cells.check(peer, message)
        if zone:
            borders.check_scope(message, zone, wide)
        elif peer != self.own and spec is not None and task_id(Ask(spec), b"") != wide:
            raise RemoteProtocolError("the spec is not that task's")
        seat = self._seat(message.task)
        if message.scope and not seat.scope:
            seat.scope, seat.order_revision = message.scope, -1
        seat.wide = wide
        return seat

    def _from_member(self, peer: PeerId, message: OfMember, now: float) -> None:
        task = message.version.task if isinstance(message, Ended) else message.task
        seat = self._seats.get(task)
        kept = seat.kept if seat is not None else None
        entry = kept.roster.entries.get(peer) if kept is not None else None
        if seat is None or kept is None or entry is None:
            self._not_a_member(seat, peer, message, now)
            return
        if kept.cell and not isinstance(message, Progress | Complaint):
            if isinstance(message, Dispute | Doubted | HedgeAsk):
                cells.let_speak(kept, entry)
            return
        match message:
            case LeaseAsk():
                if message.term <= kept.term:
                    entry.room, entry.reader_at = message.room, message.reader_at
                    kept.line_up(entry, now)
            case BringAsk():
                borders.ask(kept, entry, message, now)
            case HedgeAsk():
                hedges.ask(kept, entry, message, now)
            case LeaseReport():
                outcomes.report(kept, entry, message, now)
            case Resolved():
                outcomes.resolved(kept, entry, message, now)
            case Ended():
                outcomes.ended(kept, entry, message, now)
            case Progress():
                members.progress(kept, entry, message, now)
            case Complaint():
                outcomes.complaint(kept, entry, message, now)
            case Doubted():
                outcomes.doubted(kept, entry, message, now)
            case Dispute():
                outcomes.dispute(kept, entry, message, now)
        members.came_back(kept, entry)
        entry.heard_at = now
        self._after(seat, now)

    def _cells_of(self, seat: TaskId, by: PeerId) -> list[Seat]:
        """The cells kept here of a seat that `by` may keep: one of the best-ranked for it."""
        found = [self._seats[task] for task in self._above.get(seat, ()) if task in self._seats]
        kept = [x for x in found if x.kept is not None]
        if not kept:
            self._above.pop(seat, None)
            return []
        scope = cells.scope_above(kept[0].scope)
        fit = [x.peer for x in self._members.values() if lies_in(x.peer, x.zone, scope)]
        return kept if by in ranked([*fit, self.own], seat, ORDER_KEPT) else []

    def keeps_cell_of(self, seat: TaskId) -> bool:
        return seat in self._above

    def _from_cell(self, peer: PeerId, message: Sample | CellHolds, now: float) -> None:
        """From a cell's keeper, or back from the wider one's."""
        if isinstance(message, Sample) and message.back:
            for seat in self._cells_of(message.task, peer):
                assert seat.kept is not None
                cells.sampled_back(seat.kept, message, now)
                self._schedule(seat)
            return
        wide = self._seats.get(message.task)
        if wide is None or wide.kept is None:
            return
        if isinstance(message, Sample):
            cells.sampled(wide.kept, peer, message)
        else:
            cells.hear_held(wide.kept, peer, message)
            self._after(wide, now)

    def _not_a_member(self, seat: Seat | None, peer: PeerId, message: OfMember, now: float) -> None:
        """It takes this peer for its keeper: send it to who is, or have it enrol again."""
        if isinstance(message, Ended | Progress | Dispute | Complaint | Doubted) or (
            seat is not None and seat.waiting
        ):
            return
        if seat is not None and seat.keeper is not None and self._keeps(seat, now):
            self._redirect(peer, message.task, seat.keeper)
        else:
            self._redirect(peer, message.task, self.own)

    def _withdrawn(self, peer: PeerId, message: Withdraw, now: float) -> None:
        seat = self._seats.get(message.task)
        if seat is None:
            return
        seat.unlist_holder(peer)
        if seat.waiting.pop(peer, None) and not seat.waiting and seat.probing is None:
            del self._active[seat.task]
        if seat.kept is not None:
            members.withdraw(seat.kept, peer, now)
            self._after(seat, now)

    def _registered(self, peer: PeerId, message: Register, now: float) -> None:
        for info in message.versions:
            if info.digest is not None and info.task != task_of_digest(info.digest):
                raise RemoteProtocolError(f"digest {info.digest} is not that task's")
        for info in message.versions:
            seat = self._seat(info.task)
            seat.list_holder(info, peer, self.config)
            if seat.kept is not None and seat.kept.version is not None:
                if seat.kept.version.version == info.version:
                    holders.add(seat.kept, peer, now)
                self._after(seat, now)
