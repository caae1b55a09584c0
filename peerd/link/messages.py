"""Every control message that travels on a link, in one table (docs/protocol.md has the same).

Always: a message decodes to exactly one of these classes within the bounds its fields state, or it
is RemoteProtocolError; peers name tasks and versions by their ids, never by a position in a list.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

from msgspec import Meta

from peerd.codec import (
    Decoder,
    WireBitmap,
    WireCount,
    WireIndex,
    WirePeerId,
    WireSeconds,
    WireTaskId,
    WireTerm,
    WireVersionId,
    WireWords,
    decode_by,
    encode,
)
from peerd.link.cell_messages import CellHolds as CellHolds
from peerd.link.cell_messages import Delegate as Delegate
from peerd.link.cell_messages import Sample as Sample
from peerd.link.own_messages import (
    Addresses,
    CircuitClose,
    CircuitCredit,
    CircuitData,
    CircuitOffer,
    CircuitOpen,
    CircuitOpened,
    LinkMessage,
)
from peerd.link.own_messages import Hello as Hello
from peerd.link.own_messages import Ping as Ping
from peerd.link.own_messages import Pong as Pong
from peerd.link.own_messages import Refused as Refused
from peerd.link.scheduler_messages import Advice as Advice
from peerd.link.scheduler_messages import Heeded as Heeded
from peerd.link.scheduler_messages import LeaderIs as LeaderIs
from peerd.link.scheduler_messages import LeaderLease as LeaderLease
from peerd.link.scheduler_messages import Reports as Reports
from peerd.link.scheduler_messages import Subscribe as Subscribe
from peerd.link.scheduler_messages import TermProof as TermProof
from peerd.link.swarm_messages import Cancel as Cancel
from peerd.link.swarm_messages import Depart as Depart
from peerd.link.swarm_messages import Have as Have
from peerd.link.swarm_messages import Join as Join
from peerd.link.swarm_messages import Mates as Mates
from peerd.link.swarm_messages import MatesAsk as MatesAsk
from peerd.link.swarm_messages import Reject as Reject
from peerd.link.swarm_messages import Request as Request
from peerd.link.swarm_messages import RosterPeer as RosterPeer
from peerd.link.swarm_messages import WireZone
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PIECE_COUNT_MAX
from peerd.task import TaskSpec

Peers = Annotated[tuple[WirePeerId, ...], Meta(max_length=16)]


class Access(IntEnum):
    """What a peer can do at a task's origin, as far as it is known."""

    UNKNOWN = 0
    HAS_CREDENTIALS = 1
    PROVEN = 2
    REFUSED = 3


class LeaseKind(IntEnum):
    """The one thing that a lease is a right to."""

    RESOLVE = 0  # a ranged GET whose body is piece 0; learns the version
    READ = 1  # read pieces [first, first + count) with ranged GETs
    STREAM = 2  # read from `first` to the end, from one response (no ranges, or unknown length)
    AUDIT = 3  # read again what another attested, and say the digest
    BRING = 4  # fetch pieces [first, first + count) from peers beyond a scope's border into it


class Outcome(IntEnum):
    """How a lease stands, as its holder says."""

    PROGRESS = 0  # goes on; asks for more time
    DONE = 1
    RETURNED = 2  # given back unused, nobody's fault
    REFUSED = 3  # the origin refuses this peer (401, 403)
    FAILED = 4  # the origin failed; `code` and `words` say how (a code of errors.py)


# --- a task's keeper


class LeaseInfo(LinkMessage, frozen=True):
    """A lease as keeper, standbys and holder know it. Pieces [first, first + count)."""

    lease: WireTerm
    kind: LeaseKind
    holder: WirePeerId
    first: WireIndex
    count: WireCount
    expires_in_s: WireSeconds


class Enrol(LinkMessage, frozen=True, tag=10):
    """I want this task, or hold some of it. The answer is Enrolled or Redirect.

    `candidates` are the asker's three best for keeper, best first; `unreachable` those it tried in
    vain. `prior_term` is the highest term it heard for this task (0: none). `leases` are those it
    holds now. `spec` is None where the task is this peer's own business. `scope`: the zone, or the
    cell, whose keeper is asked, "" for the task's own. Of a zone `task` is the seat of `version` in
    it; of a cell its seat, and `wide` that of the group that it is a part of. `delegate`: I stand
    for this cell at the wider one; `cell_keeper` is to hear what you say of the content to me.
    """

    task: WireTaskId
    spec: TaskSpec | None
    candidates: Peers
    unreachable: Peers
    prior_term: WireTerm
    wants: bool
    access: Access
    zone: WireZone
    seed: bool
    version: VersionInfo | None
    have: WireBitmap
    leases: Annotated[tuple[LeaseInfo, ...], Meta(max_length=64)]
    scope: WireZone = ""
    wide: WireTaskId | None = None
    delegate: bool = False
    cell_keeper: WirePeerId | None = None


