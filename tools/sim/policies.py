"""Each policy of a swarm: a fitting scenario with it and without it.

Always: the product has no switches; a policy is taken away by setting another function in the place
of the one that is it, for one run, and afterwards everything is as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from peerd.ids import PeerId, VersionId
from peerd.link import messages as msg
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm import picker as picking
from peerd.swarm import turns
from peerd.swarm.first_copies import FirstCopies
from peerd.swarm.parents import WINDOW_S, Parent
from peerd.swarm.picker import RANDOM_FIRST, Picker
from peerd.swarm.requests import Requests
from peerd.swarm.turns import Item, Rank, ServedChild, Turns
from tools.sim.copies import Copy
from tools.sim.peer import SimPeer
from tools.sim.report import readers_over_bound, times_over_bound
from tools.sim.scenario import Scenario, load
from tools.sim.serving import Serving
from tools.sim.trace import Trace
from tools.sim.world import World

ALIKE_PIECES: Final = 4
"""In flight at each parent where none is measured: what a fast one has in most runs with it."""


@dataclass(frozen=True)
class Policy:
    """`code` says where it is; `swaps` take it away: owner, attribute, what stands in its place.
    `measure` is what it is for (MEASURES): less is better."""

    name: str
    code: str
    scenario: str
    swaps: tuple[tuple[Any, str, Any], ...]
    measure: str = "time"

    @contextmanager
    def taken_away(self) -> Iterator[None]:
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self.swaps]
        try:
            for owner, name, value in self.swaps:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


MEASURES: Final[dict[str, Callable[[World], float]]] = {
    "time": lambda world: times_over_bound(world)[-1],
    "copies": lambda world: world.origin.sent_bytes / sum(x.length_bytes for x in world.contents),
    "wasted": lambda world: (
        sum(p.wasted_bytes for p in world.peers) / sum(x.length_bytes for x in world.contents)
    ),
    "quarter": lambda world: max(readers_over_bound(world)),
    "failed": lambda world: sum(p.done_at is None for p in world.peers),
}
"""time: the last one's, over the bound; quarter: the reader's first one, over its own; copies and
wasted bytes over the content."""


# --- what stands in a policy's place


def _ascending(self: Picker, have: PieceSet, most: int) -> list[int]:
    """Picker.pick, but the lowest instead of the rarest."""
    left = have.bits & self.wanted.bits
    if left and len(self.held) < RANDOM_FIRST:
        return self._some(left, most)
    picked: list[int] = []
    while left and len(picked) < most:
        low = left & -left
        picked.append(low.bit_length() - 1)
        left ^= low
    return picked


def _no_window(self: Picker, reader: int, first: int, count: int) -> None:
    """Picker.wait_for"""


_rescue = Requests.rescue


def _no_endgame(self: Requests, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
    """Requests.rescue, only while anything is still to be asked for."""
    return _rescue(self, picker, length_bytes, now) if picker.wanted else []


def _no_stealing(self: Requests, picker: Picker, length_bytes: int, now: float) -> list[ev.Order]:
    """Requests.rescue, only at the end."""
    return [] if picker.wanted else _rescue(self, picker, length_bytes, now)


def _not_broken_off(self: Serving, peer: PeerId, message: msg.Cancel) -> None:
    """Serving.cancelled, but what is being sent already is sent to its end."""
    self._turns.cancelled(peer, {(message.version, index) for index in message.indices})


def _same_window(self: Parent, piece_length_bytes: int) -> int:
    """Parent.window"""
    return ALIKE_PIECES


def _same_time(self: Parent, piece_length_bytes: int) -> float:
    """Parent.next_s, by what is owed alone."""
    return WINDOW_S * (1 + len(self.in_flight))


def _oldest(self: Turns, child: ServedChild, only: VersionId | None) -> tuple[Item | None, Rank]:
    """Turns._best, but whatever was asked for first."""
    first = child.waiting[0]
    return None if first in child.in_hand else first, Rank.FIRST


def _in_turn(self: Turns, children: list[ServedChild]) -> int:
    """Turns._furthest_behind"""
    return 0


_take = Turns._take


def _stays_first(self: Turns, among: list[Any], place: int, now: float) -> Any:
    """Turns._take, but the child that was served is served next, too."""
    taken = _take(self, among, place, now)
    self.children.move_to_end(taken[0], last=False)
    return taken


def _all_at_once(self: FirstCopies, *_: Any) -> tuple[PeerId, ...]:
    """FirstCopies.tell"""
    return ()


_completed = World.completed


def _goes(self: World, copy: Copy, peer: SimPeer) -> None:
    """World.completed, and then the peer goes."""
    _completed(self, copy, peer)
    self.clock.after(0.0, peer.guarded(peer.kill))


POLICIES: Final = (
    Policy("rarest first", "Picker.pick", "flash-crowd", ((Picker, "pick", _ascending),)),
    Policy("random first pieces", "picker.RANDOM_FIRST", "flash-crowd",
           ((picking, "RANDOM_FIRST", 0),)),
    Policy("reader's window", "Picker.wait_for", "reader",
           ((Picker, "wait_for", _no_window),), "quarter"),
    Policy("endgame", "Requests.rescue at the end", "slow-peer",
           ((Requests, "rescue", _no_endgame),)),
    Policy("cancel breaks off", "Serving.cancelled", "mixed",
           ((Serving, "cancelled", _not_broken_off),), "wasted"),
    Policy("stealing from slow parents", "Requests.rescue before the end", "slow-peer",
           ((Requests, "rescue", _no_stealing),)),
    Policy("parents by throughput", "Parent.window, Parent.next_s", "mixed",
           ((Parent, "window", _same_window), (Parent, "next_s", _same_time))),
    Policy("uploads in turns, few in hand", "Turns.hands", "flash-crowd",
           ((turns, "HANDS_START", 1 << 20), (turns, "HANDS_MAX", 1 << 20),
            (turns, "LATE_S", inf))),
    Policy("first copies first", "Turns._best", "flash-crowd",
           ((Turns, "_best", _oldest),)),
    Policy("one child is told first", "FirstCopies.tell", "origin-to-one",
           ((FirstCopies, "tell", _all_at_once),)),
    Policy("children take turns", "Turns._take", "flash-crowd", ((Turns, "_take", _stays_first),)),
    Policy("who lacks most goes first", "Turns._furthest_behind", "flash-crowd",
           ((Turns, "_furthest_behind", _in_turn),)),
    Policy("lingering", "World.completed: peers stay", "staggered",
           ((World, "completed", _goes),), "copies"),
)  # fmt: skip


# --- with and without


@dataclass(frozen=True)
class Line:
    """What one policy came to: the means over the seeds with it, and without."""

    policy: Policy
    having: dict[str, float]
    lacking: dict[str, float]

    def worse(self) -> float:
        """Without it, so many times as much of what it is for."""
        measure = self.policy.measure
        return self.lacking[measure] / max(1e-3, self.having[measure])

    def told(self) -> dict[str, Any]:
        policy = self.policy
        return {
            "policy": policy.name, "code": policy.code, "scenario": policy.scenario,
            "measure": policy.measure, "worse": round(self.worse(), 3),
            "with": self.having, "without": self.lacking,
        }  # fmt: skip


def compare(policy: Policy, changes: Mapping[str, str], seeds: int) -> Line:
    scenario = load(policy.scenario, dict(changes))
    having = _means(scenario, policy, seeds)
    with policy.taken_away():
        return Line(policy, having, _means(scenario, policy, seeds))


def _means(scenario: Scenario, policy: Policy, seeds: int) -> dict[str, float]:
    keys = dict.fromkeys(("time", "copies", "wasted", "failed", policy.measure))
    sums = dict.fromkeys(keys, 0.0)
    for seed in range(1, seeds + 1):
        world = World(scenario, seed, Trace())
        world.run()
        for key in keys:
            sums[key] += MEASURES[key](world)
    return {key: round(value / seeds, 4) for key, value in sums.items()}


def table(lines: Iterable[Line]) -> str:
    """For people, and for docs/simulation.md."""
    rows = [
        "| policy | in the code | scenario | time/bound | copies | wasted | other |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        policy, one, two = line.policy, line.having, line.lacking
        told = [f"{one[key]:.3f} / {two[key]:.3f}" for key in ("time", "copies", "wasted")]
        other = [
            f"{key} {one[key]:.3g} / {two[key]:.3g}"
            for key in one if key not in ("time", "copies", "wasted") and (one[key] or two[key])
        ]  # fmt: skip
        cells = [policy.name, f"`{policy.code}`", policy.scenario, *told, ", ".join(other)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
