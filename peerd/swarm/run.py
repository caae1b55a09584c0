"""One task on one peer, from the first question to the last piece: the shell around `Download`.

Always: the core decides what to ask whom, this carries it out; whatever ends the run, the store
keeps what was acknowledged, and the keeper is told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from peerd.errors import (
    Cancelled,
    NoSpace,
    PeerdError,
    RemoteProtocolError,
)
from peerd.ids import PeerId, PieceIndex, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseInfo, LeaseKind
from peerd.link.scheduler_messages import PRIORITY_MAX
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet
from peerd.scheduler.ports import NOT_REACHED
from peerd.swarm import accounting
from peerd.swarm import events as ev
from peerd.swarm.ending import condemn, finish
from peerd.swarm.extents import telling
from peerd.swarm.incoming import Arrived, Outcome
from peerd.swarm.mates import Mates
from peerd.swarm.member import TaskMember
from peerd.swarm.ports import StoredVersion
from peerd.swarm.reading import LeasedRead
from peerd.swarm.scopes import Scopes
from peerd.swarm.surroundings import Surroundings
from peerd.swarm.whole import WholeDigest
from peerd.task import Ask, is_shared

log = logging.getLogger(__name__)

PROGRESS_EVERY_S: Final = 0.5
"""The keeper hears what we hold at most twice a second, by change."""
TICK_MAX_S: Final = 0.5


class TaskRun(TaskMember):
    """Wants the whole of one task. `finished` is set at the end; then `error` says if it failed.

    `priority`: the greatest of those who wait for it.
    """

    def __init__(self, task: TaskId, ask: Ask, near: Surroundings) -> None:
        super().__init__(task, ask, near)
        self.priority = PRIORITY_MAX
        self.mates = Mates(self, near)
        self.scopes = Scopes(self, near.keepers, near.zone if is_shared(ask) else "")

    # --- the life of a run

    async def run(self) -> None:
        """Until all is held or it failed. Cancelled: leases are given back, pieces stay."""
        self._started_at = trio.current_time()
        self.account.begin(self._started_at)
        try:
            async with trio.open_nursery() as self._nursery:
                await self._resume()
                if not self.finished.is_set():
                    self._near.keepers.join(self)
                    self._spawn(self._tick)
                    self._spawn(self._report_progress)
                    await self.finished.wait()
                self._nursery.cancel_scope.cancel()
        except* PeerdError as errors:
            error = telling(errors)
            log.warning("task %s failed: %s", self.task[:12], error)
            self.fail(error)
        except* Exception as group:  # A bug in one download must not end the others.
            log.exception("task %s failed on an internal error", self.task[:12])
            self.fail(PeerdError(f"internal error: {group!r}; the log has more"))
        finally:
            if not self.finished.is_set():
                self.fail(Cancelled("the download was ended before it was complete"))
            self.mates.flush(self.core.untold())
            self._withdraw()
            self.scopes.leave()
        await accounting.keep(self, self._near.store)

    @property
    def reads(self) -> bool:
        return bool(self._leases)

    def count_time(self) -> None:
        """For its account: what the time since the last call went into."""
        accounting.count_time(self, self._near.inbound.received_bytes)

    def _withdraw(self) -> None:
        """What was asked for and has not come is wanted no more; its parts are forgotten."""
        if self.stored is None:
            return
        version = self.stored.info.version
        for parent in tuple(self.core.parents):
            if parent.in_flight:
                self.mates.send(parent.peer, msg.Cancel(version, tuple(parent.in_flight)))
        self._near.inbound.forget_version(version)

    async def _resume(self) -> None:
        """What the store has: all of it and fresh, a part, or nothing."""
        known = self._near.store.versions(self.task)
        if not known:
            return
        await known[0].prove()
        self._use(known[0])
        assert self.stored is not None
        self.tally.from_store = self.stored.info.bytes_of(self.stored.held)
        if self.stored.complete and (self.ask.spec.digest or self.age_s() <= self._near.fresh_s):
            self.complete()

    def complete(self) -> None:
        assert self.stored is not None
        self.count_time()
        self.state = "complete"
        self.note("complete")
        if is_shared(self.ask):
            self._near.keepers.holds(self.stored.info)
        else:
            self._near.keepers.leave(self.task)
        self.scopes.complete()
        self._end()

    def age_s(self) -> float:
        """How long ago the origin confirmed the version."""
        assert self.stored is not None
        at = self._near.store.validated_at(self.stored.info.version)
        return max(0.0, self._near.wall_clock() - at)

    def going(self) -> bool:
        return not self.finished.is_set()

    def read_here(self) -> tuple[PieceIndex, ...]:
        """The pieces of it that this peer itself read from the origin."""
        stored = self.stored
        if stored is None:
            return ()
        made = ((index, stored.attestation(index)) for index in stored.held)
        return tuple(index for index, each in made if each and each.attester == self.own)

    def blocked(self) -> dict[PeerId, str]:
        """Peers that were caught at something, and at what."""
        stalled = {
            peer: f"stalled {times} times" if times > 1 else "stalled"
            for peer, times in self.core.parents.stall_counts().items()
        }
        return {**stalled, **self.core.parents.blocked, **self.culprits}

    # --- reading.Reader

    def origin_bytes(self, count: int) -> None:
        self.tally.from_origin += count
        self._access = Access.PROVEN

    def piece_read(self, stored: StoredVersion, index: PieceIndex) -> None:
        if stored is self.stored:
            self.post(ev.PieceRead(index))
            self.scopes.progress()  # Before it is in sight of who would bring it into the zone.
            self._advance()

    async def open_version(self, info: VersionInfo) -> StoredVersion:
        """The stored version of that id, now the one that this run downloads."""
        if info.task != self.task or info.digest != self.ask.spec.digest:
            raise RemoteProtocolError(f"{info.attester} vouched for a version of another content")
        async with self._opening:
            if self.stored is not None and self.stored.info.version == info.version:
                if self.stored.info.length_bytes is None and info.length_bytes is not None:
                    await self.length_known(self.stored, info)
                elif self.stored.info.ranged != info.ranged:
                    await self.stored.set_info(info)
                return self.stored
            stored = await self._near.store.create(self.ask, info)
            await stored.prove()
            if self.stored is not None:
                self.note(f"the content changed: version {info.version[:12]}")
                self._near.inbound.forget_version(self.stored.info.version)
            self._use(stored)
            return stored

    async def length_known(self, stored: StoredVersion, info: VersionInfo) -> None:
        before = stored.held
        await stored.set_info(info)
        if stored is self.stored:
            self.post(ev.LengthKnown(info))
            for index in before - stored.held:
                self.lost(index)
            self._advance()

    def lost(self, index: PieceIndex) -> None:
        """A piece that was held is not any more."""
        if self.whole is not None:
            self.whole.dropped(index)
        self.post(ev.PieceLost(index))

    async def confirmed(self, info: VersionInfo) -> None:
        await self._near.store.set_validated(info.version, self._near.wall_clock())
        self.confirmation.set()

    def not_confirmed(self, error: PeerdError) -> None:
        """The origin cannot be asked: the last known version is good, and its age is said."""
        self.note(f"not revalidated: {error}")
        self.stale = True
        self.confirmation.set()

    def _use(self, stored: StoredVersion) -> None:
        self.count_time()
        self.stored = stored
        self.state = "fetching"
        self.note(f"version {stored.info.version[:12]}, {stored.info.length_bytes} bytes")
        if stored.info.digest is not None:
            self.whole = WholeDigest(stored, self._near.offload)
            self._spawn(self.whole.run)
        self.post(ev.VersionOpened(stored.info, stored.held))
        if not stored.held.complete():
            self.scopes.enrol(stored)
        self.mates.version_opened()
        self.news.tell()

    # --- pieces from peers

    def arrived(self, outcome: Outcome) -> None:
        """A whole piece came in from a peer, written or spoilt."""
        if outcome.stored is not self.stored or self.finished.is_set():
            return
        if isinstance(outcome, Arrived):
            self._spawn(self._acknowledge, outcome)
        elif outcome.error is not None:
            self.fail(_store_error(outcome.error))
        elif outcome.blame:
            self.post(ev.PieceBad(outcome.peer, outcome.index, outcome.words))
        else:
            self.post(ev.PieceRejected(outcome.peer, (outcome.index,)))

    async def _acknowledge(self, arrived: Arrived) -> None:
        index = PieceIndex(arrived.attestation.index)
        try:
            await arrived.stored.acknowledge(index, arrived.attestation)
        except PeerdError as error:
            self.fail(error)
            return
        if index not in arrived.stored.held:
            # Dropped meanwhile, or another's bytes went over it: wanted again.
            if arrived.stored is self.stored:
                self.post(ev.PieceRejected(arrived.peer, (index,)))
            return
        sums = self.tally.from_peers
        sums[arrived.peer] = sums.get(arrived.peer, 0) + arrived.size_bytes
        if arrived.stored is self.stored:
            self.post(ev.PieceArrived(arrived.peer, index, arrived.size_bytes))
            self._advance()

    def _advance(self) -> None:
        """More is held."""
        if self.whole is not None:
            self.whole.advance()
        self.news.tell()

    # --- carrying out

    def _spawn(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """As a task of this run; what comes after its end is for nobody."""
        if not self.finished.is_set():
            self._nursery.start_soon(work, *arguments)

    def post(self, event: ev.Event) -> None:
        """Hand an event to the core, and do what it orders; orders may post again."""
        if self.finished.is_set():
            return
        if isinstance(event, ev.ParentJoined) and self._complaints.get(event.peer) == NOT_REACHED:
            del self._complaints[event.peer]  # It is there again.
        self._pending.append(event)
        if self._draining:
            return
        self._draining = True
        try:
            while self._pending:
                now = trio.current_time()
                for order in self.core.handle(self._pending.popleft(), now):
                    self._carry_out(order)
        finally:
            self._draining = False

    def _carry_out(self, order: ev.Order) -> None:
        match order:
            case ev.Connect(peer=peer, addresses=addresses):
                self._spawn(self.mates.connect, peer, addresses)
            case ev.RequestPieces(peer=peer, indices=indices):
                assert self.stored is not None
                distrusted = self.culprits.__contains__
                self._near.inbound.expect(peer, self.stored, indices, distrusted)
                version, lacking = self.stored.info.version, len(self.stored.held.missing())
                self.mates.send(peer, msg.Request(version, indices, lacking))
            case ev.CancelPieces(peer=peer, indices=indices):
                assert self.stored is not None
                self._near.inbound.forget(peer, self.stored.info.version, indices)
                self.mates.send(peer, msg.Cancel(self.stored.info.version, indices))
            case ev.AskLeases(room=room, reader_at=reader_at):
                self.ask_leases(room, reader_at)
            case ev.AskHedge():
                self.note(f"{len(order.indices)} pieces would come late: asking for a hedge")
                self.hedged.update(order.indices)
                self.tell_keeper(order.message(self.task, self.term()))
            case ev.AskBring():
                self.scopes.ask(order)
            case ev.ReportBring():
                self.scopes.report(order)
            case ev.StartRead(info=info, indices=indices):
                self._spawn(self._read, info, indices)
            case ev.Announce(index=index, to=to) if to:
                self.mates.tell(index, to)
            case ev.Announce(index=index, source=source):
                self.mates.announce(index, source, self._spawn)
            case ev.JoinAgain():
                self.mates.join_again()
            case ev.AskMates(peer=peer):
                assert self.stored is not None
                self.mates.ask(peer, self.stored.info.version)
            case ev.Drop(peer=peer, words=words):
                self._drop(peer, words)
            case ev.Complain(peer=peer, words=words):
                self._complaints[peer] = words
                self._complain(peer, words)
            case ev.AllHeld():
                self._spawn(finish, self)

    def _drop(self, peer: PeerId, words: str) -> None:
        self.note(f"dropped {peer}: {words}")
        if peer in self.core.parents.blocked:
            self.culprits[peer] = words
            log.warning("task %s: %s is blocked: %s", self.task[:12], peer, words)
        if self.stored is not None:
            full = peer not in self.core.parents.blocked
            self.mates.left(peer, msg.Depart(self.stored.info.version, full))

    async def _read(
        self, info: LeaseInfo, indices: tuple[int, ...], known: VersionInfo | None = None
    ) -> None:
        lease = LeasedRead(self, self._near, info, self.stored, indices, known)
        if info.lease in self._leases:
            return
        self._leases[info.lease] = lease
        if info.kind is LeaseKind.READ and not indices and self.stored is not None:
            # The keeper believes that nobody holds these.
            held = self.stored.held.to_bytes()
            self.tell_keeper(msg.Progress(self.task, self.stored.info.version, held))
        await lease.run()
        del self._leases[info.lease]
        if not self.finished.is_set():
            self.post(ev.LeaseOver(info.lease))

    async def _condemn(self, attester: PeerId, words: str) -> None:
        await condemn(self, attester, words)

    async def _tick(self) -> None:
        received: dict[PeerId, int] = {}
        while True:
            now = trio.current_time()
            due = min(self.core.deadline(now), now + TICK_MAX_S)
            await trio.sleep_until(max(due, now + 0.02))
            self.count_time()
            for peer in tuple(self.core.parents.joined):
                total = self._near.inbound.received_bytes.get(peer, 0)
                if total != received.get(peer, 0):
                    received[peer] = total
                    self.post(
                        ev.ParentActive(peer, self._near.links.least_round_trip_s(peer) or 0.0)
                    )
            for order in self.core.expire(trio.current_time()):
                self._carry_out(order)

    async def _report_progress(self) -> None:
        told: PieceSet | None = None
        while True:
            await trio.sleep(PROGRESS_EVERY_S)
            if self.stored is not None and self.stored.held != told:
                told = self.stored.held
                self.tell_keeper(msg.Progress(self.task, self.stored.info.version, told.to_bytes()))
                self.scopes.progress()


def _store_error(error: Exception) -> PeerdError:
    return error if isinstance(error, PeerdError) else NoSpace(f"the store cannot write: {error}")
