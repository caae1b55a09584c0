"""Whom a leader advises next, and what: parents in order, and who is fed first, for each peer in
each swarm; the order of its swarms, for who is in several; readers, for each keeper.

Always: newcomers first, then who was advised longest ago; at most so many decisions at once; of a
swarm a sample is looked at, half of it in the child's own zone, so that a decision costs the same
in a swarm of ten and of ten thousand. The order of tasks is one for all: else each peer would do
another one first, and all end late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from math import inf
from statistics import median
from typing import TYPE_CHECKING

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import PARENTS_MAX, AdvisedKeeper, AdvisedParent, AdvisedPeer
from peerd.scheduler import advisor_uplinks as uplinks
from peerd.scheduler.advisor_readers import advise_keepers
from peerd.scheduler.evaluator import Candidate, Child, Evaluator, Why, evaluate, reasons
from peerd.scheduler.topology import InSwarm, PeerSeen, Topology

if TYPE_CHECKING:
    from random import Random


RATE_S = 10.0
"""Decisions a second are told over so long: twice what passes between two to one peer."""
MARKS_MAX = 1024
SOME = 32
"""Members of a swarm that are asked how much is left. Guess."""


@dataclass(frozen=True, slots=True)
class AdvisorConfig:
    """Every figure of advising, with its source."""

    every_s: float = 5.0  # Guess: a download of seconds is advised once, one of minutes often.
    none_s: float = 1.0  # Who found nobody with anything: a report later somebody has. Guess.
    for_s: float = 10.0  # Twice that: one that is late is not missed.
    sample: int = 24  # Dragonfly filters 15 of a swarm; with half of them far. Guess.
    at_once_max: int = 256  # Decisions; at 100 µs each they hold the event loop for 25 ms.
    waiting_max: int = 100_000  # (task, peer) pairs in line.
    order_s: float = 0.5  # Tasks are put in order so often at most. Guess: half a report.
    ordered_max: int = 1_024  # Tasks; of more, those that came last come last. Guess.


class Advisor:
    """Decides over a picture; `evaluator` may be an operator's own."""

    def __init__(
        self, rng: Random, evaluator: Evaluator = evaluate, config: AdvisorConfig | None = None
    ) -> None:
        self.config = config or AdvisorConfig()
        self.decisions = 0
        self._made: deque[tuple[float, int]] = deque(maxlen=MARKS_MAX)
        self._rng, self._evaluate = rng, evaluator
        self._fresh: deque[tuple[TaskId, PeerId]] = deque()
        self._moved: deque[tuple[TaskId, PeerId]] = deque()
        self._again: list[tuple[float, TaskId, PeerId]] = []
        self._due: dict[tuple[TaskId, PeerId], float] = {}  # -inf: in one of the two above.
        self._keepers_at: dict[TaskId, float] = {}
        self._new_keepers = False
        self._order: list[TaskId] = []
        self._ordered_at = -inf

    def noticed(self, task: TaskId, peer: PeerId) -> None:
        """It is in that swarm, and wants the content."""
        key = (task, peer)
        if key not in self._due and len(self._due) < self.config.waiting_max:
            self._due[key] = -inf
            self._fresh.append(key)

    def kept(self, tasks: Iterable[TaskId]) -> None:
        """Somebody keeps these; the first advice on a task is wanted at once."""
        self._new_keepers = self._new_keepers or any(x not in self._keepers_at for x in tasks)

    def clear(self) -> None:
        """This peer leads no more."""
        self._fresh.clear()
        self._moved.clear()
        self._again.clear()
        self._due.clear()
        self._keepers_at.clear()
        self._new_keepers = False
        self._order.clear()
        self._ordered_at = -inf

    def deadline(self) -> float:
        if self._fresh or self._moved or self._new_keepers:
            return -inf
        keepers_at = min(self._keepers_at.values(), default=inf)
        return min(keepers_at, self._again[0][0] if self._again else inf)

    def advise(self, seen: Topology, now: float) -> list[AdvisedPeer]:
        """What is due now, at most `at_once_max`."""
        found: list[AdvisedPeer] = []
        before = self.decisions
        for _ in range(self.config.at_once_max):
            key = self._next(seen, now)
            if key is None:
                break
            task, peer = key
            said = seen.tasks.get(task, {}).get(peer)
            if said is None or not (said.wants or len(seen.peers[peer].swarms) > 1):
                del self._due[key]
                continue
            advised = self.decide(seen, task, peer, said, now)
            parents = advised.parents
            seldom = parents or not said.wants
            again_s = self.config.every_s if seldom else self.config.none_s
            self._due[key] = now + again_s
            heappush(self._again, (now + again_s, task, peer))
            if parents or advised.first or len(seen.peers[peer].swarms) > 1:
                found.append(advised)
        if self.decisions > before:
            self._made.append((now, self.decisions - before))
        return found

    def _next(self, seen: Topology, now: float) -> tuple[TaskId, PeerId] | None:
        """Newcomers, then those whose place among its swarms a newcomer may have changed."""
        if self._fresh:
            task, peer = self._fresh.popleft()
            for other in seen.peers[peer].swarms if peer in seen.peers else ():
                if self._due.get((other, peer), -inf) > -inf:
                    self._due[other, peer] = -inf
                    self._moved.append((other, peer))
            return task, peer
        if self._moved:
            return self._moved.popleft()
        while self._again and self._again[0][0] <= now:
            at, task, peer = heappop(self._again)
            if self._due.get((task, peer)) == at:  # Else it was advised meanwhile.
                return task, peer
        return None

    def keepers(self, seen: Topology, now: float) -> list[AdvisedKeeper]:
        """What is due now of those that keep something."""
        new, self._new_keepers = seen.keepers.keys() - self._keepers_at.keys(), False
        if new or len(seen.keepers) < len(self._keepers_at):
            # What is read now leaves its origin to the next in order.
            self._keepers_at = dict.fromkeys(seen.keepers, now)
        due = [task for task, at in self._keepers_at.items() if at <= now]
        if not due:
            return []
        due = due[: self.config.at_once_max]
        self._keepers_at.update(dict.fromkeys(due, now + self.config.none_s))
        self.decisions += len(due)
        return advise_keepers(seen, due, self.order(seen, now), new, self._rng)

    def order(self, seen: Topology, now: float) -> Sequence[TaskId]:
        """All tasks, the most urgent first, of those the one with the least left, of those the one
        that was there first: each ends no later than if all shared alike, most end earlier."""
        if now < self._ordered_at + self.config.order_s:
            return self._order
        self._ordered_at = now
        self._order = sorted(
            list(seen.tasks)[: self.config.ordered_max], key=lambda task: _urgency(seen, task)
        )
        return self._order

    def _place(self, seen: Topology, task: TaskId, peer: PeerId, now: float) -> int:
        """Where it stands among the swarms of that peer."""
        swarms = seen.peers[peer].swarms
        if len(swarms) < 2:
            return 0
        order = self.order(seen, now)
        mine = [each for each in order if each in swarms]
        return mine.index(task) if task in mine else len(mine)

    def per_s(self, now: float) -> float:
        """Decisions a second, lately."""
        return sum(count for at, count in self._made if now - at < RATE_S) / RATE_S

    def decide(
        self, seen: Topology, task: TaskId, peer: PeerId, said: InSwarm, now: float
    ) -> AdvisedPeer:
        """One decision; it names nobody to who has all."""
        place = self._place(seen, task, peer, now)
        if not said.wants or said.progress >= 1.0:
            return AdvisedPeer(peer, task, place, (), ())
        self.decisions += 1
        zone = seen.peers[peer].zone
        some = seen.sample(task, zone, self.config.sample, self._rng)
        parents = self._parents(seen, task, Child(peer, zone, said.progress), some)
        first = uplinks.first_children(seen, task, peer, some)
        return AdvisedPeer(peer, task, place, parents, first)

    def _parents(
        self, seen: Topology, task: TaskId, child: Child, some: Sequence[PeerId]
    ) -> tuple[AdvisedParent, ...]:
        """The best of a sample, the best first."""
        shares, swarm, peers = seen.shares(child.zone), seen.tasks[task], seen.peers
        candidates = [
            _candidate(each, peers[each], swarm[each], shares)
            for each in some
            if each != child.peer
        ]
        places = _best(self._evaluate(child, candidates), len(candidates))
        why = reasons(child, candidates) if candidates and self._evaluate is evaluate else None
        return tuple(
            AdvisedParent(candidates[place].peer, Why.SCORE if why is None else why[place])
            for place in places
        )


def _urgency(seen: Topology, task: TaskId) -> tuple[int, int]:
    """The least comes first. What is left, of the median of some members, counts by powers of two:
    two that are about as far do not take turns."""
    members = [said for said in islice(seen.tasks[task].values(), SOME) if said.wants]
    if not members:
        return 0, 0
    priority = max(said.priority for said in members)
    return -priority, int(median(said.left_bytes for said in members)).bit_length()


def _candidate(peer: PeerId, at: PeerSeen, said: InSwarm, shares: Mapping[str, float]) -> Candidate:
    return Candidate(
        peer, at.zone, at.seed, said.wants, said.progress, at.load_percent, at.children,
        shares.get(at.zone),
    )  # fmt: skip


def _best(scores: Sequence[float], count: int) -> list[int]:
    """The places of those with a score of 0 or more; a replaced evaluator may give too few scores,
    or none."""
    ranked = sorted((-score, place) for place, score in enumerate(scores[:count]) if score >= 0)
    return [place for _, place in ranked[:PARENTS_MAX]]
