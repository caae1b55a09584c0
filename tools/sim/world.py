"""All peers of a scenario, the contents they want, and what happens to them.

Always: the same scenario and seed give the same trace; a piece counts as held with whoever vouched
for it, so that what is wrong is seen (`wrong_held`).
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import Final

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.manifest import Attestation
from peerd.rendezvous import ranked
from peerd.scheduler.ports import Member
from peerd.signing import SigningKey
from tools.sim.bounds import Moment
from tools.sim.clock import START_S, Clock
from tools.sim.content import Content
from tools.sim.copies import Copy
from tools.sim.flows import Uplink
from tools.sim.happenings import Happenings
from tools.sim.leading import Leaders
from tools.sim.network import Network
from tools.sim.peer import SimPeer
from tools.sim.scenario import BYTES_PER_MBIT, Scenario, zone_names
from tools.sim.trace import Trace

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
        self.contents = [
            Content(number, task.size_bytes, task.priority, digest=scenario.digest)
            for number, task in enumerate(scenario.all_tasks)
        ]
        self.number_of = {content.version_id: content.number for content in self.contents}
        self.peers: list[SimPeer] = []
        self.wanted: list[tuple[SimPeer, Content]] = []
        self._wanted_by: dict[SimPeer, list[Copy]] = {}
        self.gone = self.done = self.pieces_held = self.fan_in_max = 0
        self.errors: list[str] = []
        self._known: list[SimPeer] = []
        self._live: tuple[Member, ...] = ()
        self.happenings = Happenings(self)
        self.leaders = Leaders(self)
        self.moments: list[Moment] = []
        self._people()

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
        for content, task in zip(self.contents, scenario.all_tasks, strict=True):
            some = self.peers
            if task.share < 1.0:
                some = self.rng.sample(self.peers, max(1, round(task.share * count)))
                some.sort(key=lambda peer: peer.number)
            self.wanted += [(peer, content) for peer in some]
            for peer in some:
                self._wanted_by.setdefault(peer, []).append(peer.copies[content.number])

    def wanted_by(self, peer: SimPeer) -> list[Copy]:
        return self._wanted_by.get(peer, [])

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

    # --- what is held

    def wrong_held(self) -> int:
        """Pieces in the stores of those who finished that are not the content's."""
        copies = [copy for peer in self.peers for copy in peer.copies if copy.done_at is not None]
        return sum(copy.content.wrong(copy.store.made) for copy in copies)

    def held(
        self, copy: Copy, peer: SimPeer, index: int, made: Attestation, sender: PeerId | None
    ) -> None:  # fmt: skip
        copy.store.held.add(index)
        copy.store.made[index] = made
        self.pieces_held += 1
        if self.pieces_held >= self.happenings.next_pieces:
            self.happenings.progressed(self.pieces_held)
        source = "origin" if sender is None else self.network.peers[sender].number
        self._note(copy, peer, "holds", index, source)
        if copy is peer.copies[0]:
            peer.along.go_on()

    def completed(self, copy: Copy, peer: SimPeer) -> None:
        if copy.done_at is None:
            self.done += copy.wants_at is not None
            copy.done_at = self.clock.now
        self._note(copy, peer, "complete", 0, "")

    def failed(self, copy: Copy, peer: SimPeer, words: str) -> None:
        copy.error = words
        self.gone += copy.done_at is None
        self._note(copy, peer, "failed", 0, words)

    def _note(self, copy: Copy, peer: SimPeer, what: str, index: int, more: object) -> None:
        """Of several contents the line says which."""
        if len(self.contents) > 1:
            what = f"{what}-{copy.content.number}"
        self.trace.note(self.clock.now, peer.number, what, index, more)

    def protocol_error(self, peer: SimPeer, error: RemoteProtocolError) -> None:
        """Somebody broke the protocol, which no simulated peer may do."""
        if len(self.errors) < ERRORS_MAX:
            self.errors.append(f"{self.clock.now - START_S:.3f} s, peer {peer.number}: {error}")

    def keeper(self) -> SimPeer | None:
        """Who keeps the first task now; the first in order where views differ."""
        task = self.contents[0].task
        keeping = {p.own: p for p in self.peers if p.alive and p.keeping.core.kept(task)}
        return keeping[ranked(keeping, task)[0]] if keeping else None

    # --- from begin to end

    def run(self) -> None:
        self._begin()
        wanting = len(self.wanted)
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
        arrivals = dict(zip(self.peers, self._arrivals(), strict=True))
        for peer, content in self.wanted:
            at_s = (
                self.scenario.peers.up_s
                + arrivals[peer]
                + self.scenario.all_tasks[content.number].at_s
            )
            self.clock.after(at_s, peer.get, peer.copies[content.number])

    def _booted(self, peer: SimPeer) -> None:
        peer.views.synced = True
        self.know([peer], spread_s=self.scenario.membership.spread_s)
        peer.views.refresh()

    def restart(self, peer: SimPeer) -> None:
        """On the same store; it has a membership again after a sync."""
        peer.start(synced=False)
        self.clock.after(RESYNC_S * (0.5 + self.rng.random()), peer.guarded(self._resynced), peer)
        for copy in peer.copies:
            if copy.wants_at is not None:
                peer.get(copy)

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
