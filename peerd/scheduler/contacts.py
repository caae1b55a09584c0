"""Of whom a peer hears who leads: of an elector, or, in a large group, of one of its own cell.

Always: who is asked in a cell is asked in no narrower one, so that contacts lead up from cell to
cell and nobody hears from whom it tells; the electors come last, whoever else is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from peerd import cells
from peerd.ids import PeerId
from peerd.rendezvous import ranked
from peerd.scheduler.fence import SEAT

OF_EACH_CELL: Final = 2
"""The best-ranked of a cell that are tried: the second where the first is gone. Guess."""


def electors_of(eligible: Iterable[PeerId], most: int) -> tuple[PeerId, ...]:
    """Those who may lead, the first candidate first."""
    return tuple(ranked(eligible, SEAT, most))


def standbys_of(electors: Sequence[PeerId], leader: PeerId | None) -> tuple[PeerId, ...]:
    """The next two in order (design.md, section 6): they hear what the leader hears."""
    return tuple(peer for peer in electors if peer != leader)[:2] if leader is not None else ()


def contacts_of(
    own: PeerId, group: Sequence[PeerId], electors: Sequence[PeerId], bits: int
) -> tuple[PeerId, ...]:
    """Whom a peer asks for leases, in order; `bits`: into 2 to the power of how many cells the
    group is cut (cells.bits_for)."""
    taken = set(electors)
    levels: list[list[PeerId]] = []
    for cell in reversed(cells.path(own, bits)):
        fit = [
            peer for peer in group if peer not in taken and cells.lies_in(peer, "", f"#{cell}")
        ]  # fmt: skip
        order = ranked(fit, SEAT, OF_EACH_CELL)
        taken.update(order)
        if own in order:
            levels.append(order[: order.index(own)])
            break
        levels.append(order)
    found = dict.fromkeys(peer for level in reversed(levels) for peer in level)
    found.update(dict.fromkeys(electors))
    found.pop(own, None)
    return tuple(found)
