"""What a run came to, as ratios to what is physically possible.

Always: a time over the bound is of the peers that finished; `failed` counts all others. Origin
bytes are body bytes that left the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tools.sim.along import QUARTER
from tools.sim.bounds import group_bound_s, holders, own_bound_s, phases
from tools.sim.clock import START_S
from tools.sim.gossip import SAMPLE_MAX, SAMPLE_S, bytes_per_peer_s
from tools.sim.world import World

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer


def times_over_bound(world: World, *, untroubled: bool = False) -> list[float]:
    """Of each peer that finished, sorted. A crowd's clock starts with its first peer.

    `untroubled`: only of those that nothing befell.
    """
    done = [p for p in world.peers if p.done_at is not None and p.wants_at is not None]
    if untroubled:
        done = [peer for peer in done if not peer.troubled]
    if world.scenario.arrivals.kind == "flash":
        bound, begin = group_bound_s(world), min((p.wants_at or 0.0 for p in done), default=0.0)
        return sorted(((p.done_at or 0.0) - begin) / bound for p in done)
    return sorted(((p.done_at or 0.0) - (p.wants_at or 0.0)) / own_bound_s(world, p) for p in done)


def _newcomers(world: World) -> list[float]:
    """Times over their own bound, sorted, of those who came when one copy was there."""
    late = [p for p in world.peers if p.wants_at is not None and holders(world, p)]
    times = ((p, p.done_at - p.wants_at) for p in late if p.done_at and p.wants_at)
    return sorted(time_s / own_bound_s(world, p) for p, time_s in times)


def readers_over_bound(world: World) -> list[float]:
    """When a quarter was read along, over the least time that a downlink takes for it, sorted."""
    least_s = world.contents[0].length_bytes / QUARTER / world.down_bytes_s
    readers = ((p.along.quarter_at, p.wants_at) for p in world.peers if p.reads)
    return sorted((at - since) / least_s for at, since in readers if at and since)


def _lacks(world: World, peer: SimPeer) -> bool:
    """Whether something that is wanted there never came."""
    return any(copy.done_at is None for copy in world.wanted_by(peer))


def quantile(values: list[float], share: float) -> float:
    """Of sorted values; 0.0 of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def result(world: World, cpu_s: float) -> dict[str, Any]:
    """The keys of design.md, section 11, and some more."""
    times, size = times_over_bound(world), sum(x.length_bytes for x in world.contents)
    survivors = times_over_bound(world, untroubled=True)
    newcomers, readers = _newcomers(world), readers_over_bound(world)
    peers, seconds = world.peers, max(1e-9, world.clock.now - START_S)
    entered = {zone: pipe.carried_bytes / size for zone, pipe in world.network.into.items()}
    control = sum(peer.sent_control_bytes for peer in peers)
    return {
        "time_over_bound": {
            "p50": round(quantile(times, 0.5), 4),
            "p99": round(quantile(times, 0.99), 4),
            "max": round(times[-1], 4) if times else 0.0,
        },
        "survivors_max": round(survivors[-1], 4) if survivors else 0.0,
        "newcomers": len(newcomers),
        "newcomers_max": round(newcomers[-1], 4) if newcomers else 0.0,
        "readers_max": round(readers[-1], 4) if readers else 0.0,
        "origin_copies": round(world.origin.sent_bytes / size, 4),
        "zone_copies": round(max(entered.values()), 4) if len(entered) > 1 else 0.0,
        "zones": {zone: round(copies, 4) for zone, copies in entered.items() if zone},
        "wasted_bytes": sum(peer.wasted_bytes for peer in peers),
        "control_bytes_per_peer_s": round(control / len(peers) / seconds, 1),
        **gossip_beside(len(peers), world.seed),
        "keeper_fan_in": world.fan_in_max,
        "failed": sum(1 for p in peers if _lacks(world, p) and (p.alive or p.comes_back)),
        "killed": sum(1 for p in peers if not p.alive),
        "wrong_held": world.wrong_held(),
        "protocol_errors": world.errors,
        "peers": len(peers),
        "seed": world.seed,
        "bound_s": round(group_bound_s(world), 3),
        "tasks": _tasks(world),
        "phases": [[round(each, 3) for each in phase] for phase in phases(world)]
        if world.moments
        else [],
        "leaders": [row.told() for row in world.leaders.rows],
        "seconds": round(seconds, 3),
        "peer_cpu_share_max": round(max(peer.cpu_s for peer in peers) / seconds, 4),
        "steps": world.clock.steps,
        "cpu_s": round(cpu_s, 2),
        "trace": world.trace.digest(),
    }


def _tasks(world: World) -> list[dict[str, float]]:
    """Of each content how long those who finished it waited for it."""
    rows = []
    for content in world.contents:
        copies = [peer.copies[content.number] for peer in world.peers]
        waited = sorted(x.done_at - x.wants_at for x in copies if x.done_at and x.wants_at)
        rows.append({
            "bytes": content.length_bytes,
            "p50_s": round(quantile(waited, 0.5), 3),
            "max_s": round(quantile(waited, 1.0), 3),
        })  # fmt: skip
    return rows


def gossip_beside(count: int, seed: int) -> dict[str, Any]:
    """What gossip costs meanwhile, by the real cores of a sample."""
    if count < 2:
        return {"gossip_bytes_per_peer_s": 0.0, "gossip_peers": 0}
    measured = bytes_per_peer_s(min(count, SAMPLE_MAX), SAMPLE_S, seed)
    return {key: measured[key] for key in ("gossip_bytes_per_peer_s", "gossip_peers")}


def table(name: str, row: dict[str, Any]) -> str:
    """For people."""
    times = row["time_over_bound"]
    lines = [
        f"{name}: {row['peers']} peers, seed {row['seed']}",
        f"  time over the bound of {row['bound_s']} s   p50 {times['p50']}   "
        f"p99 {times['p99']}   max {times['max']}   untroubled {row['survivors_max']}",
        f"  copies from the origin {row['origin_copies']}   into a zone {row['zone_copies']}",
        f"  wasted {row['wasted_bytes']} bytes   failed {row['failed']}   "
        f"wrong pieces held {row['wrong_held']}   protocol errors {len(row['protocol_errors'])}",
        f"  control {row['control_bytes_per_peer_s']} B/s a peer   "
        f"gossip {row['gossip_bytes_per_peer_s']} B/s a peer ({row['gossip_peers']} sampled)",
        f"  members of one keeper {row['keeper_fan_in']}",
        f"  {row['seconds']} s in {row['cpu_s']} s of CPU, {row['steps']} steps; "
        f"trace {row['trace'][:12]}",
    ]
    if row["newcomers"] and row["newcomers_max"]:
        lines.append(
            f"  {row['newcomers']} came to a copy: at most {row['newcomers_max']} x own bound"
        )
    if row["readers_max"]:
        lines.append(f"  a quarter was read along within {row['readers_max']} x its bound")
    for number, task in enumerate(row["tasks"] if len(row["tasks"]) > 1 else ()):
        lines.append(
            f"  task {number}, {task['bytes']} bytes: half had it after {task['p50_s']} s, "
            f"the last after {task['max_s']} s"
        )
    for took_s, least_s in row["phases"]:
        lines.append(f"  between partition and heal: {took_s} s, at least {least_s} s")
    for each in row["leaders"]:
        lines.append(
            f"  after {each['after']}: all follow one leader again within {each['led_s']} s, "
            f"it sees all within {each['seen_s']} s"
        )
    lines += [f"  protocol error: {line}" for line in row["protocol_errors"][:5]]
    return "\n".join(lines)
