"""What a peer says of itself to the scheduler, when, and how what others say is passed on.

Always: nothing is said by who is in no swarm; at most one report a second, with what changed; all
is said anew to a new leader or contact, after a pause by chance; what is passed on waits as long as
a batch takes, and at most `waiting_max` of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import (
    KEPT_MAX,
    REPORTS_MAX,
    SWARMS_MAX,
    ZONES_MAX,
    KeptReport,
    Report,
    Reports,
    SwarmReport,
    ZoneReport,
)

if TYPE_CHECKING:
    from random import Random


UPLINK_WEIGHT: Final = 0.5
"""Of the newest second in what an uplink can do. Guess: some seconds are of something else."""
BUSY_SHARE: Final = 0.5
BUSY_S: Final = 0.5
"""An uplink is measured over times of which it was busy for half, so long in all. Guess."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a peer knows of itself now: see messages.Report."""

    load_percent: int
    up_bytes_s: int
    up_full_bytes_s: int
    up_most_bytes_s: int
    children: int
    swarms: Mapping[TaskId, SwarmReport]
    zones: Mapping[str, ZoneReport]
    keeps: Mapping[TaskId, int]


class Uplink:
    """What a peer can send: `full_bytes_s` while it served several at once (0: that never was), at
    least `most_bytes_s`."""

    def __init__(self) -> None:
        self.full_bytes_s = self.most_bytes_s = 0
        self._busy_s = 0.0
        self._bytes = 0

    def sent(self, sent_bytes: int, past_s: float, busy_s: float) -> None:
        """So much in the time since the last call, in which it was busy for so long."""
        self.most_bytes_s = max(self.most_bytes_s, int(sent_bytes / past_s))
        if busy_s < BUSY_SHARE * past_s:
            return  # Most of it may have gone to one child alone.
        self._busy_s += busy_s
        self._bytes += sent_bytes
        if self._busy_s >= BUSY_S:
            rate, before = self._bytes / self._busy_s, self.full_bytes_s
            self.full_bytes_s = int(before + UPLINK_WEIGHT * (rate - before) if before else rate)
            self._busy_s, self._bytes = 0.0, 0


@dataclass(frozen=True, slots=True)
class ReporterConfig:
    """Every figure of reporting, with its source."""

    every_s: float = 1.0  # Issue 4: at most once a second.
    looks_s: float = 0.25  # Who has nothing to say looks so often whether it has. Guess.
    at_least_s: float = 5.0  # While in a swarm, though nothing changed: a third of silent_s.
    jitter_s: float = 1.0  # After a change of leader; 1,000 peers within 5 s are wanted.
    changed_by: float = 0.25  # A rate that changed by less is not news. Guess.
    load_changed: int = 10  # … of a hundred. Guess.
    pass_on_s: float = 0.2  # Guess: a fifth of the time between two reports, for each hop.
    waiting_max: int = 4_096  # Reports: four seconds of 1,000 peers.
    ways_max: int = 20_000  # As TopologyConfig.peers_max: a leader has one to each.


