"""One download on one peer: what swarm/run.py, member.py and mates.py do around the core.

Always: the core decides whom to ask for what, this carries it out in virtual time; a download that
is finished does nothing more; a piece counts once its journal entry is committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from peerd.ids import PeerId, PieceIndex
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseInfo, LeaseKind, Message
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PieceSet
from peerd.scheduler.ports import EnrolState
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.member import LEASES_MAX
from peerd.swarm.run import PROGRESS_EVERY_S, TICK_MAX_S
from tools.sim import ending
from tools.sim.clock import Timer
from tools.sim.copies import Copy
from tools.sim.mates import Mates
from tools.sim.reading import LeasedRead, ReadTurns
from tools.sim.scopes import Scopes

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer

TICK_MIN_S: Final = 0.02
"""As TaskRun._tick."""
FRESH_S: Final = 60.0
"""The daemon's default for content without a digest."""


class Run:
    """Wants the whole of one content on one peer."""

    def __init__(self, peer: SimPeer, copy: Copy) -> None:
        self.peer, self.world = peer, peer.world
        self.copy, self.store, self.content = copy, copy.store, copy.content
        self.task = copy.content.task
        self.scope = ""
        self.core = Download(peer.own, peer.rng, peer.zone)
        self.mates = Mates(self)
        self.scopes = Scopes(self)
        self.finished = False
        self.state = "finding the keeper"
        self.keeper: PeerId | None = None
        self.leases: dict[int, LeasedRead] = {}
        self.read_turns = ReadTurns()
        self.culprits: dict[PeerId, str] = {}
        self.confirmed = copy.content.spec.digest is not None
        self._complaints: dict[PeerId, str] = {}
        self._access = Access.REFUSED if peer.refused else Access.UNKNOWN
        self._pending: deque[ev.Event] = deque()
        self._draining = False
        self._told: PieceSet | None = None
        self._tick_timer = Timer(peer.world.clock, peer.guarded(self._tick))
        self._heard: set[PeerId] = set()

    # --- its life

    def start(self) -> None:
        store = self.store
        if store.version is not None:
            self._use(store.version)
        if not self.finished:
            self.peer.keeping.join(self)
            self._tick_timer.set(self.world.clock.now + TICK_MIN_S)
            self.world.clock.after(PROGRESS_EVERY_S, self.peer.guarded(self._report_progress))

    def stop(self) -> None:
        """Its daemon was killed."""
        self.finished = True
        for lease in self.leases.values():
            lease.stop()

    def end(self) -> None:
        """It is over, well or not: what was asked for is wanted no more."""
        if self.finished:
            return
        self.mates.flush()
        self.finished = True
        for lease in list(self.leases.values()):
            lease.stop()
        version = self.store.version
        if version is not None:
            for parent in tuple(self.core.parents):
                if parent.in_flight:
                    self.peer.send(parent.peer, msg.Cancel(version.version, _indices(parent)))
        self.scopes.leave()
        if self.peer.scheduler is not None:
            self.peer.scheduler.give_way()

    def fail(self, words: str) -> None:
        if not self.finished:
            self.state = "failed"
            self.world.failed(self.copy, self.peer, words)
            self.end()
            self.peer.keeping.leave(self.task)

    # --- scheduler.service.SwarmMember

    def enrolment(self) -> EnrolState:
        store = self.store
        return EnrolState(
            spec=self.content.spec, shared=True, wants=True, access=self._access,
            version=store.version, have=store.held.to_bytes() if store.version else b"",
            leases=tuple(lease.standing() for lease in self.leases.values()),
        )  # fmt: skip

    def waiting(self) -> bool:
        if self.leases or self.finished or self.state in ("checking", "in dispute"):
            return False
        return not any(parent.in_flight for parent in self.core.parents)

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        self.keeper = keeper
        orders = self.core.asked_again(keeper)
        for order in orders:
            self._carry_out(order)
        if not orders:
            self.ask_leases(0)
        for peer, words in self._complaints.items():
            self._complain(peer, words)

    def cell_found(self, keeper: PeerId) -> None:
        self.keeper = keeper

    def keeper_says(self, message: Message) -> None:
        if self.finished:
            return
        match message:
            case msg.Enrolled(version=version, peers=peers, validated_s=validated_s):
                self._roster(version, peers, validated_s)
            case msg.RosterUpdate(version=version, peers=peers):
                self._roster(version, peers, 0.0)
            case msg.LeaseGrant():
                self._granted(message)
            case msg.LeaseRevoked(lease=lease):
                if lease in self.leases:
                    self.leases[lease].revoke()
            case msg.Verdict(attester=attester, words=words, version=version_id):
                version_here = self.store.version
                if version_here is not None and version_here.version == version_id:
                    ending.condemn(self, attester, words)
            case msg.Unreadable(words=words):
                self.fail(words)

    def _roster(
        self, version: VersionInfo | None, peers: tuple[msg.RosterPeer, ...], validated_s: float
    ) -> None:
        self.post(ev.PeersNamed(peers))
        if version is not None:
            self.open_version(version)
            if validated_s <= FRESH_S:
                self.confirmed = True

    def _granted(self, grant: msg.LeaseGrant) -> None:
        info = grant.info
        if grant.version is not None and info.kind is not LeaseKind.RESOLVE:
            self.open_version(grant.version)
        if info.lease in self.leases:
            self.leases[info.lease].renewed(info)
            return
        here = self.store.version
        fits = here is not None and grant.version in (None, here)
        if info.kind is not LeaseKind.RESOLVE and grant.version is not None and here is not None:
            fits = grant.version.version == here.version
        if len(self.leases) >= LEASES_MAX or not (fits or info.kind is LeaseKind.RESOLVE):
            return
        if info.kind in (LeaseKind.READ, LeaseKind.STREAM):
            self.post(ev.LeaseGranted(info))
        else:
            self._read(info, ())

    # --- reading

    def origin_bytes(self) -> None:
        self._access = Access.PROVEN

    def piece_read(self, index: int) -> None:
        self.post(ev.PieceRead(PieceIndex(index)))
        self.scopes.progress()

    def open_version(self, info: VersionInfo) -> None:
        """The version that this download is of, from here on."""
        self.content.verified(info)
        store = self.store
        if store.version is None or store.version.version != info.version:
            store.create(info, self.content.nobody)
            self._use(info)

    def lost(self, index: int) -> None:
        self.post(ev.PieceLost(PieceIndex(index)))

    def _use(self, info: VersionInfo) -> None:
        self.state = "fetching"
        held = self.store.held
        self.post(ev.VersionOpened(info, held.copy()))
        if not held.complete():
            self.scopes.enrol(info)
        self.mates.version_opened()

    def _read(self, info: LeaseInfo, indices: tuple[int, ...]) -> None:
        if info.lease not in self.leases:
            lease = self.leases[info.lease] = LeasedRead(self, info, indices)
            lease.start()

    def lease_over(self, lease: int) -> None:
        del self.leases[lease]
        if not self.finished:
            self.post(ev.LeaseOver(lease))

    # --- telling the keeper

    def tell_keeper(self, message: Message) -> bool:
        return self.peer.keeping.tell(self.task, message)

    def term(self) -> int:
        return self.peer.keeping.term(self.task)

    def _complain(self, peer: PeerId, words: str) -> None:
        self.tell_keeper(msg.Complaint(self.task, self.term(), peer, words[:512]))

    def ask_leases(self, room: int, reader_at: int | None = None) -> None:
        if self.store.version is None or not self.confirmed:
            room = max(1, room)
        self.tell_keeper(msg.LeaseAsk(self.task, self.term(), room, reader_at))

    # --- pieces from peers

    def piece_in(self, sender: PeerId, index: int, made: Attestation, spoilt: bool) -> bool:
        """A whole piece came in; False if nobody waits for it here."""
        parent = self.core.parents.joined.get(sender)
        if parent is None or index not in parent.in_flight:
            return False
        self._heard.add(sender)
        if made.attester in self.culprits:
            self.post(ev.PieceRejected(sender, (index,)))
            return False
        if spoilt:
            words = f"piece {index} does not have its attested digest"
            self.post(ev.PieceBad(sender, PieceIndex(index), words))
            return False
        self.peer.commit(self._acknowledged, sender, index, made)
        return True

    def _acknowledged(self, sender: PeerId, index: int, made: Attestation) -> None:
        store = self.store
        if self.finished:
            return
        size_bytes = store.size_of(index)
        if index in store:
            self.peer.wasted_bytes += size_bytes
        else:
            self.world.held(self.copy, self.peer, index, made, sender)
        self.post(ev.PieceArrived(sender, PieceIndex(index), size_bytes))

    # --- carrying out

    def post(self, event: ev.Event) -> None:
        """Hand an event to the core, and do what it orders; orders may post again."""
        if self.finished:
            return
        if self._draining:
            self._pending.append(event)
            return
        now = self.world.clock.now
        orders = self.core.handle(event, now)
        if not orders:
            return  # Most are HAVE, of which nothing follows.
        self._draining = True
        for order in orders:
            self._carry_out(order)
        while self._pending:
            for order in self.core.handle(self._pending.popleft(), now):
                self._carry_out(order)
        self._draining = False

    def _carry_out(self, order: ev.Order) -> None:
        handler = _ORDERS.get(type(order))
        assert handler is not None, f"{type(order).__name__} is not carried out in the simulator"
        handler(self, order)

    def _connect(self, order: ev.Connect) -> None:
        self.mates.connect(order.peer)

    def _request(self, order: ev.RequestPieces) -> None:
        version, lacking = self.store.version, len(self.store.held.missing())
        assert version is not None, "asked without a version"
        self.mates.send(order.peer, msg.Request(version.version, order.indices, lacking))

    def _cancel(self, order: ev.CancelPieces) -> None:
        version = self.store.version
        assert version is not None, "asked without a version"
        self.mates.send(order.peer, msg.Cancel(version.version, order.indices))

    def _ask_leases(self, order: ev.AskLeases) -> None:
        self.ask_leases(order.room, order.reader_at)

    def _ask_bring(self, order: ev.AskBring) -> None:
        self.scopes.ask(order)

    def _report_bring(self, order: ev.ReportBring) -> None:
        self.scopes.report(order)

    def _start_read(self, order: ev.StartRead) -> None:
        self._read(order.info, order.indices)

    def _join_again(self, order: ev.JoinAgain) -> None:
        self.mates.join_again()

    def _ask_mates(self, order: ev.AskMates) -> None:
        self.mates.ask(order.peer)

    def _announce(self, order: ev.Announce) -> None:
        self.mates.announce(order.index, order.to)

    def _drop(self, order: ev.Drop) -> None:
        if order.peer in self.core.parents.blocked:
            self.culprits[order.peer] = order.words
        version = self.store.version
        if version is not None:
            full = order.peer not in self.core.parents.blocked
            self.mates.left(order.peer, msg.Depart(version.version, full))

    def _complains(self, order: ev.Complain) -> None:
        self._complaints[order.peer] = order.words
        self._complain(order.peer, order.words)

    # --- time

    def _tick(self) -> None:
        self._hear_parents()
        self._expire()

    def _hear_parents(self) -> None:
        for peer in tuple(self.core.parents.joined):
            parent = self.core.parents.joined.get(peer)
            if parent is not None and parent.in_flight and self._bytes_came(peer):
                self.post(ev.ParentActive(peer, self.peer.round_trip_s(peer)))
        self._heard.clear()

    def _expire(self) -> None:
        if self.finished:
            return
        now = self.world.clock.now
        for order in self.core.expire(now):
            self._carry_out(order)
        self.peer.keeping.seek_time()
        due = min(self.core.deadline(now), now + TICK_MAX_S)
        self._tick_timer.set(max(due, now + TICK_MIN_S))

    def _bytes_came(self, peer: PeerId) -> bool:
        """Since the last tick: of a whole piece, or of one that is being sent."""
        if peer in self._heard:
            return True
        other = self.world.network.peers[peer]
        return other.alive and not other.silent and other.serving.sends_to(self.peer.own)

    def _report_progress(self) -> None:
        if self.finished:
            return
        store = self.store
        if store.version is not None and store.held != self._told:
            self._told = store.held.copy()
            self.tell_progress()
            self.scopes.progress()
        self.world.clock.after(PROGRESS_EVERY_S, self.peer.guarded(self._report_progress))

    def tell_progress(self) -> None:
        store = self.store
        if store.version is not None:
            have = store.held.to_bytes()
            self.tell_keeper(msg.Progress(self.task, store.version.version, have))


def _indices(parent: Any) -> tuple[int, ...]:
    return tuple(parent.in_flight)


_ORDERS: Final[dict[type, Callable[[Run, Any], None]]] = {
    ev.Connect: Run._connect,
    ev.RequestPieces: Run._request,
    ev.CancelPieces: Run._cancel,
    ev.AskLeases: Run._ask_leases,
    ev.AskBring: Run._ask_bring,
    ev.AskHedge: ending.ask_hedge,
    ev.ReportBring: Run._report_bring,
    ev.StartRead: Run._start_read,
    ev.Announce: Run._announce,
    ev.JoinAgain: Run._join_again,
    ev.AskMates: Run._ask_mates,
    ev.Drop: Run._drop,
    ev.Complain: Run._complains,
    ev.AllHeld: ending.all_held,
}
"""What the core orders; another kind of order needs a line here."""
