"""The shell around a peer's part in scheduling, as scheduling_service.py and daemon/facts.py are.

Always: the core decides; what a decision costs is charged to who leads; a peer whose scenario has
nobody that may lead has none of this.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId, TaskId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import PRIORITY_MAX, SwarmReport, ZoneReport
from peerd.scheduler.advising import PeerAdvice
from peerd.scheduler.fence import EPOCH_S, prove
from peerd.scheduler.reporting import Facts, Uplink
from peerd.scheduler.scheduling import Scheduling
from peerd.swarm import events as ev
from peerd.swarm.places import Places
from peerd.swarm.serving import SERVES_S
from tools.sim.clock import Timer
from tools.sim.outbox import Outbox

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer
    from tools.sim.running import Run

SLACK_S: Final = 0.001
DECISION_S: Final = 136e-6
"""Of one core, with its report's decoding (`python -m tools.bench scheduler`: 7,358 a second)."""
WALL_S: Final = EPOCH_S + 1_000_000.0


class Scheduler:
    """One peer's."""

    def __init__(self, peer: SimPeer) -> None:
        self._peer, self._world = peer, peer.world
        self._outbox = Outbox(peer, self._undelivered)
        self.seat = Scheduling(
            peer.own, lambda term: prove(peer.key, term), peer.views,
            Random(f"scheduler/{peer.world.seed}/{peer.number}/{peer.boot}"), self._facts,
            self._outbox.send, wall_s=WALL_S,
        )  # fmt: skip
        self.seat.advising.on_advice = self._advised
        self.seat.advising.on_keeper_advice = peer.keeping.advised
        self._places = Places()
        self._uplink, self._busy_s = Uplink(), 0.0
        self._decisions = 0
        self._at = self._world.clock.now
        self._used_s, self._sent = peer.cpu_s, peer.up.carried_bytes()
        self._came: dict[TaskId, int] = {}
        self._timer = Timer(self._world.clock, peer.guarded(self._tick))
        self.changed()

    # --- what links and membership bring

    def heard(self, peer: PeerId, message: Message) -> None:
        self.seat.message_arrived(peer, message, self._world.clock.now)
        self.changed()

    def link_up(self, peer: PeerId) -> None:
        self.seat.link_up(peer, self._world.clock.now)
        self.changed()

    def link_down(self, peer: PeerId) -> None:
        self.seat.link_down(peer, self._world.clock.now)
        self.changed()

    def began(self) -> None:
        self.seat.advising.began(self._world.clock.now)
        self.changed()

    def changed(self) -> None:
        """Something is due sooner, maybe."""
        now = self._world.clock.now
        self._timer.set(max(self.seat.deadline(now), now + SLACK_S))

    def _undelivered(self, peer: PeerId) -> None:
        self._peer.views.unreachable(peer)
        self.seat.undelivered(peer, self._world.clock.now)
        self.changed()

    def _tick(self) -> None:
        self.seat.tick(self._world.clock.now)
        made = self.seat.advising.decisions
        self._peer.spend((made - self._decisions) * DECISION_S)
        self._decisions = made
        self.changed()

    def _advised(self, advice: PeerAdvice) -> None:
        places = self._places.told(advice.task, advice.place, advice.until, self._world.clock.now)
        self._peer.serving.order(
            {x.version_id: places[x.task] for x in self._world.contents if x.task in places},
            advice.until,
        )
        first = [child.peer for child in advice.first]
        for content in self._world.contents:
            if content.task == advice.task:
                self._peer.serving.feed_first(content.version_id, first, advice.until)
        for copy in self._peer.copies:
            if copy.content.task == advice.task and copy.going is not None:
                copy.going.post(ev.Advised(advice.parents, advice.until, advice.first))
        self.give_way()

    def give_way(self) -> None:
        """What swarm/service.py does: the first download in order gets most of what comes in."""
        going = [copy.going for copy in self._peer.copies if copy.going is not None]
        tasks = [run.task for run in going]
        for run in going:
            run.post(ev.ComesBehind(self._places.behind_until(run.task, tasks)))

    # --- what it tells of itself

    def _facts(self) -> Facts:
        peer, now = self._peer, self._world.clock.now
        past_s = max(now - self._at, 1e-3)
        sent = peer.up.carried_bytes()
        load = min(100, int(100 * (peer.cpu_s - self._used_s) / past_s))
        up = int((sent - self._sent) / past_s)
        before, self._at, self._used_s, self._sent = self._sent, now, peer.cpu_s, sent
        swarms: dict[TaskId, SwarmReport] = {}
        going: list[Run] = []
        for copy in peer.copies:
            task, store = copy.content.task, copy.store
            count = copy.content.count if store.version is not None else 0
            if copy.going is not None:
                going.append(copy.going)
                came = len(store.held) * store.size_of(0) if count else 0
                rate = max(0, int((came - self._came.get(task, came)) / past_s))
                self._came[task] = came
                swarms[task] = SwarmReport(
                    task, count, store.size_of(0) if count else 0, len(store.held), True,
                    peer.keeping.stands(task), copy.content.priority, rate,
                )  # fmt: skip
            elif (
                count and now - peer.serving.asked_at.get(copy.content.version_id, -inf) < SERVES_S
            ):
                swarms[task] = SwarmReport(
                    task, count, store.size_of(0), len(store.held), False, False, PRIORITY_MAX, 0
                )
        busy_s = peer.serving.busy_s(now)
        self._uplink.sent(int(sent - before), past_s, busy_s - self._busy_s)
        self._busy_s = busy_s
        return Facts(
            load, up, self._uplink.full_bytes_s, self._uplink.most_bytes_s, peer.serving.children,
            swarms, self._zones(going), peer.keeping.core.origins(),
        )  # fmt: skip

    def _zones(self, going: list[Run]) -> dict[str, ZoneReport]:
        rates: dict[str, float] = defaultdict(float)
        ways: dict[str, float] = {}
        for parent in (parent for run in going for parent in run.core.parents):
            if parent.rate_bytes_s is not None:
                zone = self._world.network.peers[parent.peer].zone
                rates[zone] += parent.rate_bytes_s
                ways[zone] = min(ways.get(zone, 60.0), parent.round_trip_s)
        return {
            zone: ZoneReport(zone, int(rate), int(1e3 * ways[zone])) for zone, rate in rates.items()
        }
