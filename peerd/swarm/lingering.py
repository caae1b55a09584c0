"""How long a peer that was started for one download stays when it has it (docs/adr/0016).

Always: never longer than its time, counted from the last moment that a caller here needed it; not
for a moment once nobody asks any more; nothing that it alone read goes with it while others ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

IDLE_S: Final = 5.0
"""Nobody asked for a piece for so long: whoever is in the swarm has all of it. Guess: longer than
the 3 s after which a child robs a parent and asks another (parents.STALL_S)."""


@dataclass(frozen=True)
class Share:
    """What this peer took and gave. `lone_pieces`: it read them, and has sent them to nobody yet.

    `asked_at`: when a child last asked for a piece, or was sent one.
    """

    came_bytes: int
    sent_bytes: int
    lone_pieces: int
    asked_at: float
    busy: bool


class Lingering:
    """One stay, of `most_s` at most."""

    def __init__(self, most_s: float, now: float) -> None:
        self._most_s = most_s
        self._since = now

    def over(self, share: Share, now: float) -> str | None:
        """Why to leave now, in words; None: stay."""
        if share.busy:
            self._since = now
            return None
        if now - self._since >= self._most_s:
            return f"its {self._most_s:g} s are over"
        if now - max(self._since, share.asked_at) >= IDLE_S:
            return "nobody asks any more"
        if share.sent_bytes >= share.came_bytes and not share.lone_pieces:
            return "it gave as much as it took"
        return None
