"""What the core of gossip is told (events), and what it wants done (orders).

Always: frozen; an order is carried out once, in the order given; what became of a Dial comes back
as Connected or DialFailed.
"""

from __future__ import annotations

from msgspec import Struct

from peerd.gossip.membership import IdentityConflict, Past
from peerd.gossip.records import OwnFacts
from peerd.ids import PeerId, TaskId


class NeighbourUp(Struct, frozen=True):
    peer: PeerId


class NeighbourDown(Struct, frozen=True):
    peer: PeerId


class Arrived(Struct, frozen=True):
    peer: PeerId
    payload: bytes


class Connected(Struct, frozen=True):
    """The dial of `address` succeeded; this peer answered."""

    address: str
    peer: PeerId


class DialFailed(Struct, frozen=True):
    address: str


class Hold(Struct, frozen=True):
    """What we hold (newest first) and are fetching (with progress), from now on."""

    tasks: tuple[TaskId, ...]
    active: tuple[tuple[TaskId, float], ...]


class Update(Struct, frozen=True):
    """What we say of ourselves, from now on."""

    facts: OwnFacts


class LinkFailed(Struct, frozen=True):
    peer: PeerId


class LinkStands(Struct, frozen=True):
    peer: PeerId


class Leave(Struct, frozen=True):
    """Say goodbye for good; nothing is announced afterwards."""


Event = (
    NeighbourUp
    | NeighbourDown
    | Arrived
    | Connected
    | DialFailed
    | Hold
    | Update
    | LinkFailed
    | LinkStands
    | Leave
)


class Dial(Struct, frozen=True):
    """Dial the address; answer with Connected or DialFailed."""

    address: str


class Send(Struct, frozen=True):
    """Put these bytes on the stream to a neighbour."""

    peer: PeerId
    payload: bytes


class Drop(Struct, frozen=True):
    """Close the connection; `words` say why if the neighbour is to blame."""

    peer: PeerId
    words: str | None


class Remember(Struct, frozen=True):
    """Keep this for the next run."""

    past: Past
    known: tuple[str, ...]


Order = Dial | Send | Drop | Remember | IdentityConflict
