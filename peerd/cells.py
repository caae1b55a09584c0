"""Cells: parts of a large group, by hash, so that no keeper hears of more than some 64 members.

Always: a cell is named by the first bits of its members' hashes ("" is all of the group); which
cells there are follows from the number of members alone. A member enrols with the keeper of its
narrowest cell; some of each cell, its delegates, also with the keeper of the wider one it lies in,
and so on up to the group's. A cell's keeper is found like a task's, by hashing the cell's seat
among its members (ADR 0015). What is said of a group holds for a zone's scope as well.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from peerd.ids import PeerId, TaskId
from peerd.rendezvous import weight
from peerd.zones import within

FAN_IN_MAX: Final = 64
"""Members that one keeper hears of (design.md, section 4.4)."""
CELL_MEAN_MAX: Final = 44
"""Members of a cell, on average: of 256 such cells the largest has about 64 (three deviations)."""
CELL_MEAN_MIN: Final = 15
"""Below this two cells become one again; far from half of the above, so that it stays so."""
STEP_BITS: Final = 5
"""A cell is cut into 2 to the power of so many at most: one delegate from each is half of what its
keeper may hear."""
BITS_MAX: Final = 24
_HASH_BITS: Final = 64


def bits_for(members: int, before: int = 0) -> int:
    """Into 2 to the power of how many cells so many members are cut; `before`: what it was."""
    if members <= FAN_IN_MAX and (not before or members < CELL_MEAN_MIN << before):
        return 0
    bits = before
    while members > CELL_MEAN_MAX << bits and bits < BITS_MAX:
        bits += 1
    while bits and members < CELL_MEAN_MIN << bits:
        bits -= 1
    return bits


def path(own: PeerId, bits: int) -> tuple[str, ...]:
    """The cells that a peer lies in, the narrowest first, where that has so many bits."""
    name = _hash(own)
    cells = []
    while bits:
        cells.append(name[:bits])
        bits = wider_bits(bits)
    return tuple(cells)


def wider_bits(bits: int) -> int:
    """Bits of the cell whose keeper hears the delegates of a cell of so many."""
    return max(0, bits - STEP_BITS)


def delegates(cell: str) -> int:
    """How many stand for a cell at the wider one's keeper: all of its cells together half fill it.

    The other half is for those whose view of the group's size, and so of its cells, is another one
    (while a group boots, two of them differ for seconds), and for seed peers.
    """
    return FAN_IN_MAX // 2 >> (len(cell) - wider_bits(len(cell)))


def scope_of(zone: str, cell: str) -> str:
    """What messages name as their scope: a zone, `#`, and the cell in it; a zone alone; or ""."""
    return f"{zone}#{cell}" if cell else zone


@lru_cache(maxsize=1 << 12)
def split(scope: str) -> tuple[str, str]:
    """Zone and cell of a scope; ValueError if it has no such form."""
    zone, mark, cell = scope.partition("#")
    if mark and not (0 < len(cell) <= BITS_MAX and set(cell) <= {"0", "1"}):
        raise ValueError(f"{scope!r} names no cell")
    return zone, cell


def lies_in(peer: PeerId, zone: str, scope: str) -> bool:
    """Whether a peer of this zone lies in the scope, and in the cell that it may name."""
    wide, cell = split(scope)
    return within(zone, wide) and _hash(peer).startswith(cell)


def cell_seat(wide: TaskId, cell: str) -> TaskId:
    """What is ranked for the keeper of a cell of the seat `wide` (a task's, or a scope's)."""
    if not cell:
        return wide
    return TaskId(hashlib.sha256(f"peerd cell\0{wide}\0{cell}".encode()).hexdigest())


@lru_cache(maxsize=1 << 16)
def _hash(peer: PeerId) -> str:
    """As digits, so that a cell is a prefix."""
    return f"{weight(peer, 'cell'):0{_HASH_BITS}b}"
