"""Whom a leader advises next, and what: parents in order, for each peer in each swarm.

Always: newcomers first, then who was advised longest ago; at most so many decisions at once; of a
swarm a sample is looked at, half of it in the child's own zone, so that a decision costs the same
in a swarm of ten and of ten thousand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import PARENTS_MAX, Advised
from peerd.scheduler.evaluator import Candidate, Child, Evaluator, evaluate
from peerd.scheduler.topology import InSwarm, PeerSeen, Topology

if TYPE_CHECKING:
    from random import Random


RATE_S = 10.0
"""Decisions a second are told over so long: twice what passes between two to one peer."""
MARKS_MAX = 1024


@dataclass(frozen=True, slots=True)
class AdvisorConfig:
    """Every figure of advising, with its source."""

    every_s: float = 5.0  # Guess: a download of seconds is advised once, one of minutes often.
    none_s: float = 1.0  # Who found nobody with anything: a report later somebody has. Guess.
    for_s: float = 10.0  # Twice that: one that is late is not missed.
    sample: int = 24  # Dragonfly filters 15 of a swarm; with half of them far. Guess.
    at_once_max: int = 256  # Decisions; at 100 µs each they hold the event loop for 25 ms.
    waiting_max: int = 100_000  # (task, peer) pairs in line.


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
        self._again: list[tuple[float, TaskId, PeerId]] = []
        self._in_line: set[tuple[TaskId, PeerId]] = set()

    def noticed(self, task: TaskId, peer: PeerId) -> None:
        """It is in that swarm, and wants the content."""
        key = (task, peer)
        if key not in self._in_line and len(self._in_line) < self.config.waiting_max:
            self._in_line.add(key)
            self._fresh.append(key)

    def clear(self) -> None:
        """This peer leads no more."""
        self._fresh.clear()
        self._again.clear()
        self._in_line.clear()

    def deadline(self) -> float:
        if self._fresh:
            return -inf
        return self._again[0][0] if self._again else inf

    def advise(self, seen: Topology, now: float) -> list[Advised]:
        """What is due now, at most `at_once_max`."""
        found: list[Advised] = []
        before = self.decisions
        for _ in range(self.config.at_once_max):
            if self._fresh:
                task, peer = self._fresh.popleft()
            elif self._again and self._again[0][0] <= now:
                _, task, peer = heappop(self._again)
            else:
                break
            said = seen.tasks.get(task, {}).get(peer)
            if said is None or not said.wants or said.progress >= 1.0:
                self._in_line.discard((task, peer))
                continue
            parents = self.parents(seen, task, peer, said)
            again_s = self.config.every_s if parents else self.config.none_s
            heappush(self._again, (now + again_s, task, peer))
            if parents:
                found.append(Advised(peer, task, parents))
        if self.decisions > before:
            self._made.append((now, self.decisions - before))
        return found

    def per_s(self, now: float) -> float:
        """Decisions a second, lately."""
        return sum(count for at, count in self._made if now - at < RATE_S) / RATE_S

    def parents(
        self, seen: Topology, task: TaskId, peer: PeerId, said: InSwarm
    ) -> tuple[PeerId, ...]:
        """One decision: the best of a sample, the best first."""
        self.decisions += 1
        zone = seen.peers[peer].zone
        shares = seen.shares(zone)
        swarm, peers = seen.tasks[task], seen.peers
        candidates = [
            _candidate(each, peers[each], swarm[each], shares)
            for each in seen.sample(task, zone, self.config.sample, self._rng)
            if each != peer
        ]
        scores = self._evaluate(Child(peer, zone, said.progress), candidates)
        return _best(candidates, scores)


def _candidate(peer: PeerId, at: PeerSeen, said: InSwarm, shares: Mapping[str, float]) -> Candidate:
    return Candidate(
        peer, at.zone, at.seed, said.wants, said.progress, at.load_percent, at.children,
        shares.get(at.zone),
    )  # fmt: skip


def _best(candidates: Sequence[Candidate], scores: Sequence[float]) -> tuple[PeerId, ...]:
    """Those with a score of 0 or more; a replaced evaluator may give too few scores, or none."""
    ranked = sorted(
        (-score, place) for place, score in enumerate(scores[: len(candidates)]) if score >= 0
    )
    return tuple(candidates[place].peer for _, place in ranked[:PARENTS_MAX])
