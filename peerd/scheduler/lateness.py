"""Over which links answers take seconds, and whether that is the other end's own doing.

Always: once is chance, so a link is late at two looks in a row; a keeper is left for it only where
most links to others of its zone are not: else it may be this peer's own link, or the way there.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from peerd.ids import PeerId
from peerd.scheduler.outbox import Links
from peerd.scheduler.ports import Members

LATE_S: Final = 1.0
"""Guess: several times what full links of 20 Mbit/s take."""
OTHERS_MIN: Final = 2
OTHERS_MAX: Final = 64
"""Links that are compared with: enough to tell. Guess."""


class Lateness:
    """Of this peer's links."""

    def __init__(self, links: Links, members: Members) -> None:
        self._links, self._members = links, members
        self._before: frozenset[PeerId] = frozenset()

    def look(self, peers: Iterable[PeerId]) -> frozenset[PeerId]:
        """Those of `peers` that are late now and were at the last look."""
        late = frozenset(peer for peer in peers if self._is_late(peer))
        still, self._before = late & self._before, late
        return still

    def alone(self, peer: PeerId, others: Iterable[PeerId]) -> bool:
        """Whether of those of its zone it is hardly any but this one that is late."""
        zone = self._zone(peer)
        near = (x for x in others if x != peer and self._links.connected(x))
        found = list(islice((x for x in near if self._zone(x) == zone), OTHERS_MAX))
        late = sum(map(self._is_late, found))
        return len(found) >= OTHERS_MIN and 2 * late < len(found)

    def _is_late(self, peer: PeerId) -> bool:
        return self._links.late_s(peer) > LATE_S

    def _zone(self, peer: PeerId) -> str | None:
        member = self._members.member(peer)
        return None if member is None else member.zone
