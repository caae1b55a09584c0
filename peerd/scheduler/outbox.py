"""Control messages to peers to which no link may stand yet.

Always: messages to one peer keep their order; at most QUEUE_MAX wait for a link; who cannot be
reached is said once for all that waited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from peerd.errors import PeerdError, PeerUnreachable
from peerd.ids import PeerId
from peerd.link.messages import Message

QUEUE_MAX: Final = 4096
"""Messages waiting for one link. Guess: a keeper's whole news to one member is far below it."""


class Links(Protocol):
    """The part of links that is needed here (link/service)."""

    async def connect(self, peer: PeerId, addresses: Sequence[str] = ()) -> None: ...
    def connected(self, peer: PeerId) -> bool: ...
    def send(self, peer: PeerId, message: Message) -> None: ...
    def silent_s(self, peer: PeerId) -> float:
        """How long nothing has come over its link, not even an answer to a ping; 0 without one."""
        ...

    def late_s(self, peer: PeerId) -> float:
        """How long the last ping's answer took, or has been missing; 0 without a link."""
        ...


class Outbox:
    """Sends at once where a link stands, else dials first."""

    def __init__(
        self,
        links: Links,
        nursery: trio.Nursery,
        undelivered: Callable[[PeerId, str], None],
    ) -> None:
        self._links, self._nursery, self._undelivered = links, nursery, undelivered
        self._waiting: dict[PeerId, deque[Message]] = {}

    def send(self, peer: PeerId, message: Message, addresses: Sequence[str] = ()) -> None:
        waiting = self._waiting.get(peer)
        if waiting is None:
            try:
                self._links.send(peer, message)
                return
            except PeerUnreachable:
                waiting = self._waiting[peer] = deque(maxlen=QUEUE_MAX)
                self._nursery.start_soon(self._connect, peer, tuple(addresses))
        waiting.append(message)

    async def _connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        try:
            await self._links.connect(peer, addresses)
            for message in self._waiting[peer]:
                self._links.send(peer, message)
        except PeerdError as error:
            del self._waiting[peer]
            self._undelivered(peer, str(error))
        else:
            del self._waiting[peer]