class Enrolled(LinkMessage, frozen=True, tag=11):
    """You are on my roster. `validated_s` ago the origin confirmed `version`.

    `failure` is (code, words) where nobody can read the origin and nobody holds the content.
    """

    task: WireTaskId
    term: WireTerm
    version: VersionInfo | None
    validated_s: WireSeconds
    peers: Annotated[tuple[RosterPeer, ...], Meta(max_length=64)]


class Redirect(LinkMessage, frozen=True, tag=12):
    """I am not the keeper of that task; this peer is, as far as I know."""

    task: WireTaskId
    to: WirePeerId
    addresses: Addresses


class LeaseAsk(LinkMessage, frozen=True, tag=13):
    """Grant me leases until I hold `room` of them; stands until the next LeaseAsk. `reader_at`:
    somebody here waits for the pieces from that one on, which no peer known here has."""

    task: WireTaskId
    term: WireTerm
    room: Annotated[int, Meta(ge=0, le=64)]
    reader_at: Annotated[int, Meta(ge=0, le=PIECE_COUNT_MAX)] | None


class LeaseGrant(LinkMessage, frozen=True, tag=14):
    """You may. `version` is what is to be read, or what is to be revalidated (RESOLVE), or None."""

    task: WireTaskId
    term: WireTerm
    info: LeaseInfo
    version: VersionInfo | None


class LeaseReport(LinkMessage, frozen=True, tag=15):
    """How a lease stands. `made` attests pieces read under it; `code` is of errors.py."""

    task: WireTaskId
    term: WireTerm
    lease: WireTerm
    outcome: Outcome
    made: Annotated[tuple[Attestation, ...], Meta(max_length=256)]
    code: WireWords
    words: WireWords


class Resolved(LinkMessage, frozen=True, tag=16):
    """What a RESOLVE lease found: `version` (the known one again if `unchanged`).

    A READ of piece 0 comes with it, as LeaseReport does. Where not `version.ranged` the holder
    goes on reading the same response: the lease becomes a STREAM.
    """

    task: WireTaskId
    term: WireTerm
    lease: WireTerm
    version: VersionInfo
    unchanged: bool


class Ended(LinkMessage, frozen=True, tag=17):
    """The signed end of content whose length was unknown: the same version, with its length."""

    task: WireTaskId
    term: WireTerm
    version: VersionInfo


class LeaseRevoked(LinkMessage, frozen=True, tag=18):
    """Stop: this lease is no longer yours."""

    task: WireTaskId
    term: WireTerm
    lease: WireTerm


class Progress(LinkMessage, frozen=True, tag=19):
    """What I hold of this version now; sent by change, at most twice a second."""

    task: WireTaskId
    version: WireVersionId
    have: WireBitmap


class RosterUpdate(LinkMessage, frozen=True, tag=20):
    """News for the swarm: the version if it was pinned or changed, who came, who went."""

    task: WireTaskId
    term: WireTerm
    version: VersionInfo | None
    peers: Annotated[tuple[RosterPeer, ...], Meta(max_length=64)]
    gone: Annotated[tuple[WirePeerId, ...], Meta(max_length=64)]


class Verdict(LinkMessage, frozen=True, tag=21):
    """Pieces that `attester` vouched for are wrong: drop all of its, believe it no more."""

    task: WireTaskId
    term: WireTerm
    version: WireVersionId
    attester: WirePeerId
    words: WireWords


class Unreadable(LinkMessage, frozen=True, tag=22):
    """Nobody holds the content and nobody could read the origin: the last failure, as an error."""

    task: WireTaskId
    term: WireTerm
    code: WireWords
    words: WireWords


class Dispute(LinkMessage, frozen=True, tag=23):
    """The whole digest failed with these attesters' pieces in it."""

    task: WireTaskId
    term: WireTerm
    version: WireVersionId
    made: Annotated[tuple[Attestation, ...], Meta(max_length=1024)]


class Complaint(LinkMessage, frozen=True, tag=29):
    """I get nothing right from this holder: it sent wrong bytes, stalled, or cannot be reached."""

    task: WireTaskId
    term: WireTerm
    peer: WirePeerId
    words: WireWords


