"""The lines that ip, tc and nft are given: from values to text. Pure.

In the hub: `br0` the core's bridge, `bz<z>` a zone's, `h<p>` a peer's port, `zu<z>` and `zc<z>` the
two ends of a zone's link, in the zone and at the core. A port with delay sits in a bridge of its
own, `x<port>`, beside `a<port>`; a process carries frames between that and `b<port>`, which took
the port's old place.
Always: what a frame meets once, it meets by the port it enters or leaves by, since it crosses the
forward hook of each bridge on its way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.netlab.spec import (
    LATENCY_MS,
    LabSpec,
    address,
    burst_bytes,
    mac,
    namespace,
)

CORE = "br0"
GSO_MAX_BYTES = 15_000
"""With its headers it fits the least burst: tbf cuts what does not into frames, at three times the
cost in processors for the whole way. What tbf counts has the headers of all frames in any case."""


def peer_port(index: int) -> str:
    return f"h{index}"


def zone_ports(index: int) -> tuple[str, str]:
    """In the zone's bridge, and in the core's."""
    return f"zu{index}", f"zc{index}"


def bridge_of(spec: LabSpec, peer: int) -> str:
    zone = spec.peers[peer].zone
    return f"bz{spec.zone_index(zone)}" if zone else CORE


def namespaces(spec: LabSpec) -> list[str]:
    return [namespace(spec.name, name) for name in ("hub", *(peer.name for peer in spec.peers))]


def wiring(spec: LabSpec) -> Iterator[str]:
    """For `ip -batch`: namespaces, and a pair of ends for each peer."""
    hub = namespace(spec.name, "hub")
    for name in namespaces(spec):
        yield f"netns add {name}"
    for index, peer in enumerate(spec.peers):
        yield (
            f"link add name {peer_port(index)} netns {hub} type veth peer name eth0 "
            f"address {mac(index)} netns {namespace(spec.name, peer.name)}"
        )


def hub(spec: LabSpec) -> Iterator[str]:
    """For `ip -n HUB -batch`: the bridges and what is plugged into them."""
    bridges = [CORE, *(f"bz{index}" for index in range(len(spec.zones)))]
    for name in bridges:
        yield from bridge(name)
    for index in range(len(spec.zones)):
        inner, outer = zone_ports(index)
        yield f"link add name {inner} type veth peer name {outer}"
        yield from plugged(inner, f"bz{index}")
        yield from plugged(outer, CORE)
    for index in range(len(spec.peers)):
        yield from plugged(peer_port(index), bridge_of(spec, index))


def bridge(name: str) -> Iterator[str]:
    """Without spanning tree and multicast snooping: nothing in it waits or asks."""
    yield f"link add name {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
    yield f"link set dev {name} addrgenmode none up"


def plugged(port: str, into: str) -> Iterator[str]:
    yield f"link set dev {port} addrgenmode none master {into} up"


def single_frames() -> str:
    """What is lost then is one frame, and not the ten that still are one packet here."""
    return "link set dev eth0 gso_max_segs 1"


def peer(index: int) -> Iterator[str]:
    """For `ip -n PEER -batch`."""
    yield "link set dev lo up"
    yield f"link set dev eth0 addrgenmode none gso_max_size {GSO_MAX_BYTES}"
    yield f"addr add {address(index)}/16 dev eth0"
    yield "link set dev eth0 up"


def rate(device: str, rate_bit_s: int | None) -> Iterator[str]:
    """For `tc -batch`: what leaves by a device. Nothing for no limit, which is how it begins."""
    if rate_bit_s is not None:
        yield (
            f"qdisc replace dev {device} root tbf rate {rate_bit_s}bit "
            f"burst {burst_bytes(rate_bit_s)} latency {LATENCY_MS}ms"
        )


def unlimited(device: str) -> str:
    return f"qdisc replace dev {device} root pfifo limit 1000"


def hub_rates(spec: LabSpec) -> Iterator[str]:
    for index, one in enumerate(spec.peers):
        yield from rate(peer_port(index), one.down_bit_s)
    for index, zone in enumerate(spec.zones):
        for device in zone_ports(index):
            yield from rate(device, zone.rate_bit_s)


def line(port: str, old_bridge: str) -> Iterator[str]:
    """For `ip -n HUB -batch`, once the process has made a<port> and b<port>."""
    yield from bridge(f"x{port}")
    yield from plugged(f"b{port}", old_bridge)
    yield from plugged(f"a{port}", f"x{port}")
    yield from plugged(port, f"x{port}")


def no_line(port: str, old_bridge: str) -> Iterator[str]:
    """After the process has ended, and a<port> and b<port> with it."""
    yield from plugged(port, old_bridge)
    yield f"link del dev x{port}"


def partition(spec: LabSpec, groups: Sequence[Sequence[str]]) -> str:
    """For `nft -f`: the groups do not hear each other; who is in none hears all, as before."""
    lines = []
    members = [[spec.peer_index(name) for name in group] for group in groups]
    for number, group in enumerate(members):
        others = [index for other in members[:number] + members[number + 1 :] for index in other]
        ports = ", ".join(f'"{peer_port(index)}"' for index in group)
        macs = ", ".join(mac(index) for index in others)
        addresses = ", ".join(address(index) for index in others)
        lines.append(f"iifname {{ {ports} }} ether daddr {{ {macs} }} drop")
        lines.append(f"iifname {{ {ports} }} arp daddr ip {{ {addresses} }} drop")
    return _table("partition", lines)


def loss(ports: dict[str, int], pairs: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> str:
    """For `nft -f`: so many percent at a port, both ways, and between groups of peers."""
    lines = []
    for port, percent in ports.items():
        for way in ("iifname", "oifname"):
            lines.append(f'{way} "{port}" {_chance(percent)}drop')
    for one, other, percent in pairs:
        for here, there in ((one, other), (other, one)):
            entry = ", ".join(f'"{peer_port(index)}"' for index in here)
            macs = ", ".join(mac(index) for index in there)
            lines.append(f"iifname {{ {entry} }} ether daddr {{ {macs} }} {_chance(percent)}drop")
    return _table("loss", lines)


def _chance(percent: int) -> str:
    return f"numgen random mod 100 < {percent} " if percent < 100 else ""


def no_table(name: str) -> str:
    """Works whether or not it is there."""
    return f"table bridge {name} {{ }}\ndelete table bridge {name}\n"


def _table(name: str, lines: Sequence[str]) -> str:
    body = "\n  ".join(lines)
    return (
        f"{no_table(name)}table bridge {name} {{\n chain forward {{\n"
        f"  type filter hook forward priority 0; policy accept;\n  {body}\n }}\n}}\n"
    )
