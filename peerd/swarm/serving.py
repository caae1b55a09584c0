"""Sending held pieces to children.

Always: only acknowledged pieces are sent, suspect ones after their check; a child has at most
REQUESTS_MAX pieces waiting, more are rejected; each child is served by tasks of its own, so that
none waits for another's slow link, and all share the upload limit; what waits has a sender.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import trio

from peerd.errors import PeerUnreachable
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link import messages as msg
from peerd.swarm.ports import Links, PieceStore, StoredVersion

log = logging.getLogger(__name__)

REQUESTS_MAX: Final = 256
"""Pieces a child may have waiting: four full windows (parents.WINDOW_MAX)."""


SENDS_AT_ONCE: Final = 4
"""Pieces to one child that are read and sealed at a time: with one, each waits for the end of the
one before, which halves the rate at 256 KiB pieces (`python -m tools.bench link`)."""


@dataclass(frozen=True)
class _Source:
    stored: StoredVersion
    index: PieceIndex

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.stored.read_into(self.index, offset_bytes, buffer)


@dataclass
class _Child:
    """What one peer waits for over one link, and how many tasks send to it now."""

    waiting: deque[tuple[VersionId, int]] = field(default_factory=deque)
    senders: int = 0


class Serving:
    """One for the daemon. `sent_bytes` counts piece bytes handed to the kernel, by child."""

    def __init__(self, store: PieceStore, links: Links) -> None:
        self._store, self._links = store, links
        self._children: dict[PeerId, _Child] = {}
        self.sent_bytes: dict[PeerId, int] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; what is half sent then is dropped with its link."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def requested(self, peer: PeerId, message: msg.Request) -> None:
        if self._nursery is None:
            return
        child = self._children.setdefault(peer, _Child())
        room = REQUESTS_MAX - len(child.waiting)
        child.waiting.extend((message.version, index) for index in message.indices[:room])
        for _ in range(min(SENDS_AT_ONCE - child.senders, len(child.waiting))):
            child.senders += 1
            self._nursery.start_soon(self._send_all, peer, child)
        if len(message.indices) > room:
            self._reject(peer, message.version, message.indices[room:])

    def cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        child = self._children.get(peer)
        if child is not None:
            unwanted = {(message.version, index) for index in message.indices}
            child.waiting = deque(item for item in child.waiting if item not in unwanted)

    def peer_gone(self, peer: PeerId) -> None:
        """Who sends to it still ends by itself; over a new link it is another child."""
        child = self._children.pop(peer, None)
        if child is not None:
            child.waiting.clear()

    async def _send_all(self, peer: PeerId, child: _Child) -> None:
        """Until nothing waits or the link is gone. No checkpoint between the last look and the end:
        what is asked for after it finds no sender, and starts one."""
        try:
            while child.waiting:
                version, index = child.waiting.popleft()
                await self._send(peer, version, PieceIndex(index))
        except PeerUnreachable as error:
            log.debug("%s went while it was served: %s", peer, error)
            child.waiting.clear()
        finally:
            child.senders -= 1
            if not child.senders and self._children.get(peer) is child:
                del self._children[peer]

    async def _send(self, peer: PeerId, version: VersionId, index: PieceIndex) -> None:
        stored = self._store.find(version)
        if stored is None or index not in stored.held or not await stored.check(index):
            self._reject(peer, version, (index,))
            return
        attestation = stored.attestation(index)
        if attestation is None:
            log.warning("piece %d of %s is held without its attestation", index, version[:12])
            self._reject(peer, version, (index,))
            return
        size = stored.info.span(index)[1]
        try:
            source = _Source(stored, index)
            await self._links.send_piece(peer, version, index, size, attestation, source)
        except OSError as error:
            log.warning("piece %d of %s cannot be read: %s", index, version[:12], error)
            self._reject(peer, version, (index,))
            return
        self.sent_bytes[peer] = self.sent_bytes.get(peer, 0) + size

    def _reject(self, peer: PeerId, version: VersionId, indices: tuple[int, ...]) -> None:
        try:
            self._links.send(peer, msg.Reject(version, indices))
        except PeerUnreachable:
            self.peer_gone(peer)
