"""One task on one peer, from the first question to the last piece: the shell around `Download`.

Always: the core decides what to ask whom, this carries it out; whatever ends the run, the store
keeps what was acknowledged, and the keeper is told.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

import trio

from peerd.errors import (
    Cancelled,
    NoSpace,
    PeerdError,
    RemoteProtocolError,
    error_from,
)
from peerd.ids import PeerId, PieceIndex, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseInfo, LeaseKind, Message
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet
from peerd.scheduler.service import EnrolState
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.ending import condemn, finish
from peerd.swarm.incoming import Arrived, Outcome
from peerd.swarm.mates import Mates
from peerd.swarm.ports import StoredVersion
from peerd.swarm.reading import LeasedRead
from peerd.swarm.surroundings import Surroundings, Tally
from peerd.swarm.whole import WholeDigest
from peerd.task import Ask, is_shared, told_spec

log = logging.getLogger(__name__)

PROGRESS_EVERY_S: Final = 0.5
"""The keeper hears what we hold at most twice a second, by change."""
TICK_MAX_S: Final = 0.5
STORY_MAX: Final = 256
LEASES_MAX: Final = 32
"""Leases used at once, whatever a keeper grants: four times what is asked for."""


class TaskRun:
    """Wants the whole of one task. `finished` is set at the end; then `error` says if it failed."""

    def __init__(self, task: TaskId, ask: Ask, near: Surroundings) -> None:
        self.task, self.ask, self._near = task, ask, near
        self.own, self.store = near.key.peer_id, near.store
        self.core = Download(near.key.peer_id, near.rng)
        self.stored: StoredVersion | None = None
        self.tally = Tally()
        self.state = "finding the keeper"
        self.error: PeerdError | None = None
        self.finished = trio.Event()
        self.stale = False
        self.culprits: dict[PeerId, str] = {}
        self.keeper: PeerId | None = None
        self._access = Access.HAS_CREDENTIALS if ask.credentials else Access.UNKNOWN
        self._pending: deque[ev.Event] = deque()
        self._draining = False
        self._complaints: dict[PeerId, str] = {}
        self.mates = Mates(self, near)
        self._leases: dict[int, LeasedRead] = {}
        self._opening = trio.Lock()
        self.confirmation = trio.Event()
        self.whole: WholeDigest | None = None
        self._story: deque[str] = deque(maxlen=STORY_MAX)
        self._started_at = 0.0

    # --- the life of a run

    async def run(self) -> None:
        """Until all is held or it failed. Cancelled: leases are given back, pieces stay."""
        self._started_at = trio.current_time()
        try:
            async with trio.open_nursery() as self._nursery:
                await self._resume()
                if not self.finished.is_set():
                    self._near.keepers.join(self)
                    self._spawn(self._tick)
                    self._spawn(self._report_progress)
                    await self.finished.wait()
                self._nursery.cancel_scope.cancel()
        except* Exception as group:  # A bug in one download must not end the others.
            log.exception("task %s failed on an internal error", self.task[:12])
            self.fail(PeerdError(f"internal error: {group!r}; the log has more"))
        finally:
            self.mates.flush()
            if not self.finished.is_set():
                self.fail(Cancelled("the download was ended before it was complete"))
            self._withdraw()

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
        self.state = "complete"
        self.note("complete")
        if is_shared(self.ask):
            self._near.keepers.holds(self.stored.info)
        self.finished.set()

    def fail(self, error: PeerdError) -> None:
        """The first error counts."""
        if not self.finished.is_set():
            self.state, self.error = "failed", error
            self.note(f"failed: {error}")
            self.finished.set()

    def age_s(self) -> float:
        """How long ago the origin confirmed the version."""
        assert self.stored is not None
        at = self._near.store.validated_at(self.stored.info.version)
        return max(0.0, self._near.wall_clock() - at)

    def note(self, words: str) -> None:
        self._story.append(f"+{trio.current_time() - self._started_at:.3f} s {words}")

    def story(self) -> list[str]:
        return list(self._story)

    def going(self) -> bool:
        return not self.finished.is_set()

    def blocked(self) -> dict[PeerId, str]:
        """Peers that were caught at something, and at what."""
        stalled = {
            peer: f"stalled {times} times" if times > 1 else "stalled"
            for peer, times in self.core.parents.stall_counts().items()
        }
        return {**stalled, **self.core.parents.blocked, **self.culprits}

    # --- keepers.SwarmMember

    def enrolment(self) -> EnrolState:
        stored = self.stored
        return EnrolState(
            spec=told_spec(self.ask),
            shared=is_shared(self.ask),
            wants=True,
            access=self._access,
            version=stored.info if stored else None,
            have=stored.held.to_bytes() if stored else b"",
            leases=tuple(lease.standing() for lease in self._leases.values()),
        )

    def waiting(self) -> bool:
        if self._leases or self.finished.is_set() or self.state in ("checking", "in dispute"):
            return False
        return not any(parent.in_flight for parent in self.core.parents)

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        if keeper != self.keeper:
            self.note(f"keeper {keeper} (term {term})")
        self.keeper = keeper
        if self.stored is None:
            self.state = "resolving"
        orders = self.core.asked_again()
        for order in orders:
            self._carry_out(order)
        if not orders:
            self.ask_leases(0)
        for peer, words in self._complaints.items():
            self._complain(peer, words)

    def keeper_says(self, message: Message) -> None:
        if self.finished.is_set():
            return
        match message:
            case msg.Enrolled(version=version, peers=peers, validated_s=validated_s):
                self._roster(version, peers, validated_s)
            case msg.RosterUpdate(version=version, peers=peers):
                self._roster(version, peers, 0.0)
            case msg.LeaseGrant():
                self._spawn(self._granted, message)
            case msg.LeaseRevoked(lease=lease):
                if lease in self._leases:
                    self._leases[lease].revoke()
            case msg.Verdict(attester=attester, words=words, version=version_id):
                if self.stored and self.stored.info.version == version_id:
                    self._spawn(condemn, self, attester, words)
            case msg.Unreadable(code=code, words=words):
                self.fail(error_from(code, words))
            case _:
                log.debug("keeper of %s sent %s", self.task[:12], type(message).__name__)

    def _roster(
        self, version: VersionInfo | None, peers: tuple[msg.RosterPeer, ...], validated_s: float
    ) -> None:
        self.post(ev.PeersNamed(peers))
        if version is not None:
            self._spawn(self._follow, version, validated_s)

    async def _follow(self, version: VersionInfo, validated_s: float) -> None:
        """The version that the group downloads, confirmed by the origin `validated_s` ago."""
        try:
            stored = await self.open_version(version.verified())
        except PeerdError as error:
            log.warning("task %s: version from its keeper: %s", self.task[:12], error)
            if isinstance(error, NoSpace):
                self.fail(error)
            return
        if validated_s <= self._near.fresh_s and stored is self.stored:
            at = self._near.wall_clock() - validated_s
            if at > self._near.store.validated_at(version.version):
                await self._near.store.set_validated(version.version, at)
            self.confirmation.set()

    async def _granted(self, grant: msg.LeaseGrant) -> None:
        if grant.version is not None and grant.info.kind is not LeaseKind.RESOLVE:
            await self._follow(grant.version, inf)
        known = self._leases.get(grant.info.lease)
        if known is not None:
            known.renewed(grant.info)
            return
        kind = grant.info.kind
        if not self._usable(grant):
            log.warning("task %s: lease %d is not used", self.task[:12], grant.info.lease)
            return
        if kind in (LeaseKind.READ, LeaseKind.STREAM):
            self.post(ev.LeaseGranted(grant.info))
        else:
            await self._read(grant.info, ())

    def _usable(self, grant: msg.LeaseGrant) -> bool:
        """Else it runs out at the keeper: given back, it would come again at once."""
        if len(self._leases) >= LEASES_MAX:
            return False
        if grant.info.kind is LeaseKind.RESOLVE:
            return True
        theirs, ours = grant.version, self.stored
        return ours is not None and (theirs is None or theirs.version == ours.info.version)

    # --- reading.Reader

    def tell_keeper(self, message: Message) -> bool:
        return self._near.keepers.tell(self.task, message)

    def term(self) -> int:
        return self._near.keepers.term(self.task)

    def origin_bytes(self, count: int) -> None:
        self.tally.from_origin += count
        self._access = Access.PROVEN

    def piece_read(self, stored: StoredVersion, index: PieceIndex) -> None:
        if stored is self.stored:
            self.post(ev.PieceRead(index))
            self._advance()

    async def open_version(self, info: VersionInfo) -> StoredVersion:
        """The stored version of that id, now the one that this run downloads."""
        if info.task != self.task or info.digest != self.ask.spec.digest:
            raise RemoteProtocolError(f"{info.attester} vouched for a version of another content")
        async with self._opening:
            if self.stored is not None and self.stored.info.version == info.version:
                if self.stored.info.length_bytes is None and info.length_bytes is not None:
                    await self.length_known(self.stored, info)
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
        self.stored = stored
        self.state = "fetching"
        self.note(f"version {stored.info.version[:12]}, {stored.info.length_bytes} bytes")
        if stored.info.digest is not None:
            self.whole = WholeDigest(stored, self._near.offload)
            self._spawn(self.whole.run)
        self.post(ev.VersionOpened(stored.info, stored.held))
        self.mates.version_opened()

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
        if self.whole is not None:
            self.whole.advance()

    # --- carrying out

    def _spawn(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """As a task of this run; what comes after its end is for nobody."""
        if not self.finished.is_set():
            self._nursery.start_soon(work, *arguments)

    def post(self, event: ev.Event) -> None:
        """Hand an event to the core, and do what it orders; orders may post again."""
        if self.finished.is_set():
            return
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
                self.mates.send(peer, msg.Request(self.stored.info.version, indices))
            case ev.CancelPieces(peer=peer, indices=indices):
                assert self.stored is not None
                self._near.inbound.forget(peer, self.stored.info.version, indices)
                self.mates.send(peer, msg.Cancel(self.stored.info.version, indices))
            case ev.AskLeases(room=room):
                self.ask_leases(room)
            case ev.StartRead(info=info, indices=indices):
                self._spawn(self._read, info, indices)
            case ev.Announce(index=index):
                self.mates.announce(index, self._spawn)
            case ev.Drop(peer=peer, words=words):
                self._drop(peer, words)
            case ev.Complain(peer=peer, words=words):
                self._complaints[peer] = words
                self._complain(peer, words)
            case ev.AllHeld():
                self._spawn(finish, self)

    def _complain(self, peer: PeerId, words: str) -> None:
        self.tell_keeper(msg.Complaint(self.task, self.term(), peer, words[:512]))

    def ask_leases(self, room: int) -> None:
        """One at least, as long as the version is not known or has to be confirmed."""
        confirmed = self.confirmation.is_set() or self.ask.spec.digest is not None
        if self.stored is None or not confirmed:
            room = max(1, room)
        self.tell_keeper(msg.LeaseAsk(self.task, self.term(), room))

    def _drop(self, peer: PeerId, words: str) -> None:
        self.note(f"dropped {peer}: {words}")
        if peer in self.core.parents.blocked:
            self.culprits[peer] = words
            log.warning("task %s: %s is blocked: %s", self.task[:12], peer, words)
        if self.stored is not None:
            self.mates.send(peer, msg.Depart(self.stored.info.version))

    async def _read(self, info: LeaseInfo, indices: tuple[int, ...]) -> None:
        lease = LeasedRead(self, self._near, info, self.stored, indices)
        if info.lease in self._leases:
            return
        self._leases[info.lease] = lease
        await lease.run()
        del self._leases[info.lease]
        if not self.finished.is_set():
            self.post(ev.LeaseOver(info.lease))

    async def _tick(self) -> None:
        received: dict[PeerId, int] = {}
        while True:
            now = trio.current_time()
            due = min(self.core.deadline(now), now + TICK_MAX_S)
            await trio.sleep_until(max(due, now + 0.02))
            for peer in tuple(self.core.parents.joined):
                total = self._near.inbound.received_bytes.get(peer, 0)
                if total != received.get(peer, 0):
                    received[peer] = total
                    self.post(ev.ParentActive(peer))
            for order in self.core.expire(trio.current_time()):
                self._carry_out(order)

    async def _report_progress(self) -> None:
        told: PieceSet | None = None
        while True:
            await trio.sleep(PROGRESS_EVERY_S)
            if self.stored is not None and self.stored.held != told:
                told = self.stored.held
                self.tell_keeper(msg.Progress(self.task, self.stored.info.version, told.to_bytes()))


def _store_error(error: Exception) -> PeerdError:
    return error if isinstance(error, PeerdError) else NoSpace(f"the store cannot write: {error}")
