"""What keepers, and those who look for them, need from their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from peerd.gossip.records import Member as Member
from peerd.ids import PeerId, TaskId

NOT_REACHED = "it cannot be reached"
"""Words of a Complaint: of its keeper itself they are not true any more, for they came to it."""


class Members(Protocol):
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
