"""What a lab consists of, in values; and the arithmetic of what passes through it. Pure.

Always: a rate is bits a second as tbf counts them (Ethernet header included); None is no limit.
Addresses follow from a peer's place in the spec, so that nothing has to be asked of the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from peerd.errors import UsageError
from peerd.units import KIB, MIB

PEERS_MAX: Final = 1000
"""The kernel's bridge has 1,023 ports."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9.]{0,31}")
HEADERS_BYTES: Final = 14 + 20 + 20 + 12
"""Ethernet, IPv4, TCP, and TCP's timestamps, which Linux always sends."""
FRAME_BYTES: Final = 1514
GOODPUT: Final = (FRAME_BYTES - HEADERS_BYTES) / FRAME_BYTES
"""0.956: what of a rate is content, in full frames; holds from 10 Mbit/s to 5 Gbit/s."""
BURST_S: Final = 0.002
BURST_MIN_BYTES: Final = 16 * KIB
BURST_MAX_BYTES: Final = MIB
LATENCY_MS: Final = 50
"""How long a frame may wait at a bottleneck before it is dropped: a router's buffer."""

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:bit)?(?:/s)?", re.IGNORECASE)
_FACTOR: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True)
class PeerSpec:
    """One namespace; `zone` empty: at the core, beside the zones."""

    name: str
    up_bit_s: int | None = None
    down_bit_s: int | None = None
    zone: str = ""


@dataclass(frozen=True)
class ZoneSpec:
    """A bridge of its own; `rate_bit_s` each way is that of its one link to the core.

    Delay (one way) and loss are the link's as well: two zones of which one has 40 ms and 1 % are
    80 ms of round trip apart, with 1 % of the frames lost in each direction.
    """

    name: str
    rate_bit_s: int | None = None
    delay_ms: float = 0.0
    loss_percent: int = 0


@dataclass(frozen=True)
class LabSpec:
    """Peers and zones in order: the order gives addresses and interface names."""

    name: str
    peers: tuple[PeerSpec, ...]
    zones: tuple[ZoneSpec, ...] = ()

    def check(self) -> None:
        """Raises UsageError for what no lab can be made of."""
        names = [peer.name for peer in self.peers]
        for name in [self.name, *names, *(zone.name for zone in self.zones)]:
            if not NAME.fullmatch(name):
                raise UsageError(f"{name!r} is no name: use a-z, 0-9 and dots, at most 32")
        both = [*names, *(zone.name for zone in self.zones)]
        for name in both:
            if both.count(name) > 1 or name == "hub":
                raise UsageError(f"the name {name!r} is taken: give each peer and zone its own")
        if not 1 <= len(names) <= PEERS_MAX:
            raise UsageError(f"a lab has 1 to {PEERS_MAX} peers, not {len(names)}")
        for peer in self.peers:
            if peer.zone and peer.zone not in {zone.name for zone in self.zones}:
                raise UsageError(f"peer {peer.name} is in zone {peer.zone!r}, which is not there")

    def peer_index(self, name: str) -> int:
        for index, peer in enumerate(self.peers):
            if peer.name == name:
                return index
        known = ", ".join(peer.name for peer in self.peers)
        raise UsageError(f"lab {self.name} has no peer {name!r}; it has {known}")

    def zone_index(self, name: str) -> int:
        for index, zone in enumerate(self.zones):
            if zone.name == name:
                return index
        known = ", ".join(zone.name for zone in self.zones) or "none"
        raise UsageError(f"lab {self.name} has no zone {name!r}; its zones: {known}")

    def with_peer(self, index: int, peer: PeerSpec) -> LabSpec:
        return replace(self, peers=(*self.peers[:index], peer, *self.peers[index + 1 :]))

    def with_zone(self, index: int, zone: ZoneSpec) -> LabSpec:
        return replace(self, zones=(*self.zones[:index], zone, *self.zones[index + 1 :]))


@dataclass(frozen=True)
class Counters:
    """What passed an interface, in one direction, as the kernel counted it."""

    bytes: int
    packets: int

    def since(self, before: Counters) -> Counters:
        return Counters(self.bytes - before.bytes, self.packets - before.packets)

    def content_bytes(self) -> int:
        """Without headers. A packet that the kernel cuts later counts once in both numbers, so
        this holds with segmentation offload; a bare acknowledgement comes to nothing."""
        return self.bytes - self.packets * HEADERS_BYTES


def parse_rate(text: str) -> int | None:
    """Bits a second from "50mbit", "1Gbit/s" or "800k"; None from "none"."""
    if text == "none":
        return None
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) * _FACTOR[match[2].lower()] < 8000:
        raise UsageError(f"{text!r} is no rate: write 50mbit, 1gbit or none; at least 8kbit")
    return int(float(match[1]) * _FACTOR[match[2].lower()])


def format_rate(rate_bit_s: int | None) -> str:
    if rate_bit_s is None:
        return "none"
    return f"{rate_bit_s / 1e6:g}mbit"


def burst_bytes(rate_bit_s: int) -> int:
    return int(min(BURST_MAX_BYTES, max(BURST_MIN_BYTES, rate_bit_s / 8 * BURST_S)))


def goodput_bytes_s(rate_bit_s: float) -> float:
    """How much content a second passes at a rate."""
    return rate_bit_s / 8 * GOODPUT


def address(index: int) -> str:
    return f"10.77.{(index + 1) >> 8}.{(index + 1) & 255}"


def mac(index: int) -> str:
    return f"02:77:00:00:{(index + 1) >> 8:02x}:{(index + 1) & 255:02x}"


def namespace(lab: str, peer: str) -> str:
    """A peer's namespace, as `ip netns` lists it; of the hub, where the bridges are: "hub"."""
    return f"peerd-{lab}-{peer}"


def to_json(spec: LabSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "peers": [vars(peer) for peer in spec.peers],
        "zones": [vars(zone) for zone in spec.zones],
    }


def from_json(said: dict[str, Any]) -> LabSpec:
    return LabSpec(
        said["name"],
        tuple(PeerSpec(**peer) for peer in said["peers"]),
        tuple(ZoneSpec(**zone) for zone in said["zones"]),
    )
