"""From the bytes that a connection gives to whole sealed frames, without copying large ones.

Always: every byte goes to exactly one frame, in order, however the bytes were cut; memory for a
frame is taken only after its length was found to be allowed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from peerd.errors import RemoteProtocolError
from peerd.link.frames import LENGTH_BYTES, frame_bytes
from peerd.units import KIB

CARRY_BYTES: Final = 4 * KIB
"""What may be read beyond a frame's end: most control messages come whole in it, and copying it is
nothing beside a system call more for each frame."""


class SealedFrame(Struct, frozen=True):
    """A whole frame at the start of a buffer that its taker now owns."""

    buffer: bytearray
    size_bytes: int


class FrameAssembler:
    """Read into `target()`, say how much came with `filled()`, then `take()` until None."""

    def __init__(self, lend: Callable[[int], bytearray] = bytearray) -> None:
        self._lend = lend
        self._carry = bytearray(CARRY_BYTES)
        self._carried = 0
        self._frame: bytearray | None = None
        self._have = 0
        self._need = 0
        self._whole: deque[SealedFrame] = deque()

    def missing(self) -> int:
        """Bytes that the frame under way still lacks; 0 if none is."""
        return self._need - self._have if self._frame is not None else 0

    def target(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._frame is not None:
            return memoryview(self._frame)[self._have : self._need + CARRY_BYTES]
        return memoryview(self._carry)[self._carried :]

    def filled(self, count: int) -> None:
        """So many bytes were read into `target()`; RemoteProtocolError for a wrong length."""
        if self._frame is None:
            self._carried += count
        else:
            self._have += count
            if self._have < self._need:
                return
            self._carried = self._have - self._need
            self._carry[: self._carried] = memoryview(self._frame)[self._need : self._have]
            self._whole.append(SealedFrame(self._frame, self._need))
            self._frame = None
        self._cut()

    def take(self) -> SealedFrame | None:
        return self._whole.popleft() if self._whole else None

    def end(self) -> None:
        """The connection ended; RemoteProtocolError if that is within a frame."""
        if self._frame is not None or self._carried:
            raise RemoteProtocolError("the connection ended within a frame")

    def _cut(self) -> None:
        start = 0
        while self._carried - start >= LENGTH_BYTES:
            need = frame_bytes(self._carry[start : start + LENGTH_BYTES])
            have = self._carried - start
            if have >= need:
                self._whole.append(SealedFrame(self._carry[start : start + need], need))
                start += need
                continue
            if need > CARRY_BYTES:
                self._frame = self._lend(need + CARRY_BYTES)
                self._frame[:have] = self._carry[start : self._carried]
                self._have, self._need = have, need
                start = self._carried
            break
        rest = self._carried - start
        if start and rest:
            self._carry[:rest] = self._carry[start : self._carried]
        self._carried = rest
