"""How many strangers may stand in the door at once.

Always: at most PENDING_MAX handshakes run, at most PENDING_PER_HOST_MAX from one address; a
newcomer pushes out the oldest (of its own address, if that one is full). So who opens sockets and
says nothing pushes out its own, and an honest handshake, which takes 10 ms, gets through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

PENDING_MAX = 64
PENDING_PER_HOST_MAX = 16
"""As many as a link's door has (design.md, section 5)."""


class Doorway:
    """`standing(address)` is held for the length of a handshake; it is cancelled if pushed out."""

    def __init__(self) -> None:
        self._pending: dict[trio.CancelScope, str] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @contextmanager
    def standing(self, address: str) -> Iterator[trio.CancelScope]:
        self._make_room(address)
        with trio.CancelScope() as scope:
            self._pending[scope] = address
            try:
                yield scope
            finally:
                self._pending.pop(scope, None)

    def _make_room(self, address: str) -> None:
        same = [scope for scope, other in self._pending.items() if other == address]
        oldest = None
        if len(same) >= PENDING_PER_HOST_MAX:
            oldest = same[0]
        elif len(self._pending) >= PENDING_MAX:
            oldest = next(iter(self._pending))
        if oldest is not None:
            del self._pending[oldest]
            oldest.cancel()
