"""How many parents have each piece, counted for all pieces at once.

Always: the count of piece i is the number whose binary digits are bit i of each plane, the lowest
first, and one more if bit i of `_new` is set; adding or taking away a whole bitmap, and finding the
rarest of a set, cost a few operations on integers as long as the bitmap, whatever is in it. (A
bit-sliced counter: Warren, «Hacker's Delight», 2nd ed., section 5-1.) Most that is added is one
piece, and counts are asked for more seldom: `_new` gathers, and goes into the planes at once.
"""

from __future__ import annotations


class Rarity:
    """Counts for any number of pieces."""

    def __init__(self) -> None:
        self._planes: list[int] = []
        self._new = 0

    def add(self, bits: int) -> None:
        """One more has these pieces."""
        if self._new & bits:
            self._settle()
        self._new |= bits

    def _settle(self) -> None:
        bits, self._new = self._new, 0
        for number, plane in enumerate(self._planes):
            if not bits:
                return
            self._planes[number], bits = plane ^ bits, plane & bits
        if bits:
            self._planes.append(bits)

    def take(self, bits: int) -> None:
        """One fewer has these pieces; each was counted before."""
        self._settle()
        for number, plane in enumerate(self._planes):
            if not bits:
                return
            self._planes[number], bits = plane ^ bits, ~plane & bits
        assert not bits, "fewer than none have a piece"

    def cut(self, count: int) -> None:
        """There are no pieces beyond `count`."""
        self._settle()
        mask = (1 << count) - 1
        self._planes = [plane & mask for plane in self._planes]

    def of(self, index: int) -> int:
        self._settle()
        return sum((plane >> index & 1) << number for number, plane in enumerate(self._planes))

    def rarest(self, bits: int) -> int:
        """Those of a set that the fewest have."""
        self._settle()
        for plane in reversed(self._planes):
            rarer = bits & ~plane
            if rarer:
                bits = rarer
        return bits

    def single(self, bits: int) -> int:
        """Those of a set that nobody has."""
        bits &= ~self._new
        for plane in self._planes:
            bits &= ~plane
        return bits