class Reporter:
    """One peer's own reports."""

    def __init__(self, own: PeerId, rng: Random, config: ReporterConfig | None = None) -> None:
        self.own = own
        self.config = config or ReporterConfig()
        self._rng = rng
        self._said: dict[TaskId, SwarmReport] = {}
        self._zones: dict[str, ZoneReport] = {}
        self._load = self._up = self._up_full = self._children = 0
        self._keeps: Mapping[TaskId, int] = {}
        self._said_at = -inf
        self._due = inf

    def anew(self, now: float) -> None:
        """Somebody else hears it from now on: all is to be said."""
        self._said.clear()
        self._zones.clear()
        self._keeps = {}
        self._said_at = -inf
        self._due = now + self._rng.uniform(0.0, self.config.jitter_s)

    def began(self, now: float) -> None:
        """There is news that a leader can do something about now, and hardly in a second."""
        if self._due < inf:
            self._due = min(self._due, max(now, self._said_at + self.config.every_s))

    def stop(self) -> None:
        """Nobody hears it."""
        self._due = inf

    def deadline(self) -> float:
        return self._due

    def look(self, facts: Facts, now: float) -> Report | None:
        """What is to be said now; None if there is nothing."""
        if now < self._due:
            return None
        self._due = now + self.config.looks_s
        late = now - self._said_at >= self.config.at_least_s
        swarms = [
            said for task, said in facts.swarms.items()
            if late or self._is_news(self._said.get(task), said)
        ][:SWARMS_MAX]  # fmt: skip
        gone = [task for task in self._said if task not in facts.swarms][:SWARMS_MAX]
        zones = [
            said for zone, said in facts.zones.items() if self._differs(self._zones.get(zone), said)
        ][:ZONES_MAX]
        busy = facts.swarms or facts.keeps
        keeps = facts.keeps != self._keeps or (late and bool(facts.keeps))
        if not (swarms or gone or keeps) and not (busy and (zones or self._busier(facts))):
            return None
        self._said_at, self._due = now, now + self.config.every_s
        self._load, self._up, self._children = facts.load_percent, facts.up_bytes_s, facts.children
        self._up_full, self._keeps = facts.up_full_bytes_s, facts.keeps
        self._said.update((said.task, said) for said in swarms)
        self._zones.update((said.zone, said) for said in zones)
        for task in gone:
            del self._said[task]
        return Report(
            self.own, facts.load_percent, facts.up_bytes_s, facts.up_full_bytes_s,
            facts.up_most_bytes_s, facts.children, tuple(swarms), tuple(gone), tuple(zones),
            tuple(KeptReport(*each) for each in facts.keeps.items())[:KEPT_MAX],
        )  # fmt: skip

    def _is_news(self, before: SwarmReport | None, said: SwarmReport) -> bool:
        return (
            before is None
            or (before.held, before.wants, before.stands) != (said.held, said.wants, said.stands)
            or before.pieces != said.pieces
            or self._far(before.down_bytes_s, said.down_bytes_s)
        )

    def _differs(self, before: ZoneReport | None, said: ZoneReport) -> bool:
        return (
            before is None
            or self._far(before.down_bytes_s, said.down_bytes_s)
            or self._far(before.round_trip_ms, said.round_trip_ms)
        )

    def _busier(self, facts: Facts) -> bool:
        return (
            abs(facts.load_percent - self._load) >= self.config.load_changed
            or self._far(self._up, facts.up_bytes_s)
            or self._far(self._up_full, facts.up_full_bytes_s)
            or facts.children != self._children
        )

    def _far(self, before: float, now: float) -> bool:
        return abs(now - before) > self.config.changed_by * max(before, now)


@dataclass
class Relay:
    """Reports that are on their way through this peer, and the way back to who made them."""

    config: ReporterConfig = field(default_factory=ReporterConfig)
    waiting: list[Report] = field(default_factory=list)
    ways: dict[PeerId, PeerId] = field(default_factory=dict)
    dropped: int = 0
    due: float = inf

    def take(
        self, child: PeerId, reports: Iterable[Report], now: float,
        direct: Collection[PeerId] = (),
    ) -> None:  # fmt: skip
        """Of a subscriber, or (child is its peer) of this peer itself. `direct`: those who are
        reached without another, whoever speaks of them; with none there is nobody to wait for."""
        for report in reports:
            if len(self.waiting) >= self.config.waiting_max:
                self.dropped += 1
                continue
            self.waiting.append(report)
            if report.peer in self.ways or len(self.ways) < self.config.ways_max:
                self.ways[report.peer] = report.peer if report.peer in direct else child
        if self.waiting and self.due == inf:
            self.due = now + (self.config.pass_on_s if direct else 0.0)

    def flush(self) -> list[Reports]:
        """All that waits, in messages."""
        waiting, self.waiting, self.due = self.waiting, [], inf
        return batches(waiting)

    def lost(self, child: PeerId) -> None:
        """No way leads over it any more."""
        self.ways = {peer: over for peer, over in self.ways.items() if over != child}


def batches(reports: Sequence[Report]) -> list[Reports]:
    """In messages of REPORTS_MAX."""
    return [
        Reports(tuple(reports[at : at + REPORTS_MAX])) for at in range(0, len(reports), REPORTS_MAX)
    ]
