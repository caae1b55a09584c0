"""What a keeper knows of cells: of its own, if it keeps one, and of those that have delegates here.

Always: soft state; bounded by the roster and by what messages carry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from peerd.ids import PeerId
from peerd.link.messages import RosterPeer
from peerd.manifest import VersionInfo


@dataclass(slots=True, eq=False)
class CellState:
    """A cell's part of a Kept, and what the wider keeper knows of cells.

    `delegates`, since when; `speakers` are those with a dispute; `outside` are members of other
    cells; `moved` is how much the cell held at `moved_at`. Of a wider keeper: `told` is what the
    cells' keepers were told last, `samples` what they sent, `held` what their cells hold; a zone's
    cell said to the wider keeper that it holds `said`, at `said_at`.
    """

    delegates: dict[PeerId, float] = field(default_factory=dict)
    speakers: dict[PeerId, None] = field(default_factory=dict)
    outside: dict[PeerId, RosterPeer] = field(default_factory=dict)
    above: PeerId | None = None
    above_term: int = 0
    moved: int = -1
    moved_at: float = -inf
    sampled_at: float = -inf
    sampled: int = 0
    sample_s: float = 0.0
    said: int = 0
    said_at: float = -inf
    held: dict[PeerId, int] = field(default_factory=dict)
    told: dict[PeerId, VersionInfo | None] = field(default_factory=dict)
    samples: dict[PeerId, tuple[RosterPeer, ...]] = field(default_factory=dict)
