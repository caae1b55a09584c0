"""One content on one peer: what it holds of it, and its download.

Always: what is held survives a kill; a copy that nobody here asked for is held for others alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerd.ids import VersionId
from peerd.manifest import Attestation, VersionInfo
from peerd.pieces import PieceSet
from tools.sim.content import Content

if TYPE_CHECKING:
    from tools.sim.running import Run


class Store:
    """What is held of one content, and who vouched for it. Survives a kill."""

    def __init__(self) -> None:
        self.version: VersionInfo | None = None
        self.version_id: VersionId | None = None
        self.held = PieceSet(0)
        self.made: list[Attestation] = []
        self._size = self._last = 0
        self._count = 0

    def create(self, version: VersionInfo, nobody: Attestation) -> None:
        """Another version: what was held of an earlier one is of no use here."""
        assert version.piece_count is not None, "simulated content has a length"
        self.version, self._count = version, version.piece_count
        self.version_id = version.version
        self.held = PieceSet(self._count)
        self.made = [nobody] * self._count
        self._size = version.piece_length_bytes
        self._last = version.span(self._count - 1)[1]

    def __contains__(self, index: int) -> bool:
        return index in self.held

    def size_of(self, index: int) -> int:
        return self._size if index < self._count - 1 else self._last


class Copy:
    """`wants_at`: when somebody here asked for it; `done_at`: when it was complete."""

    def __init__(self, content: Content) -> None:
        self.content, self.store = content, Store()
        self.run: Run | None = None
        self.wants_at: float | None = None
        self.done_at: float | None = None
        self.error = ""

    @property
    def going(self) -> Run | None:
        """Its download, while that goes on."""
        return self.run if self.run is not None and not self.run.finished else None
