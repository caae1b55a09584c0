"""What one comparison measures, and the bound that it is measured against. Pure.

Always: rates are tbf's, in bits a second; times and the bound count content, at goodput.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from peerd.errors import UsageError
from tools.netlab.spec import LabSpec, PeerSpec, ZoneSpec, goodput_bytes_s, parse_rate

ORIGIN: Final = "origin"


@dataclass(frozen=True)
class ZoneCase:
    """A zone and how many of the peers are in it. The origin is in the first one."""

    zone: ZoneSpec
    peers: int


@dataclass(frozen=True)
class Case:
    """One origin, N peers that start at once."""

    peers: int
    rate_bit_s: int
    origin_rate_bit_s: int
    size_bytes: int
    zones: tuple[ZoneCase, ...] = ()

    def names(self) -> list[str]:
        return [f"p{number}" for number in range(self.peers)]

    def zone_of(self) -> dict[str, str]:
        """Of each peer, in order."""
        names = iter(self.names())
        found = {next(names): one.zone.name for one in self.zones for _ in range(one.peers)}
        return found | dict.fromkeys(names, "")

    def lab(self, name: str) -> LabSpec:
        home = self.zones[0].zone.name if self.zones else ""
        origin = PeerSpec(ORIGIN, self.origin_rate_bit_s, self.origin_rate_bit_s, home)
        peers = [
            PeerSpec(peer, self.rate_bit_s, self.rate_bit_s, zone)
            for peer, zone in self.zone_of().items()
        ]
        return LabSpec(name, (origin, *peers), tuple(one.zone for one in self.zones))

    def bound_s(self) -> float:
        """The earliest instant at which all can be done.

        max(F/u_origin, F/d_min, N·F/(u_origin + Σu_i)) (Kumar & Ross); and for a zone without the
        origin, whose supply from outside is its link, the same with the link in its place.
        """
        size = self.size_bytes
        rate = goodput_bytes_s(self.rate_bit_s)
        origin = goodput_bytes_s(self.origin_rate_bit_s)
        bounds = [bound_s(size, origin, [rate] * self.peers)]
        for one in self.zones[1:]:
            if one.zone.rate_bit_s is not None and one.peers:
                link = goodput_bytes_s(one.zone.rate_bit_s)
                bounds.append(bound_s(size, link, [rate] * one.peers))
        return max(bounds)


def bound_s(size_bytes: int, source_bytes_s: float, peer_bytes_s: Sequence[float]) -> float:
    """For peers whose upload and download are alike."""
    supply = source_bytes_s + sum(peer_bytes_s)
    return max(
        size_bytes / source_bytes_s,
        size_bytes / min(peer_bytes_s),
        len(peer_bytes_s) * size_bytes / supply,
    )


def parse_zone(text: str) -> ZoneCase:
    """NAME:PEERS[:RATE[:DELAY_MS[:LOSS_PERCENT]]]"""
    words = text.split(":")
    try:
        name, peers, rate, delay, loss = words + ["none", "0", "0"][len(words) - 2 :]
        return ZoneCase(ZoneSpec(name, parse_rate(rate), float(delay), int(loss)), int(peers))
    except ValueError as error:
        raise UsageError(f"--zone {text!r}: write NAME:PEERS:RATE:DELAY_MS:LOSS") from error


@dataclass(frozen=True)
class Outcome:
    """One run of one system."""

    seconds: float
    origin_bytes: int
    zone_bytes: dict[str, int]
    cpu_s: float
    machine_busy: float
    """Of all cores, also by others: near 1, the cores were the bound."""
    verified: bool
    done_s: dict[str, float] = field(default_factory=dict)
    """When each peer was done."""
    notes: dict[str, Any] = field(default_factory=dict)


def row(system: str, case: Case, runs: Sequence[Outcome]) -> dict[str, Any]:
    """docs/design.md §11: medians; `spread` has least, median and most."""
    bound = case.bound_s()
    size = case.size_bytes
    spread = {
        "time_over_bound": _three([run.seconds / bound for run in runs]),
        "origin_copies": _three([run.origin_bytes / size for run in runs]),
        "cpu_s": _three([run.cpu_s for run in runs]),
    }
    away = [one.zone.name for one in case.zones[1:]]
    copies = {zone: statistics.median(run.zone_bytes[zone] / size for run in runs) for zone in away}
    return {
        "system": system,
        "peers": case.peers,
        "time_over_bound": spread["time_over_bound"][1],
        "origin_copies": spread["origin_copies"][1],
        "zone_copies": {zone: round(value, 3) for zone, value in copies.items()},
        "cpu_s": spread["cpu_s"][1],
        "verified": all(run.verified for run in runs),
        "spread": spread,
        "bound_s": round(bound, 3),
        "seconds": _three([run.seconds for run in runs])[1],
        "machine_busy": round(statistics.median(run.machine_busy for run in runs), 2),
        "runs": [
            {
                "seconds": round(run.seconds, 3),
                "origin_copies": round(run.origin_bytes / size, 4),
                "done_s": {peer: round(value, 2) for peer, value in run.done_s.items()},
                **run.notes,
            }
            for run in runs
        ],
    }


def _three(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]
