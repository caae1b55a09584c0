"""One peer's part in electing, reporting and advising: the cores together, as the daemon and the
simulator drive them.

Always: a peer that may lead has an elector's core, every other a follower's, and both know the same
newest term; advice of an older term, or not of who leads us, is not passed on; only who leads, or
stands by, keeps a picture; nothing here is needed for a download to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from peerd import cells
from peerd.ids import PeerId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import Advice, Reports, TermProof
from peerd.scheduler.advising import Advising, Picture
from peerd.scheduler.advisor import Advisor
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
from peerd.scheduler.evaluator import Evaluator, evaluate
from peerd.scheduler.fence import Fence
from peerd.scheduler.following import Follower
from peerd.scheduler.ports import Group
from peerd.scheduler.reporting import Facts, Reporter

if TYPE_CHECKING:
    from random import Random

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


class Scheduling:
    """`wall_s`: seconds since 1970 when `now` is 0. `send` dials where no link stands, and answers
    with `undelivered` if that fails. `on_follow` hears whenever another leads, or nobody."""

    def __init__(
        self, own: PeerId, sign: Callable[[int], TermProof], members: Group, rng: Random,
        facts: Callable[[], Facts], send: Callable[[PeerId, Message], None], *, wall_s: float,
        config: ElectingConfig | None = None, evaluator: Evaluator = evaluate,
    ) -> None:  # fmt: skip
        self._own, self._sign, self._members, self._send = own, sign, members, send
        self.config = config or ElectingConfig()
        self.fence = Fence(wall_s)
        self.core: Elector | Follower = Follower(own, self.fence, self.config)
        self.electors: tuple[PeerId, ...] = ()
        self.advising = Advising(
            own, self, members, Advisor(rng, evaluator), Reporter(own, rng), facts, send
        )
        self.on_follow: Callable[[Follow], None] = lambda follow: None
        self._known: dict[PeerId, None] = {}
        self._bits = 0
        self._seen: tuple[int, bool] | None = None
        self._looked_at = -inf
        self._since: float | None = None

    # --- what is seen of it

    def leader(self, now: float) -> PeerId | None:
        """Whom to heed now; None: degraded."""
        return self.core.leader(now)

    def leadership(self, now: float) -> Leadership:
        core, leader = self.core, self.core.leader(now)
        return Leadership(
            leader=leader,
            term=core.term,
            since_s=now - (self._since if self._since is not None else now),
            state=core.state.value,
            electors=self.electors,
            standbys=standbys_of(self.electors, leader),
            contact=core.contact if isinstance(core, Follower) else None,
            subscribers=len(core.party.subscribers),
            advises=self.advises(now),
            picture=self.advising.picture(now),
        )

    def leads(self) -> bool:
        """Whether this peer leads; who does and is cut off does not know it yet."""
        return isinstance(self.core, Elector) and self.core.state is State.LEADING

    def advises(self, now: float) -> bool:
        """Whether it leads, and somebody followed it lately: else what it sees is of nobody."""
        return isinstance(self.core, Elector) and self.core.advises(now)

    def sees(self, now: float) -> bool:
        """Whether this peer leads, or is one of the two that would be next."""
        leader = self.core.leader(now)
        return leader == self._own or self._own in standbys_of(self.electors, leader)

    # --- what links bring

    def message_arrived(self, peer: PeerId, message: Message, now: float) -> None:
        if isinstance(message, Reports):
            self.advising.reported(peer, message.reports, now)
        elif isinstance(message, Advice):
            self.advising.advised(peer, message, now)
        else:
            self._do(Heard(peer, message), now)

    def link_up(self, peer: PeerId, now: float) -> None:
        self._do(Reached(peer), now)

    def link_down(self, peer: PeerId, now: float) -> None:
        self.advising.lost(peer)
        self._do(Unreachable(peer), now)

    def undelivered(self, peer: PeerId, now: float) -> None:
        """What was sent to it could not be."""
        self._do(Unreachable(peer), now)

    # --- time

    def tick(self, now: float) -> None:
        """All that is due; also called soon after the group changed."""
        if self._since is None:
            self._since = now
        self._look(now)
        if self.core.deadline() <= now:
            self._carry_out(self.core.expire(now), now)
        self.advising.tick(now)

    def deadline(self, now: float) -> float:
        behind = (self._members.revision, self._members.synced) != self._seen
        looks_at = self._looked_at + LOOKS_EVERY_S if behind else inf
        return min(self.core.deadline(), self.advising.deadline(now), looks_at)

    # --- the group

    def _look(self, now: float) -> None:
        seen = (self._members.revision, self._members.synced)
        if seen == self._seen or now < self._looked_at + LOOKS_EVERY_S:
            return
        self._seen, self._looked_at = seen, now
        live = self._members.live()
        here = {member.peer for member in live if member.scheduler}
        away = self._gone_away(here)
        self.electors = electors_of(here, self.config.electors_max)
        group = [member.peer for member in live]
        self._bits = cells.bits_for(len(group), self._bits)
        self._choose_core()
        contacts = contacts_of(self._own, group, self.electors, self._bits)
        eligible = frozenset((*here, *away))
        self._do(GroupNow(self.electors, eligible, contacts, self._members.synced, away), now)

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
        elects = self._own in self.electors
        if elects == isinstance(self.core, Elector):
            return
        self.core = (
            Elector(self._own, self._sign, self.fence, self.config) if elects
            else Follower(self._own, self.fence, self.config)
        )  # fmt: skip

    # --- carrying out

    def _do(self, event: Event, now: float) -> None:
        self._carry_out(self.core.handle(event, now), now)

    def _carry_out(self, orders: list[Order], now: float) -> None:
        for order in orders:
            match order:
                case Send(peer=peer, message=message):
                    self._send(peer, message)
                case Follow():
                    self._since = now
                    self.on_follow(order)
