"""What happens to a download, and what is to be done about it: the words between core and shell.

Always: events and orders are frozen; times are not in them, they come beside an event as `now`.
"""

from __future__ import annotations

from dataclasses import dataclass

from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link.messages import HedgeAsk, LeaseInfo, Outcome, RosterPeer
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet


@dataclass(frozen=True)
class VersionOpened:
    """The store has the version, with these pieces already held."""

    version: VersionInfo
    held: PieceSet


@dataclass(frozen=True)
class LengthKnown:
    """Content of unknown length has ended: the same version, with its length."""

    version: VersionInfo


@dataclass(frozen=True)
class PeersNamed:
    """The keeper, or a parent (Mates), names members of the swarm."""

    peers: tuple[RosterPeer, ...]


@dataclass(frozen=True)
class Advised:
    """The scheduler's leader names parents to try first, the best first, until that time; and
    children to be sent `first` what is read here."""

    peers: tuple[RosterPeer, ...]
    until: float
    first: tuple[RosterPeer, ...] = ()


@dataclass(frozen=True)
class ComesBehind:
    """Until then another download on this peer comes before this one; -inf: none does."""

    until: float


@dataclass(frozen=True)
class ParentJoined:
    """A link stands, and the peer said where it is and what it has."""

    peer: PeerId
    have: PieceSet
    zone: str = ""
    round_trip_s: float = 0.0


@dataclass(frozen=True)
class ParentHas:
    peer: PeerId
    indices: tuple[int, ...]


@dataclass(frozen=True)
class ParentActive:
    """Part of a piece came from it (a piece can take longer than patience lasts).

    `round_trip_s`: the least that its link has seen so far.
    """

    peer: PeerId
    round_trip_s: float = 0.0


@dataclass(frozen=True)
class ParentGone:
    """The link is down, could not be opened, or the peer left the swarm."""

    peer: PeerId


@dataclass(frozen=True)
class ParentFull:
    """It is in the swarm, and has links enough without ours."""

    peer: PeerId


@dataclass(frozen=True)
class PieceArrived:
    """A verified piece from a peer is in the journal."""

    peer: PeerId
    index: PieceIndex
    size_bytes: int


@dataclass(frozen=True)
class PieceBad:
    """What a peer sent as this piece is not what was attested."""

    peer: PeerId
    index: PieceIndex
    words: str


@dataclass(frozen=True)
class PieceRejected:
    peer: PeerId
    indices: tuple[int, ...]


@dataclass(frozen=True)
class PieceLost:
    """A held piece was found damaged in the store, or whoever vouched for it was condemned."""

    index: PieceIndex


@dataclass(frozen=True)
class LeaseGranted:
    info: LeaseInfo


@dataclass(frozen=True)
class LeaseOver:
    """The read under this lease has ended, well or not."""

    lease: int


@dataclass(frozen=True)
class PieceRead:
    """A piece read from the origin is in the journal."""

    index: PieceIndex


@dataclass(frozen=True)
class ReaderAt:
    """A reader needs these pieces next, in order; none: it needs no more."""

    reader: int
    first: int
    count: int


@dataclass(frozen=True)
class PeerCondemned:
    """It vouched for wrong bytes."""

    peer: PeerId
    words: str


@dataclass(frozen=True)
class BringGranted:
    """The keeper of a scope lets us bring these pieces into it, or gives more time."""

    scope: str
    info: LeaseInfo


@dataclass(frozen=True)
class BringRevoked:
    """It wants that lease back."""

    scope: str
    lease: int


@dataclass(frozen=True)
class ScopeKept:
    """The keeper of a scope was found, or another one: it has to be told what we want."""

    scope: str


Event = (
    VersionOpened | LengthKnown | PeersNamed | Advised | ComesBehind | ParentJoined | ParentHas
    | ParentActive | ParentGone | ParentFull | PieceArrived | PieceBad | PieceRejected
    | PieceLost | LeaseGranted | LeaseOver
    | PieceRead | ReaderAt | PeerCondemned | BringGranted | BringRevoked | ScopeKept
)  # fmt: skip


@dataclass(frozen=True)
class Connect:
    """Open a link and say Join; answer with ParentJoined or ParentGone."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class RequestPieces:
    """Ask the parent for these; answers are PieceArrived, PieceBad or PieceRejected."""

    peer: PeerId
    indices: tuple[int, ...]


@dataclass(frozen=True)
class CancelPieces:
    peer: PeerId
    indices: tuple[int, ...]


@dataclass(frozen=True)
class AskLeases:
    """Tell the keeper how many leases we want to hold, and where a reader waits, if one does."""

    room: int
    reader_at: int | None = None


@dataclass(frozen=True)
class AskHedge:
    """Ask the keeper to have these read again, for they would be here only so many seconds after
    we began, when `lacking` pieces were to come."""

    version: VersionId
    indices: tuple[PieceIndex, ...]
    expected_s: tuple[float, ...]
    lacking: int

    def message(self, task: TaskId, term: int) -> HedgeAsk:
        return HedgeAsk(task, term, self.version, self.indices, self.expected_s, self.lacking)


@dataclass(frozen=True)
class AskBring:
    """Tell the scope's keeper how many leases to bring we want to hold, and what we see."""

    scope: str
    room: int
    seen: PieceSet


@dataclass(frozen=True)
class ReportBring:
    """Tell the scope's keeper how a lease to bring stands."""

    scope: str
    lease: int
    outcome: Outcome


@dataclass(frozen=True)
class StartRead:
    """Read `indices` from the origin under this lease; PieceRead for each, then LeaseOver."""

    info: LeaseInfo
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Announce:
    """Say HAVE to all who lack the piece, and to whom it came from; with `to` to those alone, at
    once."""

    index: PieceIndex
    source: PeerId | None = None
    to: tuple[PeerId, ...] = ()


@dataclass(frozen=True)
class JoinAgain:
    """Ask all parents anew what they have: pieces are wanted that none is known to hold."""


@dataclass(frozen=True)
class AskMates:
    """Ask a parent whom else of the swarm it knows: answered by PeersNamed."""

    peer: PeerId


@dataclass(frozen=True)
class Drop:
    """Have no more to do with this peer in this swarm, for the reason said."""

    peer: PeerId
    words: str


@dataclass(frozen=True)
class Complain:
    """Tell the keeper that nothing right comes from this holder."""

    peer: PeerId
    words: str


@dataclass(frozen=True)
class AllHeld:
    """Every piece is held: check the whole digest, then finish."""


Order = (
    Connect | RequestPieces | CancelPieces | AskLeases | AskHedge | AskBring | ReportBring
    | StartRead | Announce | JoinAgain | AskMates | Drop | Complain | AllHeld
)  # fmt: skip
