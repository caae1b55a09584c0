"""What is physically possible: the least time in which peers can have what they had in the end.

Always: a bound counts content alone, no headers, no latency. Of a partition it is the sum over the
times before, during and after it, each from what was held when it began to what was held when it
ended: what was new to a side came from the origin, once for each side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tools.sim.scenario import BYTES_PER_MBIT, zone_bytes_s

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
    held = tuple(peer.copies[0].store.held.bits for peer in world.peers)
    return Moment(world.clock.now, dict(world.network.side), held)


def group_bound_s(world: World) -> float:
    """max(F/u_origin, F/d_min, N·F/(u_origin + Σu)) (Kumar & Ross, «Peer-assisted file
    distribution: the minimum distribution time», 2006); of each zone that the origin is not in the
    same with its link instead of the origin; of a partition see the module's head."""
    if world.moments:
        return sum(least_s for _, least_s in phases(world))
    scenario, origin = world.scenario, _origin_bytes_s(world)
    asked = {peer: _asked_bytes(world, peer) for peer in world.peers}
    bounds = [
        _read_bytes(world, world.peers) / origin,
        max(asked.values()) / world.down_bytes_s,
        sum(asked.values()) / (origin + _up_bytes_s(world, world.peers)),
    ]
    if scenario.network.zone_mbit_s is not None:
        links = zone_bytes_s(scenario)
        for zone in sorted({peer.zone for peer in world.peers}):
            link = links[zone]
            inside = [peer for peer in world.peers if peer.zone == zone]
            bounds.append(_read_bytes(world, inside) / link)
            wanted = sum(asked[peer] for peer in inside)
            bounds.append(wanted / (link + _up_bytes_s(world, inside)))
    return max(bounds)


def _asked_bytes(world: World, peer: SimPeer) -> int:
    return sum(copy.content.length_bytes for copy in world.wanted_by(peer))


def _read_bytes(world: World, peers: Sequence[SimPeer]) -> int:
    """One copy of each content that any of these want."""
    some = set(peers)
    return sum({x.number: x.length_bytes for who, x in world.wanted if who in some}.values())


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
    content = world.contents[0]
    origin, piece = _origin_bytes_s(world), content.length_bytes / content.count
    return piece * max(
        read / origin,
        max(got) / world.down_bytes_s,
        sum(got) / (origin + _up_bytes_s(world, world.peers)),
    )


def own_bound_s(world: World, peer: SimPeer) -> float:
    """Of one that comes when others have it, or nobody: F/min(d, what can be sent to it)."""
    others = sum(x.rate * world.up_bytes_s for x in holders(world, peer))
    most = min(world.down_bytes_s, _origin_bytes_s(world) + others)
    return _asked_bytes(world, peer) / most


def holders(world: World, peer: SimPeer) -> list[SimPeer]:
    """Who had all of it when that one came."""
    at = peer.wants_at
    assert at is not None
    return [x for x in world.peers if x.done_at is not None and x.done_at <= at]


def _origin_bytes_s(world: World) -> float:
    return world.scenario.origin.up_mbit_s * BYTES_PER_MBIT


def _up_bytes_s(world: World, peers: Sequence[SimPeer]) -> float:
    """All their uplinks together, those that are slow from the start as slow as they are."""
    slow = {
        number: event.factor
        for event in world.scenario.events
        if event.do == "slow" and event.at_s == 0.0 and not isinstance(event.who, str)
        for number in event.who
    }
    return world.up_bytes_s * sum(peer.rate * slow.get(peer.number, 1.0) for peer in peers)
