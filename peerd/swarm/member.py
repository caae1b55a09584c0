"""What one download has to do with its keeper: enrolling, leases, versions, verdicts.

Always: what the keeper says is followed only within the bounds stated here; a lease is used by one
LeasedRead, which the keeper's later words about it reach; nothing is done for a run that has ended.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

import trio

from peerd.errors import NoSpace, PeerdError, error_from
from peerd.ids import PeerId, TaskId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseInfo, LeaseKind, Message
from peerd.manifest import VersionInfo
from peerd.scheduler.advising import PeerAdvice
from peerd.scheduler.ports import EnrolState
from peerd.swarm import account
from peerd.swarm import events as ev
from peerd.swarm.along import News
from peerd.swarm.download import Download
from peerd.swarm.ports import StoredVersion
from peerd.swarm.read_turns import ReadTurns
from peerd.swarm.reading import LeasedRead
from peerd.swarm.surroundings import Surroundings, Tally
from peerd.swarm.whole import WholeDigest
from peerd.task import Ask, is_shared, told_spec

log = logging.getLogger(__name__)

STORY_MAX: Final = 256
LEASES_MAX: Final = 32
"""Leases used at once, whatever a keeper grants: four times what is asked for."""

SECOND_OPINION_S: Final = 5.0
"""For the keeper to have another member resolve what does not fit here. Guess: a dozen round trips
and an origin's slow answer."""


_GRANTED: Final = {
    LeaseKind.RESOLVE: "the version was not known, or had to be confirmed",
    LeaseKind.READ: "nobody held it, and nobody else read it",
    LeaseKind.STREAM: "nobody held it; the origin gives no ranges, or no length",
    LeaseKind.AUDIT: "another vouched for it: a check by chance, or a dispute",
    LeaseKind.BRING: "nobody on this side of the border held it",
}
"""Why a keeper grants a lease (scheduler/keeper_grants.py)."""


