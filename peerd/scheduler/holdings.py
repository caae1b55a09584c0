"""Which complete versions are registered where: the directory, from a holder's side.

Always: every version held is registered at this peer itself (who answers when others ask who holds
it) and at the first two members in its task's order, again when they change, and once more after
they were lost; but where the group has cells, at those two only by who stood for one at the task's
keeper: as many as it hears of (ADR 0015). Registrations go out in batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from peerd.ids import PeerId, TaskId
from peerd.link.messages import Register
from peerd.manifest import VersionInfo
from peerd.rendezvous import ranked

PLACES: Final = 2
"""Holders register at the first two (design.md, section 4.3)."""
BATCH_MAX: Final = 128
"""Versions in one message: about 60 KiB."""


class Directory:
    """What this peer holds, and who was told."""

    def __init__(self, own: PeerId, zone: str, seed: bool) -> None:
        self._own, self._zone, self._seed = own, zone, seed
        self._held: dict[TaskId, VersionInfo] = {}
        self._here_only: set[TaskId] = set()
        self._told: dict[TaskId, set[PeerId]] = {}

    def hold(self, version: VersionInfo, *, here_only: bool = False) -> None:
        self._held.pop(version.task, None)  # The newest is the last.
        self._held[version.task] = version
        self._here_only.discard(version.task)
        if here_only:
            self._here_only.add(version.task)
        self._told.pop(version.task, None)

    def drop(self, task: TaskId) -> set[PeerId]:
        """It is held no more; returns who has to be told."""
        self._held.pop(task, None)
        self._here_only.discard(task)
        return self._told.pop(task, set())

    def lost(self, peer: PeerId) -> None:
        """Whatever that peer was told may be forgotten there."""
        for told in self._told.values():
            told.discard(peer)

    def tasks(self) -> list[TaskId]:
        """Newest first."""
        return list(reversed(self._held))

    def due(self, live: Iterable[PeerId]) -> list[tuple[PeerId, Register]]:
        """The registrations that are missing among these members; they count as made."""
        members = list(live)
        missing: dict[PeerId, list[VersionInfo]] = {}
        for task, version in self._held.items():
            first = () if task in self._here_only else ranked(members, task, PLACES)
            places = {self._own, *first}
            told = self._told.setdefault(task, set())
            for peer in places - told:
                missing.setdefault(peer, []).append(version)
            self._told[task] = places
        return [
            (peer, Register(tuple(versions[start : start + BATCH_MAX]), self._zone, self._seed))
            for peer, versions in missing.items()
            for start in range(0, len(versions), BATCH_MAX)
        ]
