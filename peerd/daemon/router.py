"""Brings what links deliver to whom it is for.

Always: what a keeper handles goes to keepers, what a keeper says goes to whoever asked it, what
electors say to those who elect, and all else about a task to the swarm; a peer that breaks the
protocol loses its link, nothing else.
"""

from __future__ import annotations

import logging

import trio

from peerd.errors import RemoteProtocolError
from peerd.gossip.service import GossipService
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.link.messages import OF_SCHEDULER, Message
from peerd.link.service import LinkService
from peerd.manifest import Attestation
from peerd.scheduler.scheduling_service import SchedulerService
from peerd.scheduler.service import KEEPER_MESSAGES, KeeperService
from peerd.swarm.service import SwarmService

log = logging.getLogger(__name__)


class Router:
    """The links' one handler (link.ports.LinkHandler)."""

    def __init__(
        self,
        links: LinkService,
        gossip: GossipService,
        keepers: KeeperService,
        schedulers: SchedulerService,
        swarm: SwarmService,
        nursery: trio.Nursery,
    ) -> None:
        self._links, self._gossip, self._keepers, self._swarm = links, gossip, keepers, swarm
        self._schedulers = schedulers
        self._nursery = nursery

    def link_up(self, peer: PeerId) -> None:
        self._gossip.reachable(peer)
        self._keepers.link_up(peer)
        self._schedulers.link_up(peer)

    def link_down(self, peer: PeerId) -> None:
        self._keepers.link_down(peer)
        self._swarm.link_down(peer)
        self._schedulers.link_down(peer)

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        try:
            if isinstance(message, KEEPER_MESSAGES):
                self._keepers.message_arrived(peer, message)
            elif isinstance(message, OF_SCHEDULER):
                self._schedulers.message_arrived(peer, message)
            else:
                self._swarm.message_arrived(peer, message)
        except RemoteProtocolError as error:
            log.warning("%s broke the protocol: %s", peer, error)
            self._nursery.start_soon(self._links.close, peer, error.code, str(error)[:512])
        except Exception:  # A message that meets a bug of ours must not end the daemon.
            log.exception("%s from %s met a bug", type(message).__name__, peer)

    def chunk_arrived(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        offset_bytes: int,
        attestation: Attestation | None,
        data: memoryview,
    ) -> object | None:
        return self._swarm.chunk_arrived(
            peer, version, index, size_bytes, offset_bytes, attestation, data
        )

    async def chunk_done(self, peer: PeerId, outcome: object) -> None:
        await self._swarm.chunk_done(peer, outcome)
