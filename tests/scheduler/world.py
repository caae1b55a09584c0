"""A small world in virtual time: keeper cores, seekers and simple readers over a faulty network.

Always: every message goes through the codec; a read from the origin is written down with the
keeper that granted it; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial

from peerd.errors import RemoteProtocolError
from peerd.ids import LeaseId, PeerId, PieceIndex, TaskId, VersionId
from peerd.link import messages as m
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.scheduler import seeker as sk
from peerd.scheduler.keeper import KeeperCore
from peerd.scheduler.keeper_events import Event as KeeperEvent
from peerd.scheduler.keeper_events import (
    KeeperConfig,
    LinkLost,
    MembersChanged,
    MessageFrom,
    Undelivered,
)
from peerd.scheduler.leases import each
from peerd.scheduler.ports import Member
from peerd.signing import SigningKey
from peerd.task import Ask, TaskSpec, task_id

PIECE_BYTES = 1 << 20
DIGEST = "sha256:" + "ab" * 32
SPEC = TaskSpec("https://origin.example/file", DIGEST)
TASK = task_id(Ask(SPEC), b"")
OPEN_SPEC = TaskSpec("https://origin.example/open")
OPEN_TASK = task_id(Ask(OPEN_SPEC), b"")


@cache
def key(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "big"))


def member(number: int, *, seed: bool = False, zone: str = "") -> Member:
    peer = key(number).peer_id
    return Member(peer, (f"10.0.0.{number}:4000",), zone, seed, False, f"p{number}")


def version_of(
    signer: SigningKey, pieces: int, *, spec: TaskSpec = SPEC, validator: str | None = '"v1"',
    ranged: bool = True, known_length: bool = True, nonce: bytes = b"",
) -> VersionInfo:  # fmt: skip
    task = task_id(Ask(spec), b"")
    length = pieces * PIECE_BYTES if known_length else None
    validator = validator if spec.digest is None else None
    version = version_id(
        task, digest=spec.digest, validator=validator, length_bytes=length, nonce=nonce
    )
    size = PIECE_BYTES
    unsigned = VersionInfo(
        task, version, length, size, validator, ranged, spec.digest, signer.peer_id, bytes(64)
    )
    return unsigned.signed(signer)


@dataclass(frozen=True)
class Read:
    """One piece that a peer read at the origin; `granted_by`: keeper, boot and term."""

    at: float
    reader: PeerId
    granted_by: tuple[PeerId, tuple[int, int]]
    version: VersionId
    piece: int
    kind: m.LeaseKind


@dataclass
class Held:
    """A lease in its holder's hands."""

    info: m.LeaseInfo
    until: float
    boss: PeerId
    reign: tuple[int, int]
    made: list[Attestation] = field(default_factory=list)


class Origin:
    """What is there to be read."""

    def __init__(self, pieces: int, spec: TaskSpec = SPEC, *, ranged: bool = True) -> None:
        self.pieces, self.spec, self.ranged = pieces, spec, ranged
        self.task: TaskId = task_id(Ask(spec), b"")
        self.validator: str | None = '"v1"'
        self.error: tuple[m.Outcome, str] | None = None
        self.reads: list[Read] = []