class Doubted(LinkMessage, frozen=True, tag=30):
    """I cannot use this version; if one member alone vouches for it, have another resolve it."""

    task: WireTaskId
    term: WireTerm
    version: WireVersionId
    words: WireWords


class BringAsk(LinkMessage, frozen=True, tag=31):
    """Grant me leases to bring until I hold `room` of them; stands until the next BringAsk.

    `seen` are the pieces that I see beyond the border, and nowhere on this side of it.
    """

    task: WireTaskId
    term: WireTerm
    room: Annotated[int, Meta(ge=0, le=64)]
    seen: WireBitmap


class HedgeAsk(LinkMessage, frozen=True, tag=35):
    """Let me read these, which only slow peers have: I would have them `expected_s` after I began,
    when I lacked `lacking` pieces. Answered with grants, or not at all."""

    task: WireTaskId
    term: WireTerm
    version: WireVersionId
    indices: Annotated[tuple[WireIndex, ...], Meta(max_length=64)]
    expected_s: Annotated[tuple[WireSeconds, ...], Meta(max_length=64)]
    lacking: Annotated[int, Meta(ge=1, le=PIECE_COUNT_MAX)]


class Withdraw(LinkMessage, frozen=True, tag=24):
    """I left the swarm and hold nothing of this task any more."""

    task: WireTaskId


class Register(LinkMessage, frozen=True, tag=25):
    """Complete versions that I hold: registration at a keeper or its standby, in batches."""

    versions: Annotated[tuple[VersionInfo, ...], Meta(max_length=256)]
    zone: WireZone
    seed: bool


class Enlist(LinkMessage, frozen=True, tag=26):
    """From a keeper to a seed peer: take part in this task (it enrols if it will)."""

    task: WireTaskId
    spec: TaskSpec


class Probe(LinkMessage, frozen=True, tag=27):
    """From one who may have to keep this task: do you keep it, or know its leases?"""

    task: WireTaskId


class KeeperState(LinkMessage, frozen=True, tag=28):
    """Answer to Probe, the copy for standbys, and what a keeper hands over to another.

    `term` 0: nothing is known. `keeping`: the sender grants for this task now.
    `leases` are those outstanding; `holders` hold all of `version`; `members` are in the swarm.
    `keeper` is who keeps it, as far as one knows who does not. `granted` are the pieces that are
    held or were granted to be read (empty: not told), for who follows the sender. `enrolled`: the
    members on its keeper's roster besides that one.
    """

    task: WireTaskId
    term: WireTerm
    keeping: bool
    handover: bool
    version: VersionInfo | None
    validated_s: WireSeconds
    leases: Annotated[tuple[LeaseInfo, ...], Meta(max_length=256)]
    holders: Annotated[tuple[WirePeerId, ...], Meta(max_length=256)]
    members: Annotated[tuple[WirePeerId, ...], Meta(max_length=1024)]
    keeper: WirePeerId | None = None
    granted: WireBitmap = b""
    enrolled: WireCount = 0


Message = (
    Hello | Refused | Ping | Pong
    | Enrol | Enrolled | Redirect | LeaseAsk | LeaseGrant | LeaseReport | Resolved | Ended
    | LeaseRevoked | Progress | RosterUpdate | Verdict | Unreadable | Dispute | Complaint | Doubted
    | BringAsk | HedgeAsk | Withdraw | Register | Enlist | Probe | KeeperState | Delegate | Sample
    | CellHolds | Join | Have | Request | Cancel | Reject | Depart | MatesAsk | Mates
    | CircuitOpen | CircuitOffer | CircuitOpened | CircuitData | CircuitCredit | CircuitClose
    | Subscribe | LeaderLease | LeaderIs | Heeded | Reports | Advice
)  # fmt: skip

_DECODER: Decoder[Any] = Decoder(Message)
TO_KEEPER = (
    Enrol, LeaseAsk, LeaseReport, Resolved, Ended, Progress, Dispute, Complaint, Doubted,
    BringAsk, HedgeAsk, Withdraw, Register, Probe, KeeperState, Sample, CellHolds,
)  # fmt: skip
"""What a keeper's core handles; everything else about a task goes to the swarm."""
OF_SCHEDULER = (Subscribe, LeaderLease, LeaderIs, Heeded, Reports, Advice)
"""What those say to each other who elect a leader, or want to know it."""


def encode_message(message: Message) -> bytes:
    return encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """The message, or RemoteProtocolError."""
    return decode_by(_DECODER, data)  # type: ignore[no-any-return]