class TaskMember(ABC):
    """The state of a download, and its keeper's side (scheduler.service.SwarmMember)."""

    def __init__(self, task: TaskId, ask: Ask, near: Surroundings) -> None:
        self.task, self.ask, self._near = task, ask, near
        self.own, self.store = near.key.peer_id, near.store
        self.scope = ""
        self.core = Download(near.key.peer_id, near.rng, near.zone if is_shared(ask) else "")
        self.stored: StoredVersion | None = None
        self.tally = Tally()
        self.state = "finding the keeper"
        self.error: PeerdError | None = None
        self.finished = trio.Event()
        self.news = News()
        self.stale = False
        self.culprits: dict[PeerId, str] = {}
        self.keeper: PeerId | None = None
        self._access = Access.HAS_CREDENTIALS if ask.credentials else Access.UNKNOWN
        self._pending: deque[ev.Event] = deque()
        self._draining = False
        self._complaints: dict[PeerId, str] = {}
        self._leases: dict[int, LeasedRead] = {}
        self.hedged: set[int] = set()
        self.read_turns = ReadTurns()
        self._opening = trio.Lock()
        self._following: VersionId | None = None
        self.confirmation = trio.Event()
        self.whole: WholeDigest | None = None
        self.account = account.Account()
        self._story: deque[str] = deque(maxlen=STORY_MAX)
        self._started_at = 0.0

    @abstractmethod
    def post(self, event: ev.Event) -> None: ...

    @abstractmethod
    def _spawn(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None: ...

    @abstractmethod
    def _carry_out(self, order: ev.Order) -> None: ...

    @abstractmethod
    async def open_version(self, info: VersionInfo) -> StoredVersion: ...

    @abstractmethod
    async def _read(
        self, info: LeaseInfo, indices: tuple[int, ...], known: VersionInfo | None = None
    ) -> None:
        """`known`: the group's version, which a RESOLVE may find to be still so."""
        ...

    @abstractmethod
    async def _condemn(self, attester: PeerId, words: str) -> None: ...

    def fail(self, error: PeerdError) -> None:
        """The first error counts."""
        if not self.finished.is_set():
            self.state, self.error = "failed", error
            self.note(f"failed: {error}")
            self._end()

    def _end(self) -> None:
        self.finished.set()
        self.news.tell()

    def note(self, words: str) -> None:
        self._story.append(f"+{trio.current_time() - self._started_at:.3f} s {words}")

    def story(self) -> list[str]:
        return list(self._story)

    # --- keepers.SwarmMember

    def enrolment(self) -> EnrolState:
        stored = self.stored
        return EnrolState(
            spec=told_spec(self.ask),
            shared=is_shared(self.ask),
            wants=True,
            access=self._access,
            version=stored.info if stored else None,
            have=stored.held.to_bytes() if stored else b"",
            leases=tuple(lease.standing() for lease in self._leases.values()),
        )

    def waiting(self) -> bool:
        if self._leases or self.finished.is_set() or self.state in ("checking", "in dispute"):
            return False
        return not any(parent.in_flight for parent in self.core.parents)

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        if keeper != self.keeper:
            self.note(f"keeper {keeper} (term {term})")
            self._decide(
                account.ALONE, f"{keeper} keeps the task", "the first in order that answers"
            )
        self.keeper = keeper
        if self.stored is None:
            self.state = "resolving"
        orders = self.core.asked_again(keeper)
        for order in orders:
            self._carry_out(order)
        if not orders:
            self.ask_leases(0)
        for peer, words in self._complaints.items():
            self._complain(peer, words)

    def cell_found(self, keeper: PeerId) -> None:
        self.note(f"cell kept by {keeper}")
        self.keeper = keeper
        if self.stored is None:
            self.state = "resolving"

    def keeper_says(self, message: Message) -> None:
        if self.finished.is_set():
            return
        match message:
            case msg.Enrolled(version=version, peers=peers, validated_s=validated_s):
                self._roster(version, peers, validated_s)
            case msg.RosterUpdate(version=version, peers=peers):
                self._roster(version, peers, 0.0)
            case msg.LeaseGrant():
                self._spawn(self._granted, message)
            case msg.LeaseRevoked(lease=lease):
                if lease in self._leases:
                    self._leases[lease].revoke()
            case msg.Verdict(attester=attester, words=words, version=version_id):
                if self.stored and self.stored.info.version == version_id:
                    self._spawn(self._condemn, attester, words)
            case msg.Unreadable(code=code, words=words):
                self.fail(error_from(code, words))
            case _:
                log.debug("keeper of %s sent %s", self.task[:12], type(message).__name__)

    def advised(self, advice: PeerAdvice) -> None:
        """The scheduler's leader says whom to try first, and which task comes first."""
        leader = f"leader {advice.leader}, term {advice.term}"
        if advice.place:
            words = "pieces of other tasks are sent and asked for before this one's"
            self._decide(leader, words, "they are more urgent, or have less left")
        if advice.parents:
            self._decide(leader, "which parents to try first", "what it sees")
        for parent in advice.parents:
            why = advice.why.get(parent.peer)
            words = account.ADVISED if why is None else f"{account.ADVISED}: {why}"
            self.account.advised(parent.peer, words)
        if advice.first:
            words = "whom to send first what is read here"
            self._decide(leader, words, "their uplinks pass it on the fastest")
        self.post(ev.Advised(advice.parents, advice.until, advice.first))

    def _decide(self, by: str, what: str, why: str) -> None:
        self.account.decided(by, what, why, trio.current_time())

    def _roster(
        self, version: VersionInfo | None, peers: tuple[msg.RosterPeer, ...], validated_s: float
    ) -> None:
        for named in peers:
            self.account.found(named.peer, "its keeper named it")
        self.post(ev.PeersNamed(peers))
        if version is not None:
            self._spawn(self._follow, version, validated_s)

    async def _follow(self, version: VersionInfo, validated_s: float) -> None:
        """The version that the group downloads, confirmed by the origin `validated_s` ago."""
        self._following = version.version
        try:
            stored = await self.open_version(version.verified())
        except PeerdError as error:
            log.warning("task %s: version from its keeper: %s", self.task[:12], error)
            if isinstance(error, NoSpace):
                await self._no_room(version, error)
            return
        if validated_s <= self._near.fresh_s and stored is self.stored:
            try:
                await self._validated(version.version, self._near.wall_clock() - validated_s)
            except NoSpace as error:
                log.warning("task %s: %s", self.task[:12], error)
                self.fail(error)  # The journal is full: whatever comes cannot be acknowledged.
                return
            self.confirmation.set()

    async def _validated(self, version: VersionId, at: float) -> None:
        if at > self._near.store.validated_at(version):
            await self._near.store.set_validated(version, at)

    async def _no_room(self, version: VersionInfo, error: NoSpace) -> None:
        """Fails, unless the length is one other member's word alone, and not true."""
        if version.attester != self.own and version.digest is not None:
            words = f"no room: {error}"[:512]
            self.tell_keeper(msg.Doubted(self.task, self.term(), version.version, words))
            await trio.sleep(SECOND_OPINION_S)
            if self._following != version.version:
                return
        self.fail(error)

    async def _granted(self, grant: msg.LeaseGrant) -> None:
        if grant.version is not None and grant.info.kind is not LeaseKind.RESOLVE:
            await self._follow(grant.version, inf)
        known = self._leases.get(grant.info.lease)
        if known is not None:
            known.renewed(grant.info)
            return
        kind = grant.info.kind
        by = f"keeper {self.keeper}, term {grant.term}"
        self._decide(by, f"this peer may {kind.name.lower()}", self._why_granted(grant.info))
        if not self._usable(grant):
            log.warning("task %s: lease %d is not used", self.task[:12], grant.info.lease)
            return
        if kind in (LeaseKind.READ, LeaseKind.STREAM):
            self.post(ev.LeaseGranted(grant.info))
        else:
            await self._read(grant.info, (), grant.version)

    def _why_granted(self, info: LeaseInfo) -> str:
        late = self.hedged.intersection(range(info.first, info.first + info.count))
        if info.kind is LeaseKind.READ and late:
            return "peers would bring it later than the origin"
        return _GRANTED[info.kind]

    def _usable(self, grant: msg.LeaseGrant) -> bool:
        """Else it runs out at the keeper: given back, it would come again at once."""
        if len(self._leases) >= LEASES_MAX:
            return False
        if grant.info.kind is LeaseKind.RESOLVE:
            return True
        theirs, ours = grant.version, self.stored
        return ours is not None and (theirs is None or theirs.version == ours.info.version)

    # --- telling it

    def tell_keeper(self, message: Message) -> bool:
        return self._near.keepers.tell(self.task, message)

    def term(self) -> int:
        return self._near.keepers.term(self.task)

    def _complain(self, peer: PeerId, words: str) -> None:
        self.tell_keeper(msg.Complaint(self.task, self.term(), peer, words[:512]))

    def ask_leases(self, room: int, reader_at: int | None = None) -> None:
        """One at least, as long as the version is not known or has to be confirmed."""
        confirmed = self.confirmation.is_set() or self.ask.spec.digest is not None
        if self.stored is None or not confirmed:
            room = max(1, room)
        self.tell_keeper(msg.LeaseAsk(self.task, self.term(), room, reader_at))
