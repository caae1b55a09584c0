"""What a leader makes of what uplinks were seen to do: what is typical, and who is fed first.

Always: pure, over a picture; who was never seen busy counts as the others; where all are about
alike nothing is advised, for then chance is as good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Final, NamedTuple

from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import FIRST_MAX
from peerd.scheduler.topology import Topology

FAR_LESS: Final = 4
"""Who can send so many times less than most of what is sent comes last: what it reads, or is told
of first, comes to the others later than by one of them. Guess."""


class Rooms(NamedTuple):
    """Bytes/s that some peers can send for one swarm: where that was seen; and did at most."""

    full: Mapping[PeerId, float]
    most: Mapping[PeerId, float]

    def typical(self) -> float:
        """What a byte is sent at, not a peer; 0 where nothing was seen. Of whom it is not known how
        slow they are: at least as good as what they sent, or as the others."""
        if not self.full:
            return 0.0
        usual = mean(self.full.values())
        hoped = [max(usual, sent) for peer, sent in self.most.items() if peer not in self.full]
        rooms = [*self.full.values(), *hoped]
        return sum(room * room for room in rooms) / sum(rooms)


def rooms(seen: Topology, peers: Sequence[PeerId]) -> Rooms:
    """An uplink is shared by all swarms of its peer."""
    full: dict[PeerId, float] = {}
    most: dict[PeerId, float] = {}
    for peer in peers:
        asked, sent = seen.uplinks.get(peer, (0, 0))
        swarms = max(1, len(seen.peers[peer].swarms)) if peer in seen.peers else 1
        most[peer] = sent / swarms
        if asked:
            full[peer] = asked / swarms
    return Rooms(full, most)


def first_children(
    seen: Topology, task: TaskId, peer: PeerId, some: Sequence[PeerId]
) -> tuple[PeerId, ...]:
    """Of some members those to be sent first what `peer` read: they pass it on the fastest.

    Nobody, where none of them is known to be far slower than the others.
    """
    swarm, zone = seen.tasks[task], seen.peers[peer].zone
    wanting = [x for x in some if x != peer and swarm[x].wants and seen.peers[x].zone == zone]
    room = rooms(seen, wanting)
    typical = room.typical()
    if not any(FAR_LESS * each < typical for each in room.full.values()):
        return ()
    able = [(each, x) for x, each in room.full.items() if 2 * each >= typical]
    return tuple(x for _, x in sorted(able, reverse=True)[:FIRST_MAX])
