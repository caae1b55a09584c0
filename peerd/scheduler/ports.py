"""What keepers, and those who look for them, need from their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from peerd.gossip.records import Member as Member
from peerd.ids import PeerId, TaskId
from peerd.link.messages import Access, LeaseInfo, Message
from peerd.manifest import VersionInfo
from peerd.task import TaskSpec

NOT_REACHED = "it cannot be reached"
"""Words of a Complaint: of its keeper itself they are not true any more, for they came to it."""
STALLS = "it stalls"
"""Words of a Complaint: what was asked of it did not come in time."""


class Group(Protocol):
    """The group as this peer sees it now: gossip's view, without those it could not reach."""

    @property
    def synced(self) -> bool:
        """One full sync was had, or it is proven that this peer is alone: only then may it keep."""
        ...

    @property
    def revision(self) -> int:
        """Counts up whenever `live` would answer differently."""
        ...

    def live(self) -> Sequence[Member]:
        """Everybody believed to be reachable, this peer among them."""
        ...

    def member(self, peer: PeerId) -> Member | None: ...


class Members(Group, Protocol):
    """The group, and what this peer has to say to it."""

    def unreachable(self, peer: PeerId) -> None:
        """A link to it failed: leave it out for a while, longer each time."""
        ...

    def reachable(self, peer: PeerId) -> None:
        """A link to it stands."""
        ...

    def holders(self, task: TaskId) -> Sequence[PeerId]:
        """Who says by gossip that it holds the task (a Bloom filter: may be wrong)."""
        ...

    def hold(self, tasks: Sequence[TaskId], active: Sequence[tuple[TaskId, float]]) -> None:
        """What this peer holds and is fetching (with progress 0.0–1.0), to be gossiped."""
        ...


class EnrolState(Struct, frozen=True):
    """A member's own part of an Enrol message."""

    spec: TaskSpec | None
    shared: bool
    wants: bool
    access: Access
    version: VersionInfo | None
    have: bytes
    leases: tuple[LeaseInfo, ...]


class SwarmMember(Protocol):
    """One task that this peer has business in (a run of swarm/, or a holder of some pieces)."""

    @property
    def task(self) -> TaskId: ...

    @property
    def scope(self) -> str:
        """The zone whose keeper it needs; "" for the task's own. Then `task` is a seat in it."""
        ...

    def enrolment(self) -> EnrolState:
        """What to tell a keeper, now."""
        ...

    def waiting(self) -> bool:
        """Whether nothing arrives and nothing can be done but wait for the keeper."""
        ...

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        """The one that grants leases."""
        ...

    def cell_found(self, keeper: PeerId) -> None:
        """The keeper of our cell: it tells the rest, and the other one if it wants us there."""
        ...

    def keeper_says(self, message: Message) -> None:
        """Enrolled, LeaseGrant, LeaseRevoked, RosterUpdate, Verdict or Unreadable."""
        ...
