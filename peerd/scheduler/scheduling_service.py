"""The shell around electing, reporting and advising: who leads, and what it sees of everybody.

Always: scheduling.py decides, this carries out and keeps time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import trio

from peerd.ids import PeerId
from peerd.link.messages import Message
from peerd.scheduler.electing import ElectingConfig, Follow
from peerd.scheduler.evaluator import Evaluator, evaluate
from peerd.scheduler.fence import prove
from peerd.scheduler.outbox import Links, Outbox
from peerd.scheduler.ports import Members
from peerd.scheduler.reporting import Facts
from peerd.scheduler.scheduling import Leadership, Scheduling
from peerd.signing import SigningKey

log = logging.getLogger(__name__)


class SchedulerService:
    """`run` it after links and gossip. `wall_s`: seconds since 1970 when trio's clock shows 0."""

    def __init__(
        self, key: SigningKey, members: Members, links: Links, rng: Random,
        facts: Callable[[], Facts], *, wall_s: float, config: ElectingConfig | None = None,
        evaluator: Evaluator = evaluate,
    ) -> None:  # fmt: skip
        self._members, self._links = members, links
        self.seat = Scheduling(
            key.peer_id, lambda term: prove(key, term), members, rng, facts, self._send,
            wall_s=wall_s, config=config, evaluator=evaluator,
        )  # fmt: skip
        self.seat.on_follow = _say_who_leads
        self._wake = trio.Event()
        self._outbox: Outbox | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; who heard this peer lead then sees its links close."""
        async with trio.open_nursery() as nursery:
            self._outbox = Outbox(self._links, nursery, self._undelivered)
            task_status.started()
            try:
                await self._keep_time()
            finally:
                self._outbox = None

    # --- what is seen of it

    @property
    def leader(self) -> PeerId | None:
        """Whom to heed now; None: degraded."""
        return self.seat.leader(trio.current_time())

    def leadership(self) -> Leadership:
        return self.seat.leadership(trio.current_time())

    # --- what links and gossip bring

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        self.seat.message_arrived(peer, message, trio.current_time())
        self._wake.set()

    def link_up(self, peer: PeerId) -> None:
        self.seat.link_up(peer, trio.current_time())
        self._wake.set()

    def link_down(self, peer: PeerId) -> None:
        self.seat.link_down(peer, trio.current_time())
        self._wake.set()

    def began(self) -> None:
        """A download of this peer found its keeper, or is kept here."""
        self.seat.advising.began(trio.current_time())
        self._wake.set()

    def members_changed(self) -> None:
        """The group changed (gossip.on_change): looked at soon."""
        self._wake.set()

    def _undelivered(self, peer: PeerId, words: str) -> None:
        log.debug("%s cannot be reached: %s", peer, words)
        self._members.unreachable(peer)
        self.seat.undelivered(peer, trio.current_time())
        self._wake.set()

    # --- carrying out

    def _send(self, peer: PeerId, message: Message) -> None:
        if self._outbox is not None:
            self._outbox.send(peer, message)

    async def _keep_time(self) -> None:
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            self.seat.tick(now)
            self._wake = trio.Event()
            with trio.move_on_at(max(self.seat.deadline(now), now + 0.001)):
                await self._wake.wait()


def _say_who_leads(follow: Follow) -> None:
    if follow.leader is None:
        log.info("no scheduler: %s (term %d); going on without", follow.why, follow.term)
    else:
        log.info("scheduled by %s, term %d", follow.leader, follow.term)