class SimPeer:
    """One daemon: its keeper core, its seeker, and a reader that does as leases say."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number, self.key = world, number, key(number)
        self.peer = self.key.peer_id
        self.alive, self.boot = True, 0
        self.done_at: float | None = None
        self.failed: tuple[str, str] | None = None
        self.lies = False
        self.held = 0
        self.attested: dict[int, Attestation] = {}
        self.version: VersionInfo | None = None
        self.wants = False
        self.start()

    def start(self) -> None:
        """A fresh daemon on the same store."""
        self.boot += 1
        rng = random.Random(f"{self.world.seed}/{self.number}/{self.boot}")
        self.core = KeeperCore(self.peer, rng, self.world.config)
        self.world.cores.append(self.core)
        self.seeker = sk.Seeker(self.peer, self.world.origin.task)
        self.leases: dict[int, Held] = {}
        self.over: set[int] = set()
        self.untold: list[m.Message] = []
        self.busy: int | None = None
        self.known: dict[PeerId, None] = {}
        self.told = -1
        self.zone, self.seed = "", False
        self.view(self.world.views[self.number])

    # --- membership and messages

    def view(self, numbers: Iterable[int], *, synced: bool = True) -> None:
        live = tuple(self.world.member(n) for n in sorted({*numbers, self.number}))
        self.keeper_event(MembersChanged(live, synced))
        self.seeker_event(sk.MembersNow(live, synced))

    def keeper_event(self, event: KeeperEvent) -> None:
        now = self.world.now
        try:
            orders = self.core.handle(event, now)
        except RemoteProtocolError as error:
            self.world.protocol_errors.append(f"{now:.3f} {self.number}: {error}")
            orders = self.core.expire(now)
        for order in orders:
            self.world.post(self, order.peer, order.message)
        if self.world.checked:
            self.core.validate()
        self.arm()

    def arm(self) -> None:
        at = self.core.deadline()
        if at < float("inf"):
            self.world.at(max(at, self.world.now), self.world.once(self, "core", self.core_due))
        at = self.seeker.deadline()
        if at < float("inf"):
            self.world.at(max(at, self.world.now), self.world.once(self, "seek", self.seeker_due))

    def core_due(self) -> None:
        for order in self.core.expire(self.world.now):
            self.world.post(self, order.peer, order.message)
        if self.world.checked:
            self.core.validate()
        self.arm()

    def seeker_due(self) -> None:
        self.seeker_orders(self.seeker.expire(self.world.now))

    def seeker_event(self, event: sk.Event) -> None:
        self.seeker_orders(self.seeker.handle(event, self.world.now))

    def seeker_orders(self, orders: list[sk.Order]) -> None:
        for order in orders:
            match order:
                case sk.EnrolAt():
                    self.enrol(order)
                case sk.Settled():
                    untold, self.untold = self.untold, []
                    for message in untold:
                        self.tell(message)
                    self.ask()
        self.seeker.validate()
        self.arm()

    def arrived(self, peer: PeerId, message: m.Message) -> None:
        if isinstance(message, m.TO_KEEPER):
            self.keeper_event(MessageFrom(peer, message))
        elif isinstance(message, m.Enlist):
            if not self.wants:
                self.get()
        elif isinstance(message, sk.FROM_KEEPER):
            self.from_keeper(peer, message)

    def lost(self, peer: PeerId) -> None:
        self.keeper_event(LinkLost(peer))
        self.seeker_event(sk.Unreachable(peer))

    def undelivered(self, peer: PeerId) -> None:
        self.keeper_event(Undelivered(peer))
        self.seeker_event(sk.Unreachable(peer))

    # --- wanting

    def get(self) -> None:
        self.wants, self.done_at, self.failed = True, None, None
        self.seeker_event(sk.Begin())
        self.world.at(self.world.now + 0.1, self.world.once(self, "tick", self.tick))

    def enrol(self, order: sk.EnrolAt) -> None:
        now = self.world.now
        leases = tuple(
            m.LeaseInfo(x.info.lease, x.info.kind, x.info.holder, x.info.first, x.info.count,
                        max(0.0, x.until - now))
            for x in self.leases.values()
            if x.info.kind is not m.LeaseKind.AUDIT
        )  # fmt: skip
        message = m.Enrol(
            self.world.origin.task, self.world.origin.spec, order.candidates, order.unreachable,
            order.prior_term, self.wants, m.Access.UNKNOWN, self.zone,
            self.world.member(self.number).seed, self.version, self.bitmap(), leases,
        )  # fmt: skip
        self.told = self.held
        self.world.post(self, order.peer, message)

    def bitmap(self) -> bytes:
        if self.version is None:
            return b""
        count = self.version.piece_count
        size = (self.held.bit_length() + 7) // 8 if count is None else (count + 7) // 8
        return self.held.to_bytes(size, "little")

    def ask(self) -> None:
        if self.seeker.keeper is not None and self.wants and self.done_at is None:
            ask = m.LeaseAsk(self.world.origin.task, self.seeker.term, self.world.room, None)
            self.world.post(self, self.seeker.keeper, ask)

    def tick(self) -> None:
        """Ten times a second: fetch from others, say what is held, ask again."""
        world = self.world
        self.fetch()
        boss = self.seeker.keeper
        due = world.now - world.told_at.get(self.number, -1.0) >= 0.5 or self.complete
        if boss is not None and self.version is not None and self.told != self.held and due:
            world.told_at[self.number], self.told = world.now, self.held
            have = m.Progress(world.origin.task, self.version.version, self.bitmap())
            world.post(self, boss, have)
        if world.now - world.asked_at.get(self.number, -1.0) >= 1.0:
            world.asked_at[self.number] = world.now
            self.ask()
        if self.complete and self.done_at is None:
            self.done_at = world.now
        self.seeker_event(sk.Waiting(self.wants and self.done_at is None and not self.leases))
        if self.wants:
            world.at(world.now + 0.1, world.once(self, "tick", self.tick))

    @property
    def complete(self) -> bool:
        count = self.version.piece_count if self.version is not None else None
        return count is not None and self.held == (1 << count) - 1

    def fetch(self) -> None:
        """Some pieces from members that this peer was told of, or that were told of it."""
        if self.version is None or not self.wants:
            return
        for peer in list(self.known):
            other = self.world.peers[peer]
            if not self.world.reach(self, other) or other.version is None:
                continue
            other.known.setdefault(self.peer)
            if other.version.version == self.version.version:
                for index in list(each(other.held & ~self.held))[: self.world.fetched_max]:
                    self.held |= 1 << index
                    self.attested[index] = other.attested[index]

    # --- what the keeper says

    def from_keeper(self, peer: PeerId, message: m.Message) -> None:
        if isinstance(message, m.LeaseGrant) and message.info.lease in self.leases:
            self.leases[message.info.lease].until = self.world.now + message.info.expires_in_s
        self.seeker_event(sk.Heard(peer, message))
        if isinstance(message, m.Enrolled) and peer == self.seeker.keeper:
            self.know(message.peers)
            self.take_version(message.version)
            self.ask()
        if not self.seeker.accepts(peer, message):
            return
        match message:
            case m.RosterUpdate():
                self.know(message.peers)
                self.take_version(message.version)
            case m.LeaseGrant():
                self.granted(peer, message)
            case m.LeaseRevoked():
                self.leases.pop(message.lease, None)
            case m.Unreadable():
                self.failed, self.wants = (message.code, message.words), False
                self.world.post(self, peer, m.Withdraw(self.world.origin.task))
            case m.Verdict():
                self.drop(message.attester)

    def know(self, peers: Iterable[m.RosterPeer]) -> None:
        self.known.update(dict.fromkeys(each.peer for each in peers))

    def take_version(self, version: VersionInfo | None) -> None:
        if version is None:
            return
        if self.version is None or self.version.version != version.version:
            self.held, self.attested = 0, {}
        self.version = version

    def drop(self, liar: PeerId) -> None:
        for index, attestation in list(self.attested.items()):
            if attestation.attester == liar:
                del self.attested[index]
                self.held &= ~(1 << index)
                self.done_at = None
        self.known.pop(liar, None)

    # --- reading

    def granted(self, boss: PeerId, message: m.LeaseGrant) -> None:
        info = message.info
        if info.lease in self.leases:
            held = self.leases[info.lease]
            if info.kind is not held.info.kind or info.count != held.info.count:
                held.info = info
            return
        if info.lease in self.over:
            return
        self.over.add(info.lease)
        until = self.world.now + info.expires_in_s
        self.leases[info.lease] = Held(
            info, until, boss, (self.world.peers[boss].boot, message.term)
        )
        self.work()

    def work(self) -> None:
        """One lease at a time, one piece at a time."""
        if self.busy is not None:
            return
        while self.leases:
            lease = next(iter(self.leases))
            if self.leases[lease].until > self.world.now:
                break
            del self.leases[lease]
        else:
            return
        self.busy = lease
        held = self.leases[lease]
        step = self.resolve if held.info.kind is m.LeaseKind.RESOLVE else self.read
        boot = self.boot
        cost = self.world.read_s(self)
        self.world.at(
            self.world.now + cost, lambda: self.boot == boot and self.alive and step(lease)
        )

    def report(
        self, held: Held, outcome: m.Outcome, made: Iterable[Attestation] = (), code: str = ""
    ) -> None:
        task = self.world.origin.task
        message = m.LeaseReport(
            task, self.seeker.term, held.info.lease, outcome, tuple(made), code, code
        )
        self.tell(message)

    def tell(self, message: m.Message) -> None:
        """What came of a lease; between two keepers it waits for the next one."""
        self.untold.append(message)
        if self.seeker.keeper is not None:
            for waiting in self.untold:
                self.world.post(self, self.seeker.keeper, waiting)
            self.untold.clear()

    def resolve(self, lease: int) -> None:
        held = self.leases.get(lease)
        self.busy = None
        if held is None or held.until <= self.world.now:
            self.work()
            return
        origin = self.world.origin
        if origin.error is not None:
            self.give_back(lease, held)
            return
        nonce = bytes([origin.validator is None]) + lease.to_bytes(8, "big")
        version = version_of(
            self.key, origin.pieces, spec=origin.spec, validator=origin.validator,
            ranged=origin.ranged, nonce=nonce,
        )  # fmt: skip
        old = self.version
        self.take_version(version)
        resolved = m.Resolved(origin.task, self.seeker.term, lease, version, False)
        self.tell(resolved)
        if old is not None and old.version == version.version and self.held & 1:
            del self.leases[lease]
            self.work()
            return
        kind = m.LeaseKind.READ if origin.ranged else m.LeaseKind.STREAM
        count = 1 if origin.ranged else origin.pieces
        held.info = m.LeaseInfo(lease, kind, self.peer, 0, count, 0.0)
        self.read(lease)

    def give_back(self, lease: int, held: Held) -> None:
        assert self.world.origin.error is not None
        del self.leases[lease]
        outcome, code = self.world.origin.error
        self.report(held, outcome, (), code)
        self.work()

    def read(self, lease: int) -> None:
        """One piece of a lease was read."""
        held = self.leases.get(lease)
        self.busy = None
        world = self.world
        if held is None or held.until <= world.now or self.version is None:
            self.leases.pop(lease, None)
            self.work()
            return
        if world.origin.error is not None:
            self.give_back(lease, held)
            return
        info = held.info
        index = info.first + len(held.made)
        count = info.count or (self.version.piece_count or 0) - info.first
        if count > len(held.made):
            world.origin.reads.append(
                Read(world.now, self.peer, (held.boss, held.reign),
                     self.version.version, index, info.kind)
            )  # fmt: skip
            digest = index.to_bytes(32, "big")
            if self.lies:
                digest = bytes([255]) + digest[1:]
            made = Attestation.made(self.key, self.version.version, PieceIndex(index), digest)
            held.made.append(made)
            if info.kind is not m.LeaseKind.AUDIT:
                self.held |= 1 << index
                self.attested[index] = made
        if len(held.made) >= count:
            del self.leases[lease]
            self.report(held, m.Outcome.DONE, held.made)
            self.work()
            return
        self.report(held, m.Outcome.PROGRESS, held.made[-1:])
        self.leases = {lease: self.leases.pop(lease), **self.leases}
        self.work()


class World:
    """Peers, a network and a clock."""

    def __init__(
        self, seed: int, peers: int, origin: Origin, *, config: KeeperConfig | None = None,
        seeds: int = 0, checked: bool = True,
    ) -> None:  # fmt: skip
        self.seed, self.origin, self.checked = seed, origin, checked
        self.config = config or KeeperConfig()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.room, self.fetched_max = 4, 8
        self.loss = self.doubled = 0.0
        self.delay_s = (0.001, 0.005)
        self.ordered = True
        self.read_cost_s = 0.02
        self.seeds = set(range(1, seeds + 1))
        self.views = {n: set(range(1, peers + 1)) for n in range(1, peers + 1)}
        self.cores: list[KeeperCore] = []
        self.protocol_errors: list[str] = []
        self.told_at: dict[int, float] = {}
        self.asked_at: dict[int, float] = {}
        self.messages = 0
        self._cut: set[frozenset[PeerId]] = set()
        self._links: set[frozenset[PeerId]] = set()
        self._last: dict[tuple[PeerId, PeerId], float] = {}
        self._armed: dict[tuple[int, str], int] = {}
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self.peers: dict[PeerId, SimPeer] = {}
        for number in range(1, peers + 1):
            self.peers[key(number).peer_id] = SimPeer(self, number)

    def member(self, number: int) -> Member:
        return member(number, seed=number in self.seeds)

    def __getitem__(self, number: int) -> SimPeer:
        return self.peers[key(number).peer_id]

    def read_s(self, peer: SimPeer) -> float:
        return self.read_cost_s * (0.5 + self.rng.random())

    # --- time

    def at(self, when: float, what: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, what))

    def once(self, peer: SimPeer, name: str, what: Callable[[], None]) -> Callable[[], None]:
        """Only the newest timer of a name counts, and only while its daemon runs."""
        tag, boot = self._count + 1, peer.boot
        self._armed[peer.number, name] = tag

        def run() -> None:
            if self._armed.get((peer.number, name)) == tag and peer.alive and peer.boot == boot:
                what()

        return run

    def run(self, for_s: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + for_s
        while self._queue and self._queue[0][0] <= end and not until():
            self.now, _, what = heapq.heappop(self._queue)
            what()
        if not until():
            self.now = end

    # --- the network

    def reach(self, one: SimPeer, other: SimPeer) -> bool:
        return other.alive and frozenset({one.peer, other.peer}) not in self._cut

    def post(self, sender: SimPeer, to: PeerId, message: m.Message) -> None:
        self.messages += 1
        data = m.encode_message(message)
        other = self.peers[to]
        boot = other.boot
        if to == sender.peer:
            self.at(self.now, lambda: self.deliver(sender.peer, to, data, boot, looped=True))
            return
        if not self.reach(sender, other):
            sender_boot = sender.boot
            self.at(self.now + 0.01, partial(self.not_delivered, sender, sender_boot, to))
            return
        self._links.add(frozenset({sender.peer, to}))
        for _ in range(2 if self.rng.random() < self.doubled else 1):
            if self.rng.random() < self.loss:
                # TCP loses nothing but the whole link, which is noticed a little later.
                self.at(self.now + self.rng.random() * 0.3, partial(self.break_link, sender, other))
                continue
            when = self.now + self.rng.uniform(*self.delay_s)
            if self.ordered:
                when = max(when, self._last.get((sender.peer, to), 0.0))
                self._last[sender.peer, to] = when
            self.at(when, lambda: self.deliver(sender.peer, to, data, boot))

    def not_delivered(self, sender: SimPeer, boot: int, to: PeerId) -> None:
        if sender.alive and sender.boot == boot:
            sender.undelivered(to)

    def deliver(
        self, sender: PeerId, to: PeerId, data: bytes, boot: int, looped: bool = False
    ) -> None:
        other = self.peers[to]
        here = other.alive and other.boot == boot
        if here and (looped or frozenset({sender, to}) in self._links):
            other.arrived(sender, m.decode_message(data))

    # --- faults

    def break_link(self, one: SimPeer, other: SimPeer) -> None:
        pair = frozenset({one.peer, other.peer})
        if pair in self._links:
            self._links.discard(pair)
            for here, there in ((one, other), (other, one)):
                if here.alive:
                    here.lost(there.peer)

    def crash(self, number: int) -> None:
        peer = self[number]
        peer.alive = False
        for other in self.peers.values():
            self.break_link(other, peer)

    def restart(self, number: int) -> None:
        peer = self[number]
        peer.alive = True
        peer.start()
        if peer.wants:
            peer.get()

    def cut(self, one: Iterable[int], other: Iterable[int]) -> None:
        for a in one:
            for b in other:
                self._cut.add(frozenset({self[a].peer, self[b].peer}))
                self.break_link(self[a], self[b])

    def heal(self) -> None:
        self._cut.clear()

    def see(self, number: int, others: Iterable[int]) -> None:
        self.views[number] = set(others)
        if self[number].alive:
            self[number].view(others)

    # --- what came of it

    def all_done(self) -> bool:
        return all(p.done_at is not None for p in self.peers.values() if p.alive and p.wants)

    def copies(self) -> float:
        return len(self.origin.reads) / self.origin.pieces

    def twice(self) -> int:
        """Reads of pieces that were read before."""
        return len(self.origin.reads) - len({(r.version, r.piece) for r in self.origin.reads})

    def keepers(self) -> list[SimPeer]:
        task = self.origin.task
        return [p for p in self.peers.values() if p.alive and p.core.kept(task) is not None]


def lease_id(value: int) -> LeaseId:
    return LeaseId(value)
