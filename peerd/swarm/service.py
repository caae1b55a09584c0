"""All tasks of this peer: starts and ends downloads, and routes what links bring to them.

Always: at most one run a task; a run lives as long as a caller waits for it, or for good on a seed
peer that was enlisted; what a run that ended early holds goes on being served and stays known to
the keeper for a while.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import trio

from peerd.errors import Cancelled, PeerUnreachable, RemoteProtocolError, UsageError
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Access, Message
from peerd.link.scheduler_messages import PRIORITY_MAX
from peerd.manifest import Attestation
from peerd.scheduler.advising import PeerAdvice
from peerd.scheduler.ports import EnrolState
from peerd.swarm import events as ev
from peerd.swarm.incoming import Arrived, Inbound, Outcome, Spoilt
from peerd.swarm.mates import JOIN_AGAIN_S, bitmap
from peerd.swarm.places import Places
from peerd.swarm.ports import StoredVersion
from peerd.swarm.run import TaskRun
from peerd.swarm.serving import Serving
from peerd.swarm.surroundings import Surroundings
from peerd.task import Ask, TaskSpec, is_shared, task_id, told_spec

log = logging.getLogger(__name__)

OK: Final = "ok"
RUNS_MAX: Final = 256
"""Downloads at once on one peer. Guess: beyond it they only slow each other down."""
PAST_MAX: Final = 1000
"""Ended runs whose story `peerd task show` can still tell."""
PARTIAL_MAX: Final = 64
"""Ended-early downloads whose pieces the keeper is still told of."""


@dataclass
class _Going:
    """A run from its start until `over`. `stays`: it was enlisted, and needs no caller."""

    run: TaskRun
    stays: bool
    callers: int = 0
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)

    def may_be_joined(self) -> bool:
        return not (self.run.finished.is_set() or self.scope.cancel_called)


class PartialHolder:
    """A member of the swarm that wants nothing (more) but has some pieces."""

    def __init__(self, ask: Ask, stored: StoredVersion) -> None:
        self.task, self.scope = stored.info.task, ""
        self._ask, self._stored = ask, stored

    def enrolment(self) -> EnrolState:
        return EnrolState(
            spec=told_spec(self._ask),
            shared=is_shared(self._ask),
            wants=False,
            access=Access.UNKNOWN,
            version=self._stored.info,
            have=self._stored.held.to_bytes(),
            leases=(),
        )

    def waiting(self) -> bool:
        return False

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        """Enrolling said it all."""

    def cell_found(self, keeper: PeerId) -> None:
        """The same."""

    def keeper_says(self, message: Message) -> None:
        """Nothing is wanted, so nothing follows."""


class SwarmService:
    """The swarm side of the daemon: `get` for callers, LinkHandler's swarm part for links.

    `ended`: downloads, by the error's code, or "ok".
    """

    def __init__(self, near: Surroundings, own_secret: bytes, *, seed: bool) -> None:
        self.near = near
        self.serving = Serving(near.key.peer_id, near.store, near.links)
        self._secret, self._seed = own_secret, seed
        self._runs: dict[TaskId, TaskRun] = {}
        self._going: dict[TaskId, _Going] = {}
        self._past: OrderedDict[TaskId, TaskRun] = OrderedDict()
        self._partial: OrderedDict[TaskId, PartialHolder] = OrderedDict()
        self._joined: dict[PeerId, dict[VersionId, float]] = {}
        self._places = Places()
        self.ended: Counter[str] = Counter()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves and downloads until cancelled; runs then end with Cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self.serving.run)
            for stored in reversed(self.near.store.versions()):  # The newest last.
                if stored.complete:
                    self._hold(stored)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    # --- callers

    @asynccontextmanager
    async def wanted(self, ask: Ask, priority: int = PRIORITY_MAX) -> AsyncIterator[TaskRun]:
        """The task's run, for as long as the caller is inside; joined to one that goes on."""
        task = task_id(ask, self._secret)
        going = self._going.get(task)
        if going is None or not going.may_be_joined():
            going = self._start(task, ask)
        going.callers += 1
        going.run.priority = priority if going.callers == 1 else max(going.run.priority, priority)
        try:
            yield going.run
        finally:
            going.callers -= 1
            if not going.callers and not going.stays and not going.run.finished.is_set():
                going.scope.cancel()

    def runs(self) -> dict[TaskId, TaskRun]:
        """Those that go on, and those that ended lately."""
        return {**self._past, **self._runs}

    def advised(self, advice: PeerAdvice) -> None:
        """The scheduler's leader says whom to try first in a task, whose pieces to send first, and
        to whom what was read here: a hint."""
        now = trio.current_time()
        places = self._places.told(advice.task, advice.place, advice.until, now)
        versions = {
            stored.info.version: place
            for task, place in places.items()
            for stored in self.near.store.versions(task)
        }
        self.serving.order(versions, advice.until)
        first = [child.peer for child in advice.first]
        self.serving.feed_first(advice.task, first, advice.until)
        run = self._runs.get(advice.task)
        if run is not None and run.going():
            run.advised(advice)
        self._give_way()

    def _give_way(self) -> None:
        """Of the downloads on this peer the first in order gets most of what comes in."""
        going = [task for task, run in self._runs.items() if run.going()]
        for task in going:
            until = self._places.behind_until(task, going)
            self._runs[task].post(ev.ComesBehind(until))

    async def remove(self, task: TaskId) -> int:
        """Forget a task: ends its run, unlinks its versions. Returns the number of versions."""
        if task in self._going:
            raise UsageError("that task is being downloaded; end its download first")
        self._past.pop(task, None)
        self._end_partial(task)
        versions = self.near.store.versions(task)
        for stored in versions:
            await self.near.store.remove(stored.info.version)
        self.near.keepers.dropped(task)
        return len(versions)

    def _start(self, task: TaskId, ask: Ask, *, stays: bool = False) -> _Going:
        if self._nursery is None or len(self._runs) >= RUNS_MAX:
            raise UsageError(f"{len(self._runs)} downloads are under way; wait for one to end")
        before = self._going.get(task)
        run = self._runs[task] = TaskRun(task, ask, self.near)
        going = self._going[task] = _Going(run, stays)
        self._nursery.start_soon(self._drive, going, before)
        return going

    async def _drive(self, going: _Going, before: _Going | None) -> None:
        """One that ends takes its leave of the keeper first, else it would take the next one's."""
        run = going.run
        try:
            if before is not None:
                with trio.CancelScope(shield=True):  # It has finished or is cancelled: soon over.
                    await before.over.wait()
            self._end_partial(run.task)
            with going.scope:
                await run.run()
            if not run.finished.is_set():
                run.fail(Cancelled("the download was ended before it began"))
            self._ended(run)
        finally:
            going.over.set()

    def _ended(self, run: TaskRun) -> None:
        task = run.task
        if self._runs.get(task) is run:
            del self._runs[task], self._going[task]
        self._give_way()
        self.ended[OK if run.error is None else run.error.code] += 1
        self._past[task] = run
        self._past.move_to_end(task)
        if len(self._past) > PAST_MAX:
            self._past.popitem(last=False)
        if run.error is None:
            return
        self.near.keepers.leave(task)
        stored = run.stored
        if stored is not None and stored.held and self.near.store.versions(task):
            holder = self._partial[task] = PartialHolder(run.ask, stored)
            self.near.keepers.join(holder)
            if len(self._partial) > PARTIAL_MAX:
                self._end_partial(next(iter(self._partial)))

    def _end_partial(self, task: TaskId) -> None:
        if self._partial.pop(task, None) is not None:
            self.near.keepers.leave(task)

    def _hold(self, stored: StoredVersion) -> None:
        ask = self.near.store.asked(stored.info.task)
        if ask is not None and is_shared(ask):
            self.near.keepers.holds(stored.info)

    # --- links (LinkHandler's swarm part)

    def link_down(self, peer: PeerId) -> None:
        self._joined.pop(peer, None)
        self.serving.peer_gone(peer)
        self.near.inbound.peer_gone(peer)
        for run in tuple(self._runs.values()):
            run.mates.link_down(peer)

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        """RemoteProtocolError where the peer broke the protocol: its link is closed."""
        match message:
            case msg.Join():
                self._join(peer, message)
            case msg.Request():
                self.serving.requested(peer, message)
            case msg.Cancel():
                self.serving.cancelled(peer, message)
            case msg.Have() | msg.Reject() | msg.Depart() | msg.MatesAsk() | msg.Mates():
                for run in tuple(self._runs.values()):
                    run.mates.says(peer, message)
            case msg.Enlist(task=task, spec=spec):
                self._enlist(peer, task, spec)
            case _:
                log.debug("%s sent %s, which is for nobody here", peer, type(message).__name__)

    def _join(self, peer: PeerId, join: msg.Join) -> None:
        join.version.verified()
        bitmap(join.version, join.have)
        run = self._runs.get(join.version.task)
        if run is not None and not run.finished.is_set():
            run.mates.joined(peer, join)
            return
        stored = self.near.store.find(join.version.version)
        if stored is None or not stored.held:
            self._tell(peer, msg.Depart(join.version.version))
            return
        now, answered = trio.current_time(), self._joined.setdefault(peer, {})
        if now - answered.get(stored.info.version, -JOIN_AGAIN_S) >= JOIN_AGAIN_S:
            answered[stored.info.version] = now
            held = stored.held.to_bytes()
            self._tell(peer, msg.Join(stored.info, held, self.near.zone))

    def _tell(self, peer: PeerId, message: Message) -> None:
        try:
            self.near.links.send(peer, message)
        except PeerUnreachable:
            log.debug("%s went before it was answered", peer)

    def _enlist(self, peer: PeerId, task: TaskId, spec: TaskSpec) -> None:
        """A keeper asks a seed peer to take part."""
        ask = Ask(spec)
        if not self._seed or self._nursery is None:
            return
        if not is_shared(ask) or task_id(ask, self._secret) != task:
            raise RemoteProtocolError(f"{peer} enlists for a task that is not what it says")
        if urlsplit(spec.url).scheme.lower() not in ("http", "https"):
            log.info("task %s: its URL is of another machine's own", task[:12])
            return
        going = self._going.get(task)
        if going is not None and going.may_be_joined():
            going.stays = True
        elif len(self._runs) < RUNS_MAX:
            log.info("task %s: enlisted by %s", task[:12], peer)
            self._start(task, ask, stays=True)

    # --- pieces coming in

    def chunk_arrived(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        offset_bytes: int,
        attestation: Attestation | None,
        data: memoryview,
    ) -> Outcome | None:
        """In a worker thread (link/ports.LinkHandler)."""
        inbound: Inbound = self.near.inbound
        return inbound.feed(peer, version, index, size_bytes, offset_bytes, attestation, data)

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        assert isinstance(outcome, (Arrived, Spoilt)), "what feed returns"
        run = self._runs.get(outcome.stored.info.task)
        if run is not None:
            run.arrived(outcome)
