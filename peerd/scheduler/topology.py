"""What a leader and its standbys see: who does what in which swarm, and what crosses which border.

Always: a picture is what peers said of themselves, and only of members; of who says nothing for
`silent_s` all of its swarms are forgotten, and only what its uplink can do is remembered; what is
kept is bounded in peers, swarms and zones, and where there is no more room the new is left out, of
uplinks the oldest.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import (
    SWARMS_MAX,
    ZONES_MAX,
    KeptReport,
    Report,
    SwarmReport,
    ZoneReport,
)

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True, slots=True)
class TopologyConfig:
    """Every figure of a picture, with its source."""

    peers_max: int = 20_000  # Twice design.md's largest group.
    swarms_of_peer_max: int = 64  # Guess.
    zones_max: int = 4_096  # Pairs of zones: 64 of each. Guess.
    silent_s: float = 15.0  # Who is in a swarm says something each 5 s at least (ReporterConfig).
    zone_forgets_s: float = 60.0  # A rate so old is replaced by a lower one. Guess.
    zone_weight: float = 0.25  # Of a lower rate: one slow receiver is not the border's. Guess.


@dataclass(slots=True)
class InSwarm:
    """One peer in one swarm, as it said last (SwarmReport)."""

    pieces: int
    piece_bytes: int
    held: int
    wants: bool
    stands: bool
    priority: int
    down_bytes_s: int

    @property
    def progress(self) -> float:
        return self.held / self.pieces if self.pieces else 0.0

    @property
    def left_bytes(self) -> int:
        return (self.pieces - self.held) * self.piece_bytes


@dataclass(slots=True)
class PeerSeen:
    """One peer, as it said last; zone and kind as membership has them. `keeps`: tasks, and the
    origin of each."""

    zone: str
    seed: bool
    heard_at: float
    load_percent: int = 0
    up_bytes_s: int = 0
    children: int = 0
    swarms: dict[TaskId, InSwarm] = field(default_factory=dict)
    keeps: dict[TaskId, int] = field(default_factory=dict)


@dataclass(slots=True)
class Border:
    """What comes from one zone into another: as the best receiver measured it."""

    down_bytes_s: float
    round_trip_s: float
    at: float


class Crowd:
    """The peers of one zone in one swarm, so that some can be drawn by chance."""

    def __init__(self) -> None:
        self.peers: list[PeerId] = []
        self._places: dict[PeerId, int] = {}

    def add(self, peer: PeerId) -> None:
        if peer not in self._places:
            self._places[peer] = len(self.peers)
            self.peers.append(peer)

    def remove(self, peer: PeerId) -> None:
        place, last = self._places.pop(peer), self.peers.pop()
        if last != peer:
            self.peers[place] = last
            self._places[last] = place


class Topology:
    """The picture of one who leads, or stands by. `uplinks`: what each sends while it serves
    several (0: it never did), and what it sent at most (Report)."""

    def __init__(self, config: TopologyConfig | None = None) -> None:
        self.config = config or TopologyConfig()
        self.peers: dict[PeerId, PeerSeen] = {}
        self.tasks: dict[TaskId, dict[PeerId, InSwarm]] = {}
        self.borders: dict[tuple[str, str], Border] = {}
        self.crowds: dict[TaskId, dict[str, Crowd]] = {}
        self.keepers: dict[TaskId, PeerId] = {}
        self.uplinks: OrderedDict[PeerId, tuple[int, int]] = OrderedDict()
        self.heard_at = -inf
        self.reports = 0
        self._into: dict[str, dict[str, Border]] = {}
        self._silent: deque[tuple[float, PeerId]] = deque()

    def report(self, report: Report, zone: str, now: float, *, seed: bool = False) -> None:
        """What a member of that zone says of itself."""
        self.reports += 1
        self.heard_at = now
        peer = self.peers.get(report.peer)
        if peer is None:
            if len(self.peers) >= self.config.peers_max:
                return
            peer = self.peers[report.peer] = PeerSeen(zone, seed, now)
            self._silent.append((now + self.config.silent_s, report.peer))
        if peer.zone != zone:
            for task in tuple(peer.swarms):
                self._leave(report.peer, peer, task)
        peer.zone, peer.seed, peer.heard_at = zone, seed, now
        self._says(report, peer)
        for task in report.gone:
            self._leave(report.peer, peer, task)
        for said in report.swarms:
            found = InSwarm(
                said.pieces, said.piece_bytes, min(said.held, said.pieces), said.wants, said.stands,
                said.priority, said.down_bytes_s,
            )  # fmt: skip
            if said.task in peer.swarms or len(peer.swarms) < self.config.swarms_of_peer_max:
                peer.swarms[said.task] = found
                self.tasks.setdefault(said.task, {})[report.peer] = found
                crowd = self.crowds.setdefault(said.task, {}).get(zone)
                if crowd is None:
                    crowd = self.crowds[said.task][zone] = Crowd()
                crowd.add(report.peer)
        for border in report.zones:
            self._measured(border.zone, zone, border.down_bytes_s, border.round_trip_ms / 1e3, now)

    def sample(self, task: TaskId, zone: str, most: int, rng: Random) -> list[PeerId]:
        """Some of a swarm by chance, half of them of that zone where there are so many."""
        crowds = self.crowds.get(task, {})
        near = crowds[zone].peers if zone in crowds else []
        far = [crowd.peers for name, crowd in crowds.items() if name != zone]
        if not far:
            return near if len(near) <= most else rng.sample(near, most)
        few = most // 2
        found = dict.fromkeys(near if len(near) <= few else rng.sample(near, few))
        for _ in range(most - len(found)):
            crowd = far[int(rng.random() * len(far))]
            found[crowd[int(rng.random() * len(crowd))]] = None
        return list(found)

    def shares(self, zone: str) -> dict[str, float]:
        """What comes from each other zone into that one, over the best of them."""
        into = self._into.get(zone, {})
        best = max((border.down_bytes_s for border in into.values()), default=0.0)
        return {name: border.down_bytes_s / best for name, border in into.items()} if best else {}

    def as_reports(self) -> Iterator[Report]:
        """The whole picture as those in it would report it, for one that is to stand by now."""
        measured: dict[str, list[ZoneReport]] = {}
        for (origin, zone), border in self.borders.items():
            said = ZoneReport(origin, int(border.down_bytes_s), int(1e3 * border.round_trip_s))
            measured.setdefault(zone, []).append(said)
        for peer, seen in self.peers.items():
            swarms = [
                SwarmReport(
                    task, said.pieces, said.piece_bytes, said.held, said.wants, said.stands,
                    said.priority, said.down_bytes_s,
                )
                for task, said in seen.swarms.items()
            ]  # fmt: skip
            keeps = tuple(KeptReport(task, origin) for task, origin in seen.keeps.items())
            zones = measured.pop(seen.zone, [])
            while swarms or zones or keeps:
                yield Report(
                    peer, seen.load_percent, seen.up_bytes_s, *self.uplinks.get(peer, (0, 0)),
                    seen.children, tuple(swarms[:SWARMS_MAX]), (), tuple(zones[:ZONES_MAX]), keeps,
                )  # fmt: skip
                swarms, zones, keeps = swarms[SWARMS_MAX:], zones[ZONES_MAX:], ()

    def forget(self, peer: PeerId) -> None:
        """It left, or fell silent."""
        found = self.peers.pop(peer, None)
        if found is not None:
            self._keeps(peer, found, {})
            for task in tuple(found.swarms):
                self._leave(peer, found, task)

    def clear(self) -> None:
        """This peer neither leads nor stands by any more."""
        self.peers.clear()
        self.tasks.clear()
        self.crowds.clear()
        self.keepers.clear()
        self.uplinks.clear()
        self.borders.clear()
        self._into.clear()
        self._silent.clear()
        self.heard_at = -inf

    def deadline(self) -> float:
        return self._silent[0][0] if self._silent else inf

    def expire(self, now: float) -> None:
        """Forget who fell silent."""
        while self._silent and self._silent[0][0] <= now:
            _, peer = self._silent.popleft()
            seen = self.peers.get(peer)
            if seen is None:
                continue
            silent_at = seen.heard_at + self.config.silent_s
            if silent_at <= now:
                self.forget(peer)
            else:
                self._silent.append((silent_at, peer))

    def validate(self) -> None:
        assert len(self.peers) <= self.config.peers_max
        assert len(self.borders) <= self.config.zones_max
        assert len(self.uplinks) <= self.config.peers_max
        assert all(task in self.peers[peer].keeps for task, peer in self.keepers.items())
        assert {peer for _, peer in self._silent} >= self.peers.keys()
        for task, members in self.tasks.items():
            assert members, f"an empty swarm of {task}"
            for peer, said in members.items():
                assert self.peers[peer].swarms[task] is said
                assert peer in self.crowds[task][self.peers[peer].zone].peers
            assert sum(len(x.peers) for x in self.crowds[task].values()) == len(members)
        for peer, seen in self.peers.items():
            assert len(seen.swarms) <= self.config.swarms_of_peer_max
            assert all(peer in self.tasks[task] for task in seen.swarms)

    # --- parts

    def _says(self, report: Report, peer: PeerSeen) -> None:
        """Of itself, not of a swarm."""
        peer.load_percent, peer.up_bytes_s = report.load_percent, report.up_bytes_s
        peer.children = report.children
        self._keeps(report.peer, peer, {each.task: each.origin for each in report.keeps})
        if report.up_most_bytes_s:
            self.uplinks[report.peer] = report.up_full_bytes_s, report.up_most_bytes_s
            self.uplinks.move_to_end(report.peer)
            if len(self.uplinks) > self.config.peers_max:
                self.uplinks.popitem(last=False)

    def _keeps(self, peer: PeerId, seen: PeerSeen, keeps: dict[TaskId, int]) -> None:
        """Of two that say they keep the same the last one counts."""
        for task in seen.keeps.keys() - keeps.keys():
            if self.keepers.get(task) == peer:
                del self.keepers[task]
        seen.keeps = keeps
        self.keepers.update(dict.fromkeys(keeps, peer))

    def _leave(self, peer: PeerId, seen: PeerSeen, task: TaskId) -> None:
        if seen.swarms.pop(task, None) is not None:
            members = self.tasks[task]
            del members[peer]
            crowd = self.crowds[task][seen.zone]
            crowd.remove(peer)
            if not crowd.peers:
                del self.crowds[task][seen.zone]
            if not members:
                del self.tasks[task], self.crowds[task]

    def _measured(
        self, origin: str, zone: str, rate_bytes_s: float, round_trip_s: float, now: float
    ) -> None:
        """The greatest rate counts until it is old; a lower one only draws it down."""
        border = self.borders.get((origin, zone))
        if border is None:
            if len(self.borders) < self.config.zones_max:
                border = self.borders[origin, zone] = Border(rate_bytes_s, round_trip_s, now)
                self._into.setdefault(zone, {})[origin] = border
            return
        old = now - border.at > self.config.zone_forgets_s
        if old or rate_bytes_s >= border.down_bytes_s:
            border.down_bytes_s, border.at = rate_bytes_s, now
            border.round_trip_s = round_trip_s
        else:
            weight = self.config.zone_weight * min(1.0, (now - border.at))
            border.down_bytes_s += weight * (rate_bytes_s - border.down_bytes_s)
            border.round_trip_s = min(border.round_trip_s, round_trip_s)
            border.at = now
