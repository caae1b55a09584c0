"""The same scenarios with a scheduler and without, in one call.

Always: both columns are of the same scenarios and seeds; what is told is how long a peer waited for
what it wanted (of several contents the most urgent ones), the mean, when all was done, and the
origin copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any, Final

from tools.sim.scenario import load
from tools.sim.trace import Trace
from tools.sim.world import World

SCENARIOS: Final = (
    "flash-crowd", "zones", "several-tasks", "priorities", "downlinks", "mixed-speeds",
    "overloaded", "late", "few-pieces", "unequal-zones",
)  # fmt: skip
SCHEDULERS: Final = 2
COMMON: Final = {"peers.up_s": "5.0"}
SMALL: Final = {"flash-crowd": {"size": "64MiB", "peers.count": "32"},
                "zones": {"size": "64MiB", "peers.count": "32"}}  # fmt: skip
"""Scenarios whose own size would take minutes."""


@dataclass(frozen=True)
class Column:
    """Seconds, of the most urgent and of all; copies of all contents together; means of seeds."""

    mean_s: float
    last_s: float
    copies: float
    failed: int


@dataclass(frozen=True)
class Line:
    """One scenario; the ratios are of scheduled to degraded."""

    scenario: str
    degraded: Column
    scheduled: Column

    @property
    def mean_ratio(self) -> float:
        return self.scheduled.mean_s / self.degraded.mean_s

    @property
    def last_ratio(self) -> float:
        return self.scheduled.last_s / self.degraded.last_s

    def told(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            **{
                f"{name}_{key}": round(getattr(column, key), 4)
                for name, column in (("degraded", self.degraded), ("scheduled", self.scheduled))
                for key in ("mean_s", "last_s", "copies", "failed")
            },
            "mean_ratio": round(self.mean_ratio, 4),
            "last_ratio": round(self.last_ratio, 4),
        }


def compare(name: str, seeds: int) -> Line:
    return Line(name, _column(name, 0, seeds), _column(name, SCHEDULERS, seeds))


def _column(name: str, schedulers: int, seeds: int) -> Column:
    changes = {**COMMON, **SMALL.get(name, {}), "peers.schedulers": str(schedulers)}
    runs = [_run(name, changes, seed) for seed in range(1, seeds + 1)]
    return Column(
        mean(run.mean_s for run in runs), mean(run.last_s for run in runs),
        mean(run.copies for run in runs), sum(run.failed for run in runs),
    )  # fmt: skip


def _run(name: str, changes: dict[str, str], seed: int) -> Column:
    world = World(load(name, changes), seed, Trace())
    world.run()
    copies = [copy for peer in world.peers for copy in world.wanted_by(peer)]
    done = [copy for copy in copies if copy.done_at is not None]
    urgent = max(content.priority for content in world.contents)
    waited = [
        (copy.done_at or 0.0) - (copy.wants_at or 0.0)
        for copy in done if copy.content.priority == urgent
    ]  # fmt: skip
    begun = min(copy.wants_at for copy in copies if copy.wants_at is not None)
    last = max((copy.done_at for copy in copies if copy.done_at is not None), default=begun)
    size = sum(content.length_bytes for content in world.contents)
    return Column(
        mean(waited), last - begun, world.origin.sent_bytes / size, len(copies) - len(done)
    )


def table(lines: list[Line]) -> str:
    """As docs/simulation.md has it."""
    rows = [
        "| scenario | mean wait, degraded | scheduled | | all done, degraded | scheduled | | "
        "copies | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        old, new = line.degraded, line.scheduled
        rows.append(
            f"| {line.scenario} | {old.mean_s:.2f} s | {new.mean_s:.2f} s | {line.mean_ratio:.3f} "
            f"| {old.last_s:.2f} s | {new.last_s:.2f} s | {line.last_ratio:.3f} "
            f"| {old.copies:.3f} | {new.copies:.3f} |"
        )
    return "\n".join(rows)
