"""How long the pieces that were read take to come to a second holder, and which take far longer.

Always: a piece is judged by how long others took, and never within `alone_s` of being read.
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
"""Pieces that came to a second holder before their times say anything. Guess."""


@dataclass(slots=True, eq=False)
class Alone:
    """Of one kept task. `since`: when each piece was read that only its reader holds."""

    looked_at: float = -inf
    since: dict[int, float] = field(default_factory=dict)
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=TOOK_KEPT))

    def read(self, bits: int, now: float) -> None:
        """These pieces were read from the origin."""
        while bits:
            self.since.setdefault((bits & -bits).bit_length() - 1, now)
            bits &= bits - 1

    def spread(self, twice: int, now: float) -> None:
        """These have a second holder."""
        for index in [index for index in self.since if twice >> index & 1]:
            self._took_s.append(now - self.since.pop(index))

    def overdue(self, bits: int, least_s: float, now: float) -> int:
        """Which of these are alone for far longer than others were."""
        if len(self._took_s) < TOOK_ENOUGH:
            return 0
        patience_s = max(least_s, TIMES_OTHERS * median(self._took_s))
        found = 0
        for index, since in self.since.items():
            if bits >> index & 1 and now - since >= patience_s:
                found |= 1 << index
        return found
