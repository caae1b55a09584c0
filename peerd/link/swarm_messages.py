"""What two peers of one swarm say to each other: what each has, what it wants, whom else it knows.

Always: as messages.py, which has them in its table; requests for pieces name the version.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from peerd.codec import WireBitmap, WireCount, WireIndex, WirePeerId, WireVersionId
from peerd.link.own_messages import Addresses, LinkMessage
from peerd.manifest import VersionInfo

WireZone = Annotated[str, Meta(max_length=128)]
Indices = Annotated[tuple[WireIndex, ...], Meta(max_length=4096)]


class RosterPeer(LinkMessage, frozen=True):
    """Somebody in the swarm: where to reach it, and what it was last known to have."""

    peer: WirePeerId
    addresses: Addresses
    zone: WireZone
    held: WireCount
    complete: bool
    seed: bool


class Join(LinkMessage, frozen=True, tag=40):
    """I am in the swarm of this version, in this zone, and have these pieces. Sent by both.

    `few`: I have links to few of it, so take me in even if you have enough.
    """

    version: VersionInfo
    have: WireBitmap
    zone: WireZone = ""
    few: bool = False


class Have(LinkMessage, frozen=True, tag=41):
    """I now have these pieces too."""

    version: WireVersionId
    indices: Indices


class Request(LinkMessage, frozen=True, tag=42):
    """Send me these pieces, in this order; of all pieces I lack `lacking`."""

    version: WireVersionId
    indices: Indices
    lacking: WireCount


class Cancel(LinkMessage, frozen=True, tag=43):
    """I need these no more."""

    version: WireVersionId
    indices: Indices


class Reject(LinkMessage, frozen=True, tag=44):
    """I shall not send these: not held, or too many at once."""

    version: WireVersionId
    indices: Indices


class Depart(LinkMessage, frozen=True, tag=45):
    """I leave the swarm of this version; or, `full`, I have links enough: ask others."""

    version: WireVersionId
    full: bool = False


class MatesAsk(LinkMessage, frozen=True, tag=46):
    """I know too few of this swarm: whom do you have links to? The answer is Mates."""

    version: WireVersionId


class Mates(LinkMessage, frozen=True, tag=47):
    """Some that I exchange pieces with."""

    version: WireVersionId
    peers: Annotated[tuple[RosterPeer, ...], Meta(max_length=16)]
