"""What a scenario promises, what was measured, and whether the one is within the other. Pure.

Always: a verdict is green only if every row is; everything that was not asked of a scenario has no
row. A copy is as many bytes of the origin's answers as the content has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from peerd.units import MIB, format_size

PEERS_MIN: Final = 4
"""Below that, half of them are a pair, and a partition has a side of one."""


@dataclass(frozen=True)
class Shape:
    """What two runs must share to be compared."""

    peers: int = 6
    size_bytes: int = 64 * MIB
    rate_bit_s: int = 40_000_000
    seed_peers: int = 0
    """So many more: they read for the others, and nobody asks them for anything."""
    known_digest: bool = False
    schedulers: int = 0
    """So many of the peers, the last ones, may be elected to advise."""
    seed: int = 1


@dataclass(frozen=True)
class Limits:
    """None: nothing is promised of it here."""

    time_over_undisturbed_max: float | None = None
    """Of the last of those that the scenario does not touch."""
    time_added_max_s: float = 0.0
    """On top of that: how long the disturbance itself lasts."""
    copies_max: float | None = 1.02
    """And what the dead, the stopped, the slowed and the liars alone have, to be read again."""


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    what: str
    measured: str
    limit: str
    ok: bool


@dataclass(frozen=True)
class Measured:
    """One run. `seconds`: until the last of the undisturbed was done."""

    asked: int
    finished: int
    right: int
    seconds: float
    origin_bytes: int
    spared_bytes: int = 0
    """What those that were hit held alone or had in flight, and what liars read."""
    machine_busy: float = 0.0
    """Share of all processors' time, 0 to 1."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    scenario: str
    shape: Shape
    asked: int
    finished: int
    right: int
    origin_copies: float
    seconds: float
    undisturbed_s: float
    rows: tuple[Finding, ...] = field(default=())

    @property
    def green(self) -> bool:
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def time_over_undisturbed(self) -> float:
        return self.seconds / self.undisturbed_s if self.undisturbed_s else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "asked": self.asked,
            "finished": self.finished,
            "right": self.right,
            "origin_copies": round(self.origin_copies, 4),
            "time_over_undisturbed": round(self.time_over_undisturbed, 4),
            "seconds": round(self.seconds, 2),
            "undisturbed_s": round(self.undisturbed_s, 2),
            "seed": self.shape.seed,
            "findings": [vars(row) for row in self.rows],
            "verdict": "green" if self.green else "red",
        }


def judge(
    scenario: str, shape: Shape, limits: Limits, reference: Measured, disturbed: Measured
) -> Verdict:
    copies = disturbed.origin_bytes / shape.size_bytes
    asked = disturbed.asked
    rows = [
        Finding("finished", str(disturbed.finished), f"all {asked}", disturbed.finished == asked),
        Finding("right bytes", str(disturbed.right), f"all {asked}", disturbed.right == asked),
    ]
    if limits.copies_max is not None:
        rows.append(_copies(shape, limits.copies_max, copies, disturbed.spared_bytes))
    if limits.time_over_undisturbed_max is not None:
        rows.append(_time(limits, reference.seconds, disturbed.seconds))
        busy, before = disturbed.machine_busy, reference.machine_busy
        told = f"(told only; undisturbed {before:.0%})"
        rows.append(Finding("processors busy", f"{busy:.0%}", told, True))
    return Verdict(
        scenario,
        shape,
        asked,
        disturbed.finished,
        disturbed.right,
        copies,
        disturbed.seconds,
        reference.seconds,
        (*rows, *disturbed.findings),
    )


def failed(scenario: str, shape: Shape, words: str) -> Verdict:
    """A run that did not come to its end."""
    row = Finding("the run", words, "comes to its end", False)
    return Verdict(scenario, shape, shape.peers, 0, 0, 0.0, 0.0, 0.0, (row,))


def _copies(shape: Shape, copies_max: float, copies: float, spared_bytes: int) -> Finding:
    limit = f"≤ {copies_max:.2f}"
    if spared_bytes:
        limit += f" + {spared_bytes / shape.size_bytes:.3f} ({format_size(spared_bytes)} lost)"
    ok = copies <= copies_max + spared_bytes / shape.size_bytes
    return Finding("origin copies", f"{copies:.3f}", limit, ok)


def _time(limits: Limits, undisturbed_s: float, seconds: float) -> Finding:
    assert limits.time_over_undisturbed_max is not None
    most = limits.time_over_undisturbed_max
    limit = f"≤ {most:.2f} × {undisturbed_s:.1f} s"
    if limits.time_added_max_s:
        limit += f" + {limits.time_added_max_s:g} s"
    ok = 0 < seconds <= most * undisturbed_s + limits.time_added_max_s
    ratio = seconds / undisturbed_s if undisturbed_s else 0.0
    return Finding("time", f"{seconds:.1f} s = {ratio:.3f} ×", limit, ok)


def table(verdict: Verdict) -> str:
    rows = [("", "measured", "limit", ""), *(
        (row.what, row.measured, row.limit, "ok" if row.ok else "NOT OK") for row in verdict.rows
    )]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    ]
    colour = "green" if verdict.green else "RED"
    head = f"{verdict.scenario}, seed {verdict.shape.seed}: {colour}"
    return "\n".join([head, *(f"  {line}" for line in lines)]) + "\n"


def median(runs: Sequence[Measured]) -> Measured:
    """The reference in the middle, by time; the lower middle of two."""
    return sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]


def with_seed(shape: Shape, seed: int) -> Shape:
    return replace(shape, seed=seed)
