"""Sending held pieces to children.

Always: only acknowledged pieces are sent, suspect ones after their check; turns.py decides whose
piece is next, and all share the upload limit; a piece that is cancelled in mid-air is broken off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

import trio

from peerd.errors import PeerUnreachable
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link import messages as msg
from peerd.swarm.ports import Links, PieceStore, StoredVersion
from peerd.swarm.turns import FED_FIRST_MAX, Item, Turns

log = logging.getLogger(__name__)

SERVES_S: Final = 5.0
"""Who asked for nothing for so long is not waited for any more. lingering.IDLE_S."""
LOOK_MIN_S: Final = 0.01
"""Whether something in hand counts no more is looked at no more often."""


@dataclass(frozen=True)
class _Source:
    stored: StoredVersion
    index: PieceIndex

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        self.stored.read_into(self.index, offset_bytes, buffer)


class Serving:
    """One for the daemon. `sent_bytes` counts piece bytes handed to the kernel, by child;
    `asked_at` is when one last asked, or was sent a piece.
    """

    def __init__(self, own: PeerId, store: PieceStore, links: Links) -> None:
        self._own, self._store, self._links = own, store, links
        self._turns = Turns(self._read_here)
        self._sending: dict[tuple[PeerId, Item], trio.CancelScope] = {}
        self.sent_bytes: dict[PeerId, int] = {}
        self.asked_at = -inf
        self._asked_for: dict[VersionId, float] = {}
        self._fed_first: dict[TaskId, tuple[frozenset[PeerId], float]] = {}
        self._nursery: trio.Nursery | None = None
        self._wake = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; what is half sent then is dropped with its link."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await self._look_again()
            finally:
                self._nursery = None

    async def _look_again(self) -> None:
        """Whoever is slow keeps no hand for ever."""
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            due = self._turns.deadline(now)
            with trio.move_on_at(due if due == inf else max(due, now + LOOK_MIN_S)):
                await self._wake.wait()
            self._go_on()

    def serves(self, now: float) -> list[VersionId]:
        """Versions of which somebody asked for pieces lately."""
        self._asked_for = {
            version: at for version, at in self._asked_for.items() if now - at < SERVES_S
        }
        return list(self._asked_for)

    @property
    def children(self) -> int:
        """Peers that wait for pieces, or are sent some, now."""
        return len(self._turns.children)

    def requested(self, peer: PeerId, message: msg.Request) -> None:
        if self._nursery is None:
            return
        self.asked_at = trio.current_time()
        stored = self._store.find(message.version)
        if stored is not None:
            self._asked_for[message.version] = self.asked_at
            if stored.info.task in self._fed_first:
                self._turns.feed_first(message.version, *self._fed_first[stored.info.task])
        items = [(message.version, index) for index in message.indices]
        refused = self._turns.asked(peer, items, message.lacking)
        if refused:
            self._reject(peer, message.version, tuple(index for _, index in refused))
        self._go_on()

    def busy_s(self, now: float) -> float:
        """For how long, from the start, several children were served at once."""
        return self._turns.busy_s(now)

    def order(self, places: dict[VersionId, int], until: float) -> None:
        """Of contents that are asked for at once those with a lower place go first, until then."""
        self._turns.order(places, until)

    def feed_first(self, task: TaskId, children: Iterable[PeerId], until: float) -> None:
        """Until then these are sent what was read here before others are, of whatever version."""
        self._fed_first.pop(task, None)
        self._fed_first[task] = frozenset(children), until
        if len(self._fed_first) > FED_FIRST_MAX:
            del self._fed_first[next(iter(self._fed_first))]

    def sent(self, version: VersionId, index: PieceIndex) -> bool:
        """Whether somebody was sent that piece, or is (of the last that were)."""
        return (version, index) in self._turns.spread

    def cancelled(self, peer: PeerId, message: msg.Cancel) -> None:
        unwanted = {(message.version, index) for index in message.indices}
        for item in self._turns.cancelled(peer, unwanted):
            scope = self._sending.get((peer, item))
            if scope is not None:
                scope.cancel()

    def peer_gone(self, peer: PeerId) -> None:
        """What is being sent to it ends by itself; over a new link it is another child."""
        self._turns.gone(peer)
        self._go_on()

    def _go_on(self) -> None:
        """Take in hand what may be."""
        if self._nursery is None:
            return
        now, begun = trio.current_time(), False
        self._turns.went(self._links.piece_bytes_sent(), now)
        while (turn := self._turns.next(now)) is not None:
            begun = True
            self._nursery.start_soon(self._send, *turn)
        if begun:
            self._wake.set()

    def _read_here(self, item: Item) -> bool:
        stored = self._store.find(item[0])
        made = stored.attestation(PieceIndex(item[1])) if stored is not None else None
        return made is not None and made.attester == self._own

    async def _send(self, peer: PeerId, item: Item) -> None:
        whole = False
        with trio.CancelScope() as scope:
            self._sending[peer, item] = scope
            try:
                whole = await self._send_piece(peer, item[0], PieceIndex(item[1]))
            except PeerUnreachable as error:
                log.debug("%s went while it was served: %s", peer, error)
                self._turns.gone(peer)
        if self._sending.get((peer, item)) is scope:
            del self._sending[peer, item]
        self._turns.sent(peer, item, trio.current_time(), whole=whole)
        self._go_on()

    async def _send_piece(self, peer: PeerId, version: VersionId, index: PieceIndex) -> bool:
        """Whether it was sent; else the child was told that it will not be."""
        stored = self._store.find(version)
        if stored is None or index not in stored.held or not await stored.check(index):
            self._reject(peer, version, (index,))
            return False
        attestation = stored.attestation(index)
        if attestation is None:
            log.warning("piece %d of %s is held without its attestation", index, version[:12])
            self._reject(peer, version, (index,))
            return False
        size = stored.info.span(index)[1]
        try:
            source = _Source(stored, index)
            await self._links.send_piece(peer, version, index, size, attestation, source)
        except OSError as error:
            log.warning("piece %d of %s cannot be read: %s", index, version[:12], error)
            self._reject(peer, version, (index,))
            return False
        self.sent_bytes[peer] = self.sent_bytes.get(peer, 0) + size
        self.asked_at = trio.current_time()
        return True

    def _reject(self, peer: PeerId, version: VersionId, indices: tuple[int, ...]) -> None:
        try:
            self._links.send(peer, msg.Reject(version, indices))
        except PeerUnreachable:
            self._turns.gone(peer)
