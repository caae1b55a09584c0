"""What every download on this peer shares, and the tally of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from peerd.ids import PeerId
from peerd.signing import SigningKey
from peerd.swarm.incoming import Inbound
from peerd.swarm.ports import Keepers, Links, Origin, PieceStore


class Offload(Protocol):
    """Runs what blocks (hashing, the disk) off the event loop: trio.to_thread.run_sync."""

    async def __call__(self, work: Callable[..., Any], /, *arguments: Any) -> Any: ...


@dataclass(frozen=True)
class Surroundings:
    """The neighbours of all downloads, and the zone they are in. `wall_clock`: since 1970."""

    key: SigningKey
    store: PieceStore
    origin: Origin
    links: Links
    keepers: Keepers
    inbound: Inbound
    rng: Random
    wall_clock: Callable[[], float]
    fresh_s: float
    offload: Offload
    zone: str = ""


@dataclass
class Tally:
    """Where the bytes of one download came from. `from_peers` by sender; `from_store` were there.

    `from_origin` counts body bytes read, `from_peers` verified piece bytes.
    """

    from_origin: int = 0
    from_store: int = 0
    from_peers: dict[PeerId, int] = field(default_factory=dict)
