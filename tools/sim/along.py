"""Somebody who reads the content from its begin on while it is still being fetched.

Always: the download is told the next READ_AHEAD pieces after the last one that was read; a piece
is read as soon as all before it are held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peerd.swarm import events as ev

if TYPE_CHECKING:
    from peerd.manifest import VersionInfo
    from tools.sim.peer import SimPeer

READER: Final = 1
READ_AHEAD: Final = 16
"""Pieces that a reader says it needs next. Guess: 4 MiB of small pieces."""
QUARTER: Final = 4
"""How fast it goes is seen by when a quarter was read: at the end all have everything."""


class Along:
    """The reader of the first content on one peer; on most nobody reads."""

    def __init__(self, peer: SimPeer) -> None:
        self._peer = peer
        self._version: VersionInfo | None = None
        self._place = -1
        self.quarter_at: float | None = None

    def go_on(self) -> None:
        """Another piece is held."""
        peer = self._peer
        run, store = peer.copies[0].run, peer.copies[0].store
        if not peer.reads or run is None:
            return
        if store.version is not self._version:
            self._version, self._place = store.version, -1
        place = max(0, self._place)
        while place in store.held:
            place += 1
        if place > self._place:
            self._place = place
            run.post(ev.ReaderAt(READER, place, READ_AHEAD))
        if self.quarter_at is None and QUARTER * place >= store.held.count:
            self.quarter_at = peer.world.clock.now
