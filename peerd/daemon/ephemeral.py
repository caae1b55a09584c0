"""A daemon that lives for one download: it ends with the command line that started it, or lingers.

Always: it ends when its standard input does, unless it was told LINGER there first: then when its
share is given (swarm/lingering), nobody asks any more, or its time is over; the folder of its
socket goes with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Final

import trio

from peerd.daemon.wiring import Daemon
from peerd.gateway.places import LINGER
from peerd.ids import PieceIndex
from peerd.link.service import LinkService
from peerd.origin.service import OriginReader
from peerd.swarm.lingering import Lingering, Share
from peerd.swarm.run import TaskRun
from peerd.swarm.service import SwarmService

log = logging.getLogger("peerd")

LOOK_EVERY_S: Final = 0.25
"""A quarter of a second more or less does not matter to who lingers for seconds."""


async def watch_parent(stop: trio.CancelScope, daemon: Daemon) -> None:
    """Cancels `stop` when the process that started this one needs it no more, and nobody else."""
    said = b""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as parent:
        while some := await parent.receive_some(1024):
            said = (said + some)[-len(LINGER) :]
    if said == LINGER:
        log.info("lingering for others, for %g s at most", daemon.config.linger_s)
        log.info("stopping: %s", await _linger(daemon))
    else:
        log.info("stopping: the process that started this daemon has ended")
    stop.cancel()


async def _linger(daemon: Daemon) -> str:
    """Returns why it is over."""
    share = SharedSoFar(daemon.swarm, daemon.links, daemon.origin)
    lingering = Lingering(daemon.config.linger_s, trio.current_time())
    while True:
        now = trio.current_time()
        words = lingering.over(share.now(busy=daemon.facade.needed()), now)
        if words is not None:
            return words
        await trio.sleep(LOOK_EVERY_S)


class SharedSoFar:
    """What this daemon took and gave since it started."""

    def __init__(self, swarm: SwarmService, links: LinkService, origin: OriginReader) -> None:
        self._swarm, self._links, self._origin = swarm, links, origin
        self._own: dict[TaskRun, tuple[PieceIndex, ...]] = {}

    def now(self, *, busy: bool) -> Share:
        counters, serving = self._links.counters, self._swarm.serving
        return Share(
            came_bytes=self._origin.bytes_read + counters.piece_bytes_in,
            sent_bytes=counters.piece_bytes_out,
            lone_pieces=sum(self._lone(run) for run in self._swarm.runs().values()),
            asked_at=serving.asked_at,
            busy=busy,
        )

    def _lone(self, run: TaskRun) -> int:
        if run.stored is None or run.going() or run.error is not None:
            return 0
        if run not in self._own:
            self._own[run] = run.read_here()
        version, sent = run.stored.info.version, self._swarm.serving.sent
        return sum(1 for index in self._own[run] if not sent(version, index))


def remove_place(socket: str) -> None:
    """The folder that was made for our socket; whoever started us may still have its log there."""
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(socket))
