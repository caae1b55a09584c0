"""What a leader tells a keeper: whom to grant reads last, and how many may read at once.

Always: only who is known to send far less than most comes last, and at least `OTHERS_MIN` do not;
the first task in order that reads an origin is left as many readers as its keeper finds best.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import LAST_MAX, AdvisedKeeper
from peerd.scheduler.advisor_uplinks import FAR_LESS, rooms
from peerd.scheduler.topology import Topology

if TYPE_CHECKING:
    from random import Random

LOOKED_AT_MAX: Final = 256
"""Members of a swarm that one decision looks at: four times those that stand at a keeper."""
OTHERS_MIN: Final = 2
"""One alone would be all that a swarm depends on."""
READERS_BEHIND: Final = 2
"""Readers of a task whose origin one before it in order reads: as few as a keeper heeds."""


def last_readers(seen: Topology, task: TaskId, rng: Random, *, new: bool) -> tuple[PeerId, ...]:
    """Those of whom it is known that they can send far less of what they read than the others.

    `new`: the task is kept since now and hardly anybody has reported that it is in its swarm, so it
    is whoever was seen at all; else a slow one has read before the next decision.
    """
    swarm = seen.tasks.get(task, {})
    some = [peer for peer, said in swarm.items() if said.stands and said.wants]
    if new:
        some = list(dict.fromkeys([*some, *seen.uplinks]))
    if len(some) > LOOKED_AT_MAX:
        some = rng.sample(some, LOOKED_AT_MAX)
    room = rooms(seen, some)
    typical = room.typical()
    last = sorted((each, peer) for peer, each in room.full.items() if FAR_LESS * each < typical)
    if len(some) - len(last) < OTHERS_MIN:
        return ()
    return tuple(peer for _, peer in last[:LAST_MAX])


def advise_keepers(
    seen: Topology, tasks: Sequence[TaskId], order: Sequence[TaskId], new: Set[TaskId], rng: Random
) -> list[AdvisedKeeper]:
    """One decision for each of these tasks, the first one for those that are `new`; `order`: all,
    those first that are to be done first."""
    first_at: dict[int, TaskId] = {}
    for task in [*order, *seen.keepers]:
        if task in seen.keepers:
            first_at.setdefault(_origin(seen, task), task)
    found = []
    for task in tasks:
        readers = 0 if first_at[_origin(seen, task)] == task else READERS_BEHIND
        last = last_readers(seen, task, rng, new=task in new)
        found.append(AdvisedKeeper(seen.keepers[task], task, last, readers))
    return found


def _origin(seen: Topology, task: TaskId) -> int:
    return seen.peers[seen.keepers[task]].keeps[task]
