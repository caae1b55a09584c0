"""What is physically possible: the least time in which peers can have what they had in the end.

Always: a bound counts content alone, no headers, no latency. Of a partition it is the sum over the
times before, during and after it, each from what was held when it began to what was held when it
ended: what was new to a side came from the origin, once for each side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tools.sim.scenario import BYTES_PER_MBIT

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer
    from tools.sim.world import World


@dataclass(frozen=True)
class Moment:
    """Who held what when a partition began or ended; `side` is how it goes on from there."""

    at: float
    side: dict[int, int]
    held: tuple[int, ...]


def moment(world: World) -> Moment:
    held = tuple(peer.store.held.bits for peer in world.peers)
    return Moment(world.clock.now, dict(world.network.side), held)


def group_bound_s(world: World) -> float:
    """max(F/u_origin, F/d_min, N·F/(u_origin + Σu)) (Kumar & Ross, «Peer-assisted file
    distribution: the minimum distribution time», 2006); of each zone that the origin is not in the
    same with its link instead of the origin; of a partition see the module's head."""
    if world.moments:
        return sum(least_s for _, least_s in phases(world))
    scenario, size = world.scenario, world.length_bytes
    count, down, origin = scenario.peers.count, world.down_bytes_s, _origin_bytes_s(world)
    bounds = [size / origin, size / down, count * size / (origin + _up_bytes_s(world))]
    if scenario.network.zone_mbit_s is not None:
        link = scenario.network.zone_mbit_s * BYTES_PER_MBIT
        inside = count / scenario.network.zones
        bounds += [size / link, inside * size / (link + inside * world.up_bytes_s)]
    return max(bounds)


def phases(world: World) -> list[tuple[float, float]]:
    """Of a partition: how long each time between its events took, and the least that it could."""
    first = min(peer.wants_at or world.clock.now for peer in world.peers)
    last = max(peer.done_at or world.clock.now for peer in world.peers)
    nothing = Moment(first, {}, (0,) * len(world.peers))
    moments = [nothing, *world.moments, moment(world)]
    return [
        (max(0.0, min(last, after.at) - max(first, before.at)), _least_s(world, before, after))
        for before, after in pairwise(moments)
    ]


def _least_s(world: World, before: Moment, after: Moment) -> float:
    unions: dict[int, tuple[int, int]] = {}
    got: list[int] = []
    for peer, old, new in zip(world.peers, before.held, after.held, strict=True):
        side = before.side.get(peer.number, 0)
        had, has = unions.get(side, (0, 0))
        unions[side] = (had | old, has | new)
        got.append((new & ~old).bit_count())
    read = sum((has & ~had).bit_count() for had, has in unions.values())
    origin, piece = _origin_bytes_s(world), world.length_bytes / world.count
    return piece * max(
        read / origin,
        max(got) / world.down_bytes_s,
        sum(got) / (origin + _up_bytes_s(world)),
    )


def own_bound_s(world: World, peer: SimPeer) -> float:
    """Of one that comes when others have it, or nobody: F/min(d, what can be sent to it)."""
    available = _origin_bytes_s(world) + holders(world, peer) * world.up_bytes_s
    return world.length_bytes / min(world.down_bytes_s, available)


def holders(world: World, peer: SimPeer) -> int:
    """Who had all of it when that one came."""
    assert peer.wants_at is not None
    return sum(1 for p in world.peers if p.done_at is not None and p.done_at <= peer.wants_at)


def _origin_bytes_s(world: World) -> float:
    return world.scenario.origin.up_mbit_s * BYTES_PER_MBIT


def _up_bytes_s(world: World) -> float:
    """All uplinks together, those that are slow from the start as slow as they are."""
    slow = {
        number: event.factor
        for event in world.scenario.events
        if event.do == "slow" and event.at_s == 0.0 and not isinstance(event.who, str)
        for number in event.who
    }
    return world.up_bytes_s * sum(slow.get(peer.number, 1.0) for peer in world.peers)
