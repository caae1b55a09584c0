"""One simulated peer: its store, its part of the network, and the adapters around the cores.

Always: what a killed peer had under way never runs (each start counts `boot` up); a silent peer
does nothing until it wakes, then all that came meanwhile, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final

from peerd.gossip.membership import UNREACHABLE_FIRST_S, UNREACHABLE_MAX_S
from peerd.ids import PeerId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PieceSet
from peerd.scheduler.ports import Member
from peerd.scheduler.service import KEEPER_MESSAGES
from peerd.signing import SigningKey
from peerd.store.journal import GROUP_S
from peerd.swarm import events as ev
from tools.sim.along import Along
from tools.sim.flows import Pipe, Uplink
from tools.sim.keeping import Keeping
from tools.sim.mates import Said
from tools.sim.running import Run
from tools.sim.scheduling import Scheduler
from tools.sim.serving import Serving

if TYPE_CHECKING:
    from tools.sim.network import Link
    from tools.sim.world import World

COMMIT_S: Final = 0.001
"""A write to the journal of an idle disk. Guess."""


class Store:
    """What is held of the one content, and who vouched for it. Survives a kill."""

    def __init__(self) -> None:
        self.version: VersionInfo | None = None
        self.version_id: VersionId | None = None
        self.held = PieceSet(0)
        self.made: list[Attestation] = []
        self._size = self._last = 0
        self._count = 0

    def create(self, version: VersionInfo, nobody: Attestation) -> None:
        """Another version: what was held of an earlier one is of no use here."""
        assert version.piece_count is not None, "simulated content has a length"
        self.version, self._count = version, version.piece_count
        self.version_id = version.version
        self.held = PieceSet(self._count)
        self.made = [nobody] * self._count
        self._size = version.piece_length_bytes
        self._last = version.span(self._count - 1)[1]

    def __contains__(self, index: int) -> bool:
        return index in self.held

    def size_of(self, index: int) -> int:
        return self._size if index < self._count - 1 else self._last


class SimPeer:
    """The daemon of one machine, restarted as often as it is killed."""

    def __init__(
        self, world: World, number: int, key: SigningKey, zone: str, *, seed: bool, scheduler: bool
    ) -> None:  # fmt: skip
        self.world, self.number, self.key, self.own = world, number, key, key.peer_id
        self.zone, self.seed = zone, seed
        self.member = Member(self.own, (f"10.0.0.1:{number}",), zone, seed, scheduler, f"p{number}")
        self.up = Uplink(world.clock, world.up_bytes_s)
        self.down = Pipe(world.down_bytes_s)
        self.store = Store()
        self.wants_at: float | None = None
        self.done_at: float | None = None
        self.reads = number >= world.scenario.peers.count - world.scenario.peers.readers
        self.along = Along(self)
        self.error = ""
        self.killed = 0
        self.alive = self.silent = self.comes_back = False
        self.lies = self.misreads = self.troubled = self.refused = self.cut_off = False
        self.boot = 0
        self.cpu_s = 0.0
        self.sent_control_bytes = 0
        self.wasted_bytes = 0
        self.links: dict[PeerId, Link] = {}
        self.backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    # --- its life

    def start(self, *, synced: bool) -> None:
        """A fresh daemon on the same store."""
        self.boot += 1
        self.alive, self.silent = True, False
        self.rng = Random(f"{self.world.seed}/{self.number}/{self.boot}")
        self.views = View(self, synced)
        self.links, self.backlog = {}, []
        self._busy_until = self.world.clock.now
        self._committed_at = 0.0
        self._batch: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self.keeping = Keeping(self)
        self.serving = Serving(self)
        self.run: Run | None = None
        self.joined_at: dict[PeerId, float] = {}
        self.scheduler: Scheduler | None = None
        if self.world.scenario.peers.schedulers:
            self.scheduler = Scheduler(self)
        self.views.refresh()

    def get(self) -> None:
        """Somebody here wants the content."""
        if self.wants_at is None:
            self.wants_at = self.world.clock.now
        if self.alive and (self.run is None or self.run.finished):
            self.run = Run(self)
            self.run.start()

    def kill(self) -> None:
        self.alive = False
        self.killed += 1
        self.troubled = True
        self.serving.stop()
        if self.run is not None:
            self.run.stop()
        for link in list(self.links.values()):
            self.world.network.down(link, link.latency_s)
        self.links = {}

    def silence(self) -> None:
        """As SIGSTOP does: links stay up, nothing is answered, nothing is sent."""
        self.silent = True
        self._rate_before = self.up.rate_bytes_s
        self.up.set_rate(0.0)
        self.world.network.silenced(self)

    def wake(self) -> None:
        if self.silent:
            self.silent = False
            self.up.set_rate(self._rate_before)
            backlog, self.backlog = self.backlog, []
            for step, arguments in backlog:
                step(*arguments)

    def guarded(self, step: Callable[..., None]) -> Callable[..., None]:
        """`step` as this run of the daemon does it: not after its end, later if it is silent."""
        boot = self.boot

        def run(*arguments: Any) -> None:
            if self.alive and self.boot == boot:
                if self.silent:
                    self.backlog.append((run, arguments))
                else:
                    step(*arguments)

        return run

    # --- its machine

    def spend(self, cost_s: float, at: float = 0.0) -> float:
        """Work for its one core, from `at` or now on; returns when it is done."""
        self.cpu_s += cost_s
        self._busy_until = max(self._busy_until, self.world.clock.now, at) + cost_s
        return self._busy_until

    def commit(self, step: Callable[..., None], *arguments: Any) -> None:
        """`step` once what was written is in the journal (groups, as store/journal.py)."""
        clock = self.world.clock
        if self._batch is None:
            self._batch = []
            at = max(clock.now, self._committed_at + GROUP_S) + COMMIT_S
            clock.at(at, self._commit, self.boot)
        self._batch.append((step, arguments))

    def _commit(self, boot: int) -> None:
        if not self.alive or self.boot != boot or self._batch is None:
            return
        if self.silent:
            self.backlog.append((self._commit, (boot,)))
            return
        batch, self._batch = self._batch, None
        self._committed_at = self.world.clock.now
        for step, arguments in batch:
            step(*arguments)

    # --- what links bring

    def hear(self, boot: int, peer: PeerId, message: Message) -> None:
        if not self.alive or boot != self.boot:
            return
        if self.silent:
            self.backlog.append((self.hear, (boot, peer, message)))
        elif isinstance(message, KEEPER_MESSAGES):
            self.keeping.heard(peer, message)
        elif isinstance(message, msg.OF_SCHEDULER):
            if self.scheduler is not None:
                self.scheduler.heard(peer, message)
        else:
            handler = _SWARM.get(type(message))
            assert handler is not None, f"{type(message).__name__} has no handler in the simulator"
            handler(self, peer, message)

    def hear_have(self, version: VersionId, have: ev.ParentHas) -> None:
        """The bulk of all that is heard."""
        run = self.run
        if run is None or run.finished:
            return
        if self.silent:
            self.backlog.append((self.hear_have, (version, have)))
        elif version == self.store.version_id:
            run.post(have)
        else:
            run.mates.has_early(version, have)

    def _join(self, peer: PeerId, message: msg.Join) -> None:
        run, store = self.run, self.store
        if run is not None and not run.finished:
            run.mates.joined(peer, message)
        elif store.version is None or not store.held:
            self.send(peer, msg.Depart(message.version.version))
        else:
            now = self.world.clock.now
            if now - self.joined_at.get(peer, -1.0) >= 1.0:
                self.joined_at[peer] = now
                self.send(peer, msg.Join(store.version, store.held.to_bytes(), self.zone))

    def _says(self, peer: PeerId, message: Said) -> None:
        if self.run is not None and not self.run.finished:
            self.run.mates.says(peer, message)

    def _requested(self, peer: PeerId, message: msg.Request) -> None:
        self.serving.requested(peer, message)

    def _cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        self.serving.cancelled(peer, message)

    def _enlist(self, peer: PeerId, message: msg.Enlist) -> None:
        if self.seed:
            self.get()

    def send(self, to: PeerId, message: Message) -> bool:
        return self.world.network.send(self, to, message)

    def round_trip_s(self, peer: PeerId) -> float:
        """What the network alone takes; 0 where there is no link."""
        link = self.links.get(peer)
        return 2 * link.latency_s if link is not None else 0.0

    def piece_arrived(
        self, sender: SimPeer, index: int, size_bytes: int, made: Attestation, spoilt: bool
    ) -> None:
        run = self.run
        if run is None or run.finished or not run.piece_in(sender.own, index, made, spoilt):
            self.wasted_bytes += size_bytes

    def link_down(self, peer: PeerId) -> None:
        if self.silent:
            self.backlog.append((self.link_down, (peer,)))
            return
        self.joined_at.pop(peer, None)
        self.serving.peer_gone(peer)
        self.keeping.link_down(peer)
        if self.scheduler is not None:
            self.scheduler.link_down(peer)
        if self.run is not None and not self.run.finished:
            self.run.mates.link_down(peer)


_SWARM: Final[dict[type, Callable[[SimPeer, PeerId, Any], None]]] = {
    msg.Join: SimPeer._join,
    msg.Request: SimPeer._requested,
    msg.Cancel: SimPeer._cancelled,
    msg.Reject: SimPeer._says,
    msg.Depart: SimPeer._says,
    msg.MatesAsk: SimPeer._says,
    msg.Mates: SimPeer._says,
    msg.Enlist: SimPeer._enlist,
}
"""What the swarm hears (swarm/service.py), but for HAVE (`hear_have`)."""


class View:
    """What one peer sees of the group: the world's list, without those it could not reach."""

    def __init__(self, peer: SimPeer, synced: bool) -> None:
        self._peer = peer
        self.synced = synced
        self.revision = 0
        self._live: tuple[Member, ...] = ()
        self._marks: dict[PeerId, tuple[float, int]] = {}

    def refresh(self) -> None:
        live = self._peer.world.live(self._peer) if self.synced else (self._peer.member,)
        now = self._peer.world.clock.now
        out = {peer for peer, (until, _) in self._marks.items() if until > now}
        if out:
            live = tuple(member for member in live if member.peer not in out)
        if live is not self._live:
            self._live = live
            self.revision += 1
        self._peer.keeping.members_changed(live, self.synced)
        if self._peer.scheduler is not None:
            self._peer.scheduler.changed()

    def live(self) -> tuple[Member, ...]:
        return self._live

    def member(self, peer: PeerId) -> Member | None:
        return self._peer.world.network.peers[peer].member

    def unreachable(self, peer: PeerId) -> None:
        """As membership does: left out, twice as long each time."""
        clock = self._peer.world.clock
        until, times = self._marks.get(peer, (0.0, 0))
        if until > clock.now:
            return
        pause_s = min(UNREACHABLE_MAX_S, UNREACHABLE_FIRST_S * 2.0 ** min(times, 10))
        self._marks[peer] = (clock.now + pause_s, times + 1)
        clock.after(pause_s, self._peer.guarded(self.refresh))
        clock.after(0.0, self._peer.guarded(self.refresh))

    def reachable(self, peer: PeerId) -> None:
        if self._marks.pop(peer, None) is not None:
            self._peer.world.clock.after(0.0, self._peer.guarded(self.refresh))

    def heal(self) -> None:
        if self._marks:
            self._marks.clear()
            self.refresh()
