"""A member's way to the keeper that grants leases: over the keepers of its cells, if there are any.

Always: the rungs that are stood on are a beginning of the path, the narrowest cell first; a wider
one is entered only when the keeper of the one below asks this peer to stand for its cell (or there
are no cells); the path is chosen once, when the group is known, and kept (ADR 0015).
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from peerd import cells
from peerd.ids import PeerId, TaskId
from peerd.link.messages import (
    Complaint,
    Delegate,
    Dispute,
    Doubted,
    Message,
    Progress,
    Withdraw,
)
from peerd.scheduler.seeker import (
    Begin,
    Event,
    Heard,
    MembersNow,
    Order,
    Seeker,
    SeekerConfig,
    Settled,
    Waiting,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rung's Enrol goes. `delegate`: it also stands one higher; `cell_keeper`: of the one
    below, who is to hear what is said here."""

    seat: TaskId
    scope: str
    top: bool
    delegate: bool = False
    cell_keeper: PeerId | None = None


@dataclass(frozen=True, slots=True)
class At:
    """An order of the seeker of that place."""

    place: Place
    order: Order


@dataclass(slots=True, eq=False)
class Rung:
    """One keeper that is sought."""

    place: Place
    cell: str
    seeker: Seeker


class Ladder:
    """One task, or one scope of a version, on the asking side (`scope` as messages name it).

    `shared` False: the task is this machine's own business.
    """

    def __init__(
        self,
        own: PeerId,
        task: TaskId,
        scope: str = "",
        config: SeekerConfig | None = None,
        *,
        shared: bool = True,
    ) -> None:
        self.own, self.task, self.scope = own, task, scope
        self._config, self._shared = config, shared
        self._path: tuple[str, ...] = ()
        self._rungs: list[Rung] = []
        self._group = MembersNow((), False)
        self._begun = self._waiting = False

    # --- what is seen of it

    @property
    def seats(self) -> tuple[TaskId, ...]:
        """What its keepers' messages name as their task."""
        return tuple(rung.place.seat for rung in self._rungs)

    @property
    def keeper(self) -> PeerId | None:
        """Of the top: who grants leases. None as long as this peer does not stand there."""
        return self._rungs[-1].seeker.keeper if self._at_top() else None

    @property
    def keepers(self) -> tuple[PeerId, ...]:
        """Of every rung, as far as they are found; never this peer itself."""
        found = (rung.seeker.keeper for rung in self._rungs)
        return tuple(peer for peer in found if peer not in (None, self.own))

    @property
    def stands_below(self) -> bool:
        """Whether it is heard by the keeper of a cell alone."""
        return bool(self._rungs) and not self._at_top()

    @property
    def term(self) -> int:
        return self._rungs[-1].seeker.term if self._rungs else 0

    def accepts(self, peer: PeerId, message: Message) -> bool:
        """Whether it is of one of our keepers, and not of an older term."""
        rung = self._rung(message)
        return rung is not None and rung.seeker.accepts(peer, message)

    def addressed(self, message: Message) -> list[tuple[PeerId, Message]]:
        """To whom it is to be said; none if nobody who would hear it is known now."""
        match message:
            case Progress() | Complaint() | Withdraw():
                rungs = self._rungs
            case Dispute() | Doubted():
                rungs = self._rungs[-1:]  # Below the top it asks to be let stand there.
            case _:
                rungs = self._rungs[-1:] if self._at_top() else []
        told: list[tuple[PeerId, Message]] = []
        for rung in rungs:
            if rung.seeker.keeper is not None:
                same = not rung.cell
                told.append((
                    rung.seeker.keeper,
                    message if same else replace(message, task=rung.place.seat),
                ))  # fmt: skip
        return told

    def validate(self) -> None:
        for rung in self._rungs:
            rung.seeker.validate()
        assert len(self._rungs) <= len(self._path) + 1

    # --- the door

    def handle(self, event: Event, now: float) -> list[At]:
        match event:
            case Begin():
                self._begun = True
                return self._look(now)
            case MembersNow():
                self._group = event
                found = [
                    at
                    for rung in tuple(self._rungs)
                    for at in self._at(rung, rung.seeker.handle(self._seen(rung.cell), now), now)
                ]
                return [*found, *self._look(now)]
            case Heard(peer=peer, message=Delegate() as message):
                rung = self._rung(message)
                if rung is None or not rung.seeker.accepts(peer, message):
                    return []
                stands = rung is self._rungs[-1] and not rung.place.top
                heard = self._at(rung, rung.seeker.handle(event, now), now)
                return [*heard, *self._climb(now)] if stands else heard
            case Heard(message=message):
                rung = self._rung(message)
                return [] if rung is None else self._at(rung, rung.seeker.handle(event, now), now)
            case Waiting(waiting=waiting):
                self._waiting = waiting
        return [
            at
            for rung in tuple(self._rungs)
            for at in self._at(rung, rung.seeker.handle(event, now), now)
        ]

    def expire(self, now: float) -> list[At]:
        return [
            at for rung in tuple(self._rungs) for at in self._at(rung, rung.seeker.expire(now), now)
        ]

    def deadline(self) -> float:
        return min((rung.seeker.deadline() for rung in self._rungs), default=float("inf"))

    # --- climbing

    def _look(self, now: float) -> list[At]:
        """Onto the lowest rung, once it is known how large the group is."""
        if not self._begun or not self._group.synced or self._rungs:
            return []
        if self._shared:
            self._path = cells.path(self.own, cells.bits_for(len(self._group.members)))
        return self._climb(now)

    def _climb(self, now: float) -> list[At]:
        height = len(self._rungs)
        cell = self._path[height] if height < len(self._path) else ""
        place = Place(cells.cell_seat(self.task, cell), cells.scope_of(self.scope, cell), not cell)
        seeker = Seeker(self.own, place.seat, self._config, shared=self._shared)
        self._rungs.append(Rung(place, cell, seeker))
        found: list[At] = []
        for event in (self._seen(cell), Begin(), Waiting(self._waiting)):
            found += self._at(self._rungs[height], seeker.handle(event, now), now)
        return found

    def _seen(self, cell: str) -> MembersNow:
        """Those who can keep that cell."""
        if not cell:
            return self._group
        fit = tuple(x for x in self._group.members if cells.lies_in(x.peer, "", f"#{cell}"))
        return MembersNow(fit, self._group.synced)

    def _at(self, rung: Rung, orders: list[Order], now: float) -> list[At]:
        """The orders with their place; who stands for a cell says so when its keeper changed."""
        height = self._rungs.index(rung)
        below = self._rungs[height - 1].seeker.keeper if height else None
        place = Place(
            rung.place.seat, rung.place.scope, rung.place.top,
            delegate=height + 1 < len(self._rungs), cell_keeper=below,
        )  # fmt: skip
        found = [At(place, order) for order in orders]
        if any(isinstance(order, Settled) for order in orders) and place.delegate:
            above = self._rungs[height + 1]
            found += self._at(above, above.seeker.again(now), now)
        return found

    def _rung(self, message: Message) -> Rung | None:
        seat = getattr(message, "task", None)
        return next((rung for rung in self._rungs if rung.place.seat == seat), None)

    def _at_top(self) -> bool:
        return bool(self._rungs) and self._rungs[-1].place.top
