"""The shell around electing and reporting: who leads, and what it sees of everybody.

Always: the cores decide, this carries out; advice of an older term, or not of who leads us, is not
passed on; a peer that may lead has an elector's core, every other
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
from peerd.scheduler.fence import Fence, prove
from peerd.scheduler.following import Follower
from peerd.scheduler.outbox import Links, Outbox
from peerd.scheduler.ports import Members
from peerd.scheduler.reporting import Facts, Reporter
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


class SchedulerService:
    """`run` it after links and gossip. `wall_s`: seconds since 1970 when trio's clock shows 0."""

    def __init__(
        self, key: SigningKey, members: Members, links: Links, rng: Random,
        facts: Callable[[], Facts], *, wall_s: float, config: ElectingConfig | None = None,
        evaluator: Evaluator = evaluate,
    ) -> None:  # fmt: skip
        self._key, self._own = key, key.peer_id
        self._members, self._links = members, links
        self.config = config or ElectingConfig()
        self.fence = Fence(wall_s)
        self.core: Elector | Follower = Follower(self._own, self.fence, self.config)
        self.electors: tuple[PeerId, ...] = ()
        self.advising = Advising(
            self._own, self, members, Advisor(rng, evaluator), Reporter(self._own, rng), facts,
            self._send,
        )  # fmt: skip
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
        leader = core.leader(now)
        return Leadership(
            leader=leader,
            term=core.term,
            since_s=now - self._since,
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

    # --- what links and gossip bring

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        if isinstance(message, Reports):
            self.advising.reported(peer, message.reports, trio.current_time())
            self._wake.set()
        elif isinstance(message, Advice):
            self.advising.advised(peer, message, trio.current_time())
        else:
            self._do(Heard(peer, message))

    def link_up(self, peer: PeerId) -> None:
        self._do(Reached(peer))

    def link_down(self, peer: PeerId) -> None:
        self.advising.lost(peer)
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
        self.electors = electors_of(here, self.config.electors_max)
        group = [member.peer for member in live]
        self._bits = cells.bits_for(len(group), self._bits)
        self._choose_core()
        contacts = contacts_of(self._own, group, self.electors, self._bits)
        eligible = frozenset((*here, *away))
        self._do(GroupNow(self.electors, eligible, contacts, self._members.synced, away))

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

    def _sign(self, term: int) -> TermProof:
        return prove(self._key, term)

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
            self.advising.tick(now)
            self._wake = trio.Event()
            behind = (self._members.revision, self._members.synced) != self._seen
            looks_at = self._looked_at + LOOKS_EVERY_S if behind else inf
            due = min(self.core.deadline(), self.advising.deadline(now), looks_at)
            with trio.move_on_at(max(due, now + 0.001)):
                await self._wake.wait()
