"""All peers of a scenario, the content they want, and what happens to them.

Always: the same scenario and seed give the same trace; a piece counts as held with whoever vouched
for it, so that what is wrong is seen (`wrong_held`).
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import Final

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, PieceIndex
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.pieces import piece_length_for
from peerd.rendezvous import ranked
from peerd.scheduler.ports import Member
from peerd.signing import SigningKey
from peerd.task import Ask, TaskSpec, task_id
from tools.sim.bounds import Moment
from tools.sim.clock import START_S, Clock
from tools.sim.flows import Uplink
from tools.sim.happenings import Happenings
from tools.sim.network import Network
from tools.sim.peer import SimPeer
from tools.sim.scenario import BYTES_PER_MBIT, Scenario, zone_names
from tools.sim.trace import Trace

DIGEST: Final = "sha256:" + "ab" * 32
RESYNC_S: Final = 1.0
"""From the start of a daemon to its first full sync: some dials of 250 ms (reference in
docs/measurements.md: ready within three seconds)."""
ERRORS_MAX: Final = 100


class World:
    """One run."""

    def __init__(self, scenario: Scenario, seed: int, trace: Trace) -> None:
        self.scenario, self.seed, self.trace = scenario, seed, trace
        self.clock = Clock()
        self.rng = Random(f"world/{seed}")
        self.up_bytes_s = scenario.peers.up_mbit_s * BYTES_PER_MBIT
        self.down_bytes_s = scenario.peers.down_mbit_s * BYTES_PER_MBIT
        self.network = Network(self.clock, scenario, Random(f"network/{seed}"))
        self.origin = Uplink(self.clock, scenario.origin.up_mbit_s * BYTES_PER_MBIT)
        self.origin_latency_s = scenario.origin.latency_ms / 1e3
        self.length_bytes = scenario.size_bytes
        self.spec = TaskSpec("https://origin.example/content", DIGEST if scenario.digest else None)
        self.task = task_id(Ask(self.spec), b"")
        self._versions: dict[PeerId, VersionInfo] = {}
        self._verified: dict[int, VersionInfo] = {}
        self.peers: list[SimPeer] = []
        self.gone = self.done = self.pieces_held = self.fan_in_max = 0
        self.errors: list[str] = []
        self._known: list[SimPeer] = []
        self._live: tuple[Member, ...] = ()
        self.happenings = Happenings(self)
        self.moments: list[Moment] = []
        self._people()
        first = self.peers[0]
        self.nobody = Attestation("0" * 64, 0, bytes(32), first.own, bytes(64))  # type: ignore[arg-type]
        self.count = self.version_by(first).piece_count or 0

    def _people(self) -> None:
        scenario, zones = self.scenario, zone_names(self.scenario)
        count = scenario.peers.count
        for number in range(count):
            key = SigningKey(hashlib.sha256(f"peer/{number}".encode()).digest())
            zone = zones[number * len(zones) // count]
            seed = _of_some(number, scenario.peers.seeds, count)
            scheduler = _of_some(count - 1 - number, scenario.peers.schedulers, count)
            peer = SimPeer(self, number, key, zone, seed=seed, scheduler=scheduler)
            self.peers.append(peer)
            self.network.peers[peer.own] = peer

    # --- who is known

    def live(self, peer: SimPeer) -> tuple[Member, ...]:
        """The group as a peer that is synced sees it."""
        return self._live

    def know(self, newcomers: list[SimPeer], *, spread_s: float) -> None:
        """They are in the group; the others hear of it within `spread_s`."""
        self._known += newcomers
        self._live = tuple(peer.member for peer in self._known)
        for peer in self.peers:
            if peer.alive and peer.views.synced:
                wait_s = self.rng.random() * spread_s
                self.clock.after(wait_s, peer.guarded(peer.views.refresh))

    # --- the content

    def version_by(self, peer: SimPeer) -> VersionInfo:
        """What the origin says, vouched for by `peer`."""
        if peer.own not in self._versions:
            digest, validator = self.spec.digest, None if self.spec.digest else '"v1"'
            version = version_id(
                self.task, digest=digest, validator=validator, length_bytes=self.length_bytes,
                nonce=b"",
            )  # fmt: skip
            info = VersionInfo(
                self.task, version, self.length_bytes, piece_length_for(self.length_bytes),
                validator, True, digest, peer.own, bytes(64),
            )  # fmt: skip
            self._versions[peer.own] = info.signed(peer.key)
        return self._versions[peer.own]

    def verified(self, info: VersionInfo) -> None:
        """Its signature is right. Peers share the object, so one check does for all of them."""
        if self._verified.get(id(info)) is not info:
            self._verified[id(info)] = info.verified()

    def attest(self, peer: SimPeer, index: int) -> Attestation:
        """`peer` read the piece, and says which digest it has (a liar: another)."""
        version = self.version_by(peer).version
        digest = _digest(index, self._wrong_by(peer.number) if peer.misreads else 0)
        return Attestation.made(peer.key, version, PieceIndex(index), digest)

    @staticmethod
    def _wrong_by(number: int) -> int:
        return number + 1

    def right(self, made: list[Attestation]) -> bool:
        """Whether the whole content has its digest."""
        return all(each.digest == _digest(index, 0) for index, each in enumerate(made))

    def wrong_held(self) -> int:
        """Pieces in the stores of those who finished that are not the content's."""
        return sum(
            made.digest != _digest(index, 0)
            for peer in self.peers if peer.done_at is not None
            for index, made in enumerate(peer.store.made)
        )  # fmt: skip

    # --- what came to pass

    def held(self, peer: SimPeer, index: int, made: Attestation, sender: PeerId | None) -> None:
        peer.store.held.add(index)
        peer.store.made[index] = made
        self.pieces_held += 1
        if self.pieces_held >= self.happenings.next_pieces:
            self.happenings.progressed(self.pieces_held)
        source = "origin" if sender is None else self.network.peers[sender].number
        self.trace.note(self.clock.now, peer.number, "holds", index, source)
        peer.along.go_on()

    def completed(self, peer: SimPeer) -> None:
        if peer.done_at is None:
            self.done += 1
            peer.done_at = self.clock.now
        self.trace.note(self.clock.now, peer.number, "complete", 0, "")

    def failed(self, peer: SimPeer, words: str) -> None:
        peer.error = words
        self.gone += peer.done_at is None
        self.trace.note(self.clock.now, peer.number, "failed", 0, words)

    def protocol_error(self, peer: SimPeer, error: RemoteProtocolError) -> None:
        """Somebody broke the protocol, which no simulated peer may do."""
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(f"{self.clock.now - START_S:.3f} s, peer {peer.number}: {error}")

    def keeper(self) -> SimPeer | None:
        """Who keeps the task now; the first in order where views differ."""
        keeping = {p.own: p for p in self.peers if p.alive and p.keeping.core.kept(self.task)}
        return keeping[ranked(keeping, self.task)[0]] if keeping else None

    # --- from begin to end

    def run(self) -> None:
        self._begin()
        wanting = self.scenario.peers.count
        until_s = START_S + self.scenario.limit_s
        self.clock.run(until_s, lambda: self.done + self.gone >= wanting)

    def _begin(self) -> None:
        membership = self.scenario.membership
        booting = set(self.rng.sample(self.peers, int(membership.booting * len(self.peers))))
        for peer in self.peers:
            peer.start(synced=peer not in booting)
        self.know([peer for peer in self.peers if peer not in booting], spread_s=0.0)
        for peer in self.peers:
            if peer in booting:
                self.clock.after(self.rng.random() * membership.booting_s, self._booted, peer)
        self.happenings.begin()
        for peer, at_s in zip(self.peers, self._arrivals(), strict=True):
            self.clock.after(at_s, peer.get)

    def _booted(self, peer: SimPeer) -> None:
        peer.views.synced = True
        self.know([peer], spread_s=self.scenario.membership.spread_s)
        peer.views.refresh()

    def restart(self, peer: SimPeer) -> None:
        """On the same store; it has a membership again after a sync."""
        peer.start(synced=False)
        self.clock.after(RESYNC_S * (0.5 + self.rng.random()), peer.guarded(self._resynced), peer)
        if peer.wants_at is not None:
            peer.get()

    @staticmethod
    def _resynced(peer: SimPeer) -> None:
        peer.views.synced = True
        peer.views.refresh()

    def _arrivals(self) -> list[float]:
        arrivals, count = self.scenario.arrivals, self.scenario.peers.count
        if arrivals.kind == "flash":
            return [self.rng.random() * arrivals.within_s for _ in range(count)]
        step_s = arrivals.within_s / max(1, count - 1)
        if arrivals.kind == "staggered":
            return [number * step_s for number in range(count)]
        at_s, times = 0.0, []
        for _ in range(count):
            times.append(at_s)
            at_s += self.rng.expovariate(1.0 / step_s) if step_s else 0.0
        return times


def _of_some(number: int, some: int, count: int) -> bool:
    """Whether it is one of so many, who are spread over all, and so over the zones."""
    every = max(1, count // max(1, some))
    return number % every == 0 and number // every < some


def _digest(index: int, wrong: int) -> bytes:
    return wrong.to_bytes(24, "big") + index.to_bytes(8, "big")
