"""What peers say to each other to have one scheduler's leader, and to know who it is (ADR 0018).

Always: as messages.py, which has them in its table; who leads is said with a signed term.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from peerd.codec import (
    WireCount,
    WirePeerId,
    WireSeconds,
    WireSignature,
    WireTaskId,
    WireTerm,
)
from peerd.link.own_messages import LinkMessage
from peerd.link.swarm_messages import WireZone

SWARMS_MAX: Final = 8
ZONES_MAX: Final = 5
"""Of one report; what is more is said a second later. A report has 1.9 KB at most."""
REPORTS_MAX: Final = 64
"""Of one message: half of what a message may have."""

KEPT_MAX: Final = 4
"""Tasks that one keeps, of one report; what is more is said a second later."""
READERS_MAX: Final = 64
"""Of a keeper's members: as many as it has at most (cells.FAN_IN_MAX)."""
LAST_MAX: Final = 256
"""Of a task that is new it is not known yet who will be its keeper's members. Of 200 simulated
peers, two thirds of them slow, 64 named of them left 19 reads to others, 256 none."""
PARENTS_MAX: Final = 8
"""Half of what a peer dials for (swarm/parents.py): the other half it finds by itself."""
FIRST_MAX: Final = 4
"""Children that are sent first what was read. Guess: some pieces have their first copy at once."""
ADVISED_MAX: Final = 64

PRIORITY_MAX: Final = 6
WirePriority = Annotated[int, Meta(ge=1, le=PRIORITY_MAX)]
"""Dragonfly's levels; 6, the most urgent, is what nothing else is said of."""
WireRate = Annotated[int, Meta(ge=0, lt=1 << 40)]
"""Bytes a second."""


class TermProof(LinkMessage, frozen=True):
    """Signed by `leader`: with this term I lead."""

    leader: WirePeerId
    term: WireTerm
    signature: WireSignature


class Subscribe(LinkMessage, frozen=True, tag=60):
    """Who leads? And let me know while this link lasts. Answered by LeaderLease or LeaderIs.

    `known` is the newest term that I heard of. `electing`: I may lead myself, and hear leases of
    leaders alone, not those passed on.
    """

    known: TermProof | None
    electing: bool


class LeaderLease(LinkMessage, frozen=True, tag=61):
    """I lead; or, from who is no elector's leader, passed on: this one does. Lives three seconds.

    `renewal` counts up; one that was heard before does not lengthen anything.
    """

    proof: TermProof
    renewal: WireCount


class LeaderIs(LinkMessage, frozen=True, tag=62):
    """The newest term that I know. `live`: I follow it. To who leads with an older one: yield."""

    proof: TermProof | None
    live: bool


class Heeded(LinkMessage, frozen=True, tag=63):
    """I follow that lease: the answer to each, so that a leader knows that it is heard."""

    term: WireTerm


class SwarmReport(LinkMessage, frozen=True):
    """What one peer does in one swarm now. `pieces` is 0 where the version is not known yet.

    `stands`: it enrolled with the task's own keeper, not only with that of its cell.
    """

    task: WireTaskId
    pieces: WireCount
    piece_bytes: WireCount
    held: WireCount
    wants: bool
    stands: bool
    priority: WirePriority
    down_bytes_s: WireRate


class KeptReport(LinkMessage, frozen=True):
    """A task that this peer keeps, and that is not read yet; `origin` is the same number for all
    that is read there."""

    task: WireTaskId
    origin: Annotated[int, Meta(ge=0, lt=1 << 62)]


class ZoneReport(LinkMessage, frozen=True):
    """What came to one peer from peers of a zone: the best rate, the least round trip measured."""

    zone: WireZone
    down_bytes_s: WireRate
    round_trip_ms: WireCount


class Report(LinkMessage, frozen=True):
    """What one peer knows of itself and has not said yet; `gone` are swarms that it left.

    `load_percent` is of one processor; `children` are those it sends pieces to. `up_full_bytes_s`
    is what it sends while it serves several at once (0: it never did), `up_most_bytes_s` the most
    that it ever sent.
    """

    peer: WirePeerId
    load_percent: Annotated[int, Meta(ge=0, le=100)]
    up_bytes_s: WireRate
    up_full_bytes_s: WireRate
    up_most_bytes_s: WireRate
    children: WireCount
    swarms: Annotated[tuple[SwarmReport, ...], Meta(max_length=SWARMS_MAX)]
    gone: Annotated[tuple[WireTaskId, ...], Meta(max_length=SWARMS_MAX)]
    zones: Annotated[tuple[ZoneReport, ...], Meta(max_length=ZONES_MAX)]
    keeps: Annotated[tuple[KeptReport, ...], Meta(max_length=KEPT_MAX)]


class Reports(LinkMessage, frozen=True, tag=64):
    """To the contact, and on to the leader and its standbys: reports of those who subscribed."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=REPORTS_MAX)]


class AdvisedParent(LinkMessage, frozen=True):
    """`why`: what makes it a good one (scheduler/evaluator.Why); an unknown number says nothing."""

    peer: WirePeerId
    why: Annotated[int, Meta(ge=0, lt=1 << 7)]


class AdvisedPeer(LinkMessage, frozen=True):
    """For `peer`, of one swarm: parents to try, the best first; and where it stands in the order
    of the swarms that this peer is in: pieces of place 0 are sent first.

    `first`: who is to be sent first what it reads from the origin.
    """

    peer: WirePeerId
    task: WireTaskId
    place: Annotated[int, Meta(ge=0, lt=1 << 16)]
    parents: Annotated[tuple[AdvisedParent, ...], Meta(max_length=PARENTS_MAX)]
    first: Annotated[tuple[WirePeerId, ...], Meta(max_length=FIRST_MAX)]


class AdvisedKeeper(LinkMessage, frozen=True):
    """For `peer`, that keeps the task: members to grant reads after all others, and how many may
    read at once (0: as many as it finds best)."""

    peer: WirePeerId
    task: WireTaskId
    last: Annotated[tuple[WirePeerId, ...], Meta(max_length=LAST_MAX)]
    readers: Annotated[int, Meta(ge=0, le=READERS_MAX)]


class Advice(LinkMessage, frozen=True, tag=65):
    """From the leader of that term, over those who passed the reports up; good for so long."""

    term: WireTerm
    for_s: WireSeconds
    advised: Annotated[tuple[AdvisedPeer, ...], Meta(max_length=ADVISED_MAX)]
    keepers: Annotated[tuple[AdvisedKeeper, ...], Meta(max_length=KEPT_MAX)]
