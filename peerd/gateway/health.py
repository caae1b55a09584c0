"""Whether this peer is fit for use, and if not, why: one word for a probe, sentences for people.

Always: pure; failing only where a restart may help, for that is what supervisors do then; whatever
leaves downloads right but slower, or stores nothing new, is degraded.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct

from peerd.units import format_size

OVERLAY_DOWN_S: Final = 10.0
"""libp2p is built anew within 0.2 to 30 s after it ended; most often at the first try. Guess."""
LATE_S: Final = 1.0
"""Peers take who does not answer for seconds for dead (keeper_events.py). Guess."""


class State(StrEnum):
    """In the order of what an operator does: nothing, look today, get up."""

    READY = "ready"
    DEGRADED = "degraded"
    FAILING = "failing"


class Fitness(Struct, frozen=True):
    """What is known of this peer now. `overlay_down_s`: for how long there is no libp2p host, 0 if
    there is; `bootstrapped`: whether it was told of others; `late_s`: by how much the event loop
    was late at most within the last minute."""

    overlay_down_s: float
    bootstrapped: bool
    peers: int
    disk_free_bytes: int
    disk_reserve_bytes: int
    late_s: float


class Health(Struct, frozen=True):
    """`reasons`: a sentence each, with what to do; none where it is ready."""

    state: State
    reasons: tuple[str, ...]


def judge(known: Fitness) -> Health:
    """The state, with all its reasons."""
    if known.overlay_down_s > OVERLAY_DOWN_S:
        words = (
            f"the overlay has been down for {known.overlay_down_s:.0f} s; "
            "the log says why libp2p ends (overlay.supervisor)"
        )
        return Health(State.FAILING, (words, *_limits(known)))
    reasons = tuple(_limits(known))
    return Health(State.DEGRADED if reasons else State.READY, reasons)


def _limits(known: Fitness) -> Iterator[str]:
    if known.bootstrapped and not known.peers:
        yield (
            "no other peer answers, so everything is read from origins; "
            "are the addresses of --bootstrap right, and their ports open?"
        )
    if known.disk_free_bytes < known.disk_reserve_bytes:
        yield (
            f"{format_size(known.disk_free_bytes)} of disk are free, "
            f"{format_size(known.disk_reserve_bytes)} of it in reserve: nothing new is stored; "
            "remove something (peerd task rm), or lower --disk-reserve"
        )
    if known.late_s > LATE_S:
        yield (
            f"the daemon came {known.late_s:.1f} s late to its own work within the last minute; "
            "is the machine out of processor or memory?"
        )
