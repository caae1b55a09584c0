"""What this peer tells the scheduler of itself, gathered where it arises when a report is due.

Always: rates are of the time since the last look; a peer that neither downloads nor was asked for
pieces lately has nothing to tell.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import trio

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import PRIORITY_MAX, SwarmReport, ZoneReport
from peerd.link.service import LinkService
from peerd.scheduler.ports import Members
from peerd.scheduler.reporting import Facts, Uplink
from peerd.scheduler.service import KeeperService
from peerd.swarm.run import TaskRun
from peerd.swarm.service import SwarmService

RATE_MAX: Final = (1 << 40) - 1


class FactsOfPeer:
    """Callable: the facts now. `processor_s`: what this process used, for tests."""

    def __init__(
        self, swarm: SwarmService, links: LinkService, keepers: KeeperService, members: Members,
        processor_s: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self._swarm, self._links, self._keepers, self._members = swarm, links, keepers, members
        self._processor_s = processor_s
        self._at = trio.current_time()
        self._used_s = processor_s()
        self._sent = 0
        self._came: dict[TaskId, int] = {}
        self._uplink, self._busy_s = Uplink(), 0.0

    def __call__(self) -> Facts:
        now = trio.current_time()
        past_s = max(now - self._at, 1e-3)
        used_s, sent = self._processor_s(), self._links.counters.piece_bytes_out
        load = min(100, int(100 * (used_s - self._used_s) / past_s))
        up = min(RATE_MAX, int((sent - self._sent) / past_s))
        before, self._at, self._used_s, self._sent = self._sent, now, used_s, sent
        busy_s = self._swarm.serving.busy_s(now)
        self._uplink.sent(sent - before, past_s, busy_s - self._busy_s)
        self._busy_s = busy_s
        going = {task: run for task, run in self._swarm.runs().items() if run.going()}
        swarms = {task: self._in_swarm(task, run, past_s) for task, run in going.items()}
        self._came = {task: _came(run) for task, run in going.items()}
        for version in self._swarm.serving.serves(now):
            stored = self._swarm.near.store.find(version)
            if stored is not None and stored.info.task not in swarms:
                swarms[stored.info.task] = SwarmReport(
                    stored.info.task, stored.info.piece_count or 0, stored.info.piece_length_bytes,
                    len(stored.held), False, False, PRIORITY_MAX, 0,
                )  # fmt: skip
        return Facts(
            load, up, self._uplink.full_bytes_s, self._uplink.most_bytes_s,
            self._swarm.serving.children, swarms, self._zones(going), self._keepers.origins(),
        )  # fmt: skip

    def _in_swarm(self, task: TaskId, run: TaskRun, past_s: float) -> SwarmReport:
        stored = run.stored
        came = _came(run)
        rate = min(RATE_MAX, int((came - self._came.get(task, came)) / past_s))
        pieces = stored.info.piece_count if stored is not None else None
        piece_bytes = stored.info.piece_length_bytes if stored is not None else 0
        held = len(stored.held) if stored is not None else 0
        return SwarmReport(
            task, pieces or 0, piece_bytes, held, True, self._keepers.stands(task), run.priority,
            max(0, rate),
        )  # fmt: skip

    def _zones(self, going: dict[TaskId, TaskRun]) -> dict[str, ZoneReport]:
        """What parents of each zone bring together, and the shortest way there."""
        rates: dict[str, float] = defaultdict(float)
        ways: dict[str, float] = {}
        for run in going.values():
            for parent in run.core.parents:
                zone = self._zone(parent.peer)
                if zone is None or parent.rate_bytes_s is None:
                    continue
                rates[zone] += parent.rate_bytes_s
                ways[zone] = min(ways.get(zone, 60.0), parent.round_trip_s)
        return {
            zone: ZoneReport(zone, min(RATE_MAX, int(rate)), int(1e3 * ways[zone]))
            for zone, rate in rates.items()
        }

    def _zone(self, peer: PeerId) -> str | None:
        member = self._members.member(peer)
        return member.zone if member is not None else None


def _came(run: TaskRun) -> int:
    return run.tally.from_origin + sum(run.tally.from_peers.values())
