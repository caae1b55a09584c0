"""How long pieces that one member holds take to come to a second, and which take far longer.

Always: a piece is judged by how long others took, where that is known, and never within `least_s`
of being seen, nor of when anybody got anything: one holder that feeds all the others is no fault; a
keeper that took over counts from then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from statistics import median

TIMES_OTHERS = 4
"""So many times what others took is more than chance. Guess."""
TOOK_KEPT = 32
TOOK_ENOUGH = 8
"""Pieces that came to a second holder before their times say anything; until then the patience is
so many times the least. Guess."""


@dataclass(slots=True, eq=False)
class Alone:
    """Of one kept task. `since`: when each piece was first seen that one member alone holds."""

    looked_at: float = -inf
    _held: int = -1
    _moved_at: float = -inf
    since: dict[int, float] = field(default_factory=dict)
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=TOOK_KEPT))

    def look(self, once: int, held: int, now: float) -> None:
        """These have one holder now, all others more or none; who has none of them holds so many
        with its like."""
        if held != self._held:
            self._held, self._moved_at = held, now
        for index in [index for index in self.since if not once >> index & 1]:
            self._took_s.append(now - self.since.pop(index))
        while once:
            self.since.setdefault((once & -once).bit_length() - 1, now)
            once &= once - 1

    def overdue(self, bits: int, least_s: float, waited_since: float, now: float) -> int:
        """Which of these are alone for far longer than others were, while somebody waits and nobody
        gets anything."""
        if now - max(self._moved_at, waited_since) < least_s:
            return 0
        patience_s = TIMES_OTHERS * least_s
        if len(self._took_s) >= TOOK_ENOUGH:
            patience_s = max(least_s, TIMES_OTHERS * median(self._took_s))
        found = 0
        for index, since in self.since.items():
            if bits >> index & 1 and now - since >= patience_s:
                found |= 1 << index
        return found
