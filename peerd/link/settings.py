"""What a LinkService can be told, and what it tells of its links."""

from __future__ import annotations

from msgspec import Struct

from peerd.ids import PeerId
from peerd.link.circuits import CircuitLimits
from peerd.link.gate import GateLimits
from peerd.link.link import LinkLimits


class LinkSettings(Struct, frozen=True):
    """`listen` and `announce` are host:port; limits are bytes per second of frames, in total."""

    cluster: str = ""
    agent: str = "peerd"
    listen: tuple[str, ...] = ("127.0.0.1:0",)
    announce: tuple[str, ...] = ()
    upload_limit_bytes_s: float | None = None
    download_limit_bytes_s: float | None = None
    links_max: int = 512
    evict_after_s: float = 30.0  # Guess: a link idle for so long yields its place to a new one
    limits: LinkLimits = LinkLimits()
    gate: GateLimits = GateLimits()
    circuits: CircuitLimits = CircuitLimits()


class LinkState(Struct, frozen=True):
    """One link, for people and metrics. `relay` is through whom it goes, if it is not direct."""

    peer: PeerId
    remote: str
    dialled: bool
    age_s: float
    round_trip_s: float | None
    rate_bytes_s: float | None
    relay: PeerId | None = None
