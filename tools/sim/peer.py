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
from peerd.manifest import Attestation
from peerd.scheduler.ports import Member
from peerd.scheduler.service import KEEPER_MESSAGES
from peerd.signing import SigningKey
from peerd.store.journal import GROUP_S
from peerd.swarm import events as ev
from peerd.swarm.turns import Item
from tools.sim.along import Along
from tools.sim.copies import Copy
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


class SimPeer:
    """The daemon of one machine, restarted as often as it is killed."""

    def __init__(
        self, world: World, number: int, key: SigningKey, zone: str, *, seed: bool, scheduler: bool
    ) -> None:  # fmt: skip
        self.world, self.number, self.key, self.own = world, number, key, key.peer_id
        self.zone, self.seed = zone, seed
        self.member = Member(self.own, (f"10.0.0.1:{number}",), zone, seed, scheduler, f"p{number}")
        rates = world.scenario.peers.rates
        self.rate = rates[number % len(rates)] if rates else 1.0
        self.up = Uplink(world.clock, self.rate * world.up_bytes_s)
        self.down = Pipe(world.down_bytes_s)
        self.copies = [Copy(content) for content in world.contents]
        self.reads = number >= world.scenario.peers.count - world.scenario.peers.readers
        self.along = Along(self)
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
        for copy in self.copies:
            copy.run = None
        self.joined_at: dict[tuple[PeerId, int], float] = {}
        self.scheduler: Scheduler | None = None
        if self.world.scenario.peers.schedulers:
            self.scheduler = Scheduler(self)
        self.views.refresh()

    def get(self, copy: Copy) -> None:
        """Somebody here wants that content."""
        if copy.wants_at is None:
            copy.wants_at = self.world.clock.now
        if self.alive and copy.going is None:
            copy.run = Run(self, copy)
            copy.run.start()

    def copy_of(self, version: VersionId) -> Copy:
        return self.copies[self.world.number_of[version]]

    @property
    def wants_at(self) -> float | None:
        """When somebody here asked for anything first."""
        return min((x.wants_at for x in self.copies if x.wants_at is not None), default=None)

    @property
    def done_at(self) -> float | None:
        """When all that was asked for was complete; None: something is not, or nothing was."""
        times = [copy.done_at for copy in self.copies if copy.wants_at is not None]
        found = [at for at in times if at is not None]
        return max(found) if found and len(found) == len(times) else None

    def kill(self) -> None:
        self.alive = False
        self.killed += 1
        self.troubled = True
        self.serving.stop()
        for copy in self.copies:
            if copy.run is not None:
                copy.run.stop()
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
        copy = self.copy_of(version)
        run = copy.run
        if run is None or run.finished:
            return
        if self.silent:
            self.backlog.append((self.hear_have, (version, have)))
        elif version == copy.store.version_id:
            run.post(have)
        else:
            run.mates.has_early(version, have)

    def _join(self, peer: PeerId, message: msg.Join) -> None:
        copy = self.copy_of(message.version.version)
        run, store = copy.going, copy.store
        if run is not None:
            run.mates.joined(peer, message)
        elif store.version is None or not store.held:
            self.send(peer, msg.Depart(message.version.version))
        else:
            now = self.world.clock.now
            key = (peer, copy.content.number)
            if now - self.joined_at.get(key, -1.0) >= 1.0:
                self.joined_at[key] = now
                self.send(peer, msg.Join(store.version, store.held.to_bytes(), self.zone))

    def _says(self, peer: PeerId, message: Said) -> None:
        run = self.copy_of(message.version).going
        if run is not None:
            run.mates.says(peer, message)

    def _requested(self, peer: PeerId, message: msg.Request) -> None:
        self.serving.requested(peer, message)

    def _cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        self.serving.cancelled(peer, message)

    def _enlist(self, peer: PeerId, message: msg.Enlist) -> None:
        for copy in self.copies if self.seed else ():
            if copy.content.task == message.task:
                self.get(copy)

    def send(self, to: PeerId, message: Message) -> bool:
        return self.world.network.send(self, to, message)

    def round_trip_s(self, peer: PeerId) -> float:
        """What the network alone takes; 0 where there is no link."""
        link = self.links.get(peer)
        return 2 * link.latency_s if link is not None else 0.0

    def piece_arrived(
        self, sender: SimPeer, item: Item, size_bytes: int, made: Attestation, spoilt: bool
    ) -> None:
        run = self.copy_of(item[0]).going
        if run is None or not run.piece_in(sender.own, item[1], made, spoilt):
            self.wasted_bytes += size_bytes

    def link_down(self, peer: PeerId) -> None:
        if self.silent:
            self.backlog.append((self.link_down, (peer,)))
            return
        for copy in self.copies:
            self.joined_at.pop((peer, copy.content.number), None)
        self.serving.peer_gone(peer)
        self.keeping.link_down(peer)
        if self.scheduler is not None:
            self.scheduler.link_down(peer)
        for copy in self.copies:
            if copy.going is not None:
                copy.going.mates.link_down(peer)


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
