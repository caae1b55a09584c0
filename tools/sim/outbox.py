"""Messages of one peer to others to whom no link may stand yet (scheduler/outbox.py).

Always: messages to one peer keep their order; who cannot be reached is said once for all that
waited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from peerd.ids import PeerId
from peerd.link.messages import Message

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer


class Outbox:
    """Sends at once where a link stands, else dials first."""

    def __init__(self, peer: SimPeer, undelivered: Callable[[PeerId], None]) -> None:
        self._peer, self._undelivered = peer, undelivered
        self._waiting: dict[PeerId, list[Message]] = {}

    def send(self, to: PeerId, message: Message) -> None:
        network, waiting = self._peer.world.network, self._waiting.get(to)
        if waiting is not None:
            waiting.append(message)
        elif not network.send(self._peer, to, message):
            self._waiting[to] = [message]
            network.dial(self._peer, to, lambda up: self._dialled(to, up))

    def _dialled(self, to: PeerId, up: bool) -> None:
        waiting = self._waiting.pop(to)
        if up:
            for message in waiting:
                self._peer.world.network.send(self._peer, to, message)
        else:
            self._undelivered(to)
