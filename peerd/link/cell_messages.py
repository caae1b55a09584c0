"""What keepers of cells say to those of wider ones, and to their members (ADR 0015).

Always: as messages.py, which has them in its table.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from peerd.codec import WireBitmap, WireTaskId, WireTerm, WireVersionId
from peerd.link.own_messages import LinkMessage
from peerd.link.swarm_messages import RosterPeer


class Delegate(LinkMessage, frozen=True, tag=32):
    """From a cell's keeper: stand for this cell at the keeper of the wider one, too."""

    task: WireTaskId
    term: WireTerm


class Sample(LinkMessage, frozen=True, tag=33):
    """Some who are in the swarm: from a cell's keeper to that of the wider `task`; and, `back` from
    there, some of the other cells.
    """

    task: WireTaskId
    peers: Annotated[tuple[RosterPeer, ...], Meta(max_length=64)]
    back: bool


class CellHolds(LinkMessage, frozen=True, tag=36):
    """What members of my cell hold of this version, to the keeper of the wider `task`: it lets
    nobody bring that into the zone."""

    task: WireTaskId
    version: WireVersionId
    have: WireBitmap
