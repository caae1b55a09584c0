"""SHA-256 of the whole content, computed along with the download.

Always: what was hashed is the held prefix [0, next piece) as it lies in the store; a piece of it
that is dropped, be it in the middle of being hashed, sets the hash back to the start.
"""

from __future__ import annotations

import hashlib
from typing import Final

import trio

from peerd.ids import PieceIndex
from peerd.swarm.ports import StoredVersion
from peerd.swarm.surroundings import Offload
from peerd.units import MIB

BUFFER_BYTES: Final = 1 * MIB
BATCH_BYTES: Final = 32 * MIB
"""Hashed in one visit to a worker thread; then others get their turn."""


class WholeDigest:
    """Follows one stored version; `run` lives as long as the download."""

    def __init__(self, stored: StoredVersion, offload: Offload) -> None:
        self._stored, self._offload = stored, offload
        self._hash = hashlib.sha256()
        self._next = 0
        self._end = 0
        self._restart = False
        self._more = trio.Event()
        self._idle = trio.Event()

    def advance(self) -> None:
        """More pieces are held."""
        self._more.set()

    def dropped(self, index: PieceIndex) -> None:
        """A held piece is gone; if it was hashed already or is just being, all begins anew."""
        if index < self._end:
            self._restart = True
            self._more.set()

    async def run(self) -> None:
        """Hashes whatever of the prefix is held, for ever. Cancelled: nothing is left behind."""
        while True:
            self._more = trio.Event()
            if self._restart:
                self._hash, self._next, self._restart = hashlib.sha256(), 0, False
            self._end = self._prefix_end()
            try:
                hashed = await self._offload(self._batch, self._end)
            except OSError:
                if all(index in self._stored.held for index in range(self._next, self._end)):
                    raise
                self._restart = True  # Dropped while it was read: not hashed further.
                hashed = True
            if hashed:
                continue
            self._idle.set()
            self._idle = trio.Event()
            await self._more.wait()

    async def result(self) -> str:
        """ "sha256:…" of the whole, once all of it is held and hashed."""
        while self._restart or self._next != self._stored.info.piece_count:
            await self._idle.wait()
        return f"sha256:{self._hash.hexdigest()}"

    def _prefix_end(self) -> int:
        """The first piece from `next` on that is not held, or a batch further.

        Before the length is known, the last piece held may be short: it waits for the next one.
        """
        held = self._stored.held
        if self._stored.info.length_bytes is None and held:
            held.discard(held.end() - 1)
        most = self._next + max(1, BATCH_BYTES // self._stored.info.piece_length_bytes)
        end = self._next
        while end < most and end in held:
            end += 1
        return end

    def _batch(self, end: int) -> bool:
        """In a worker thread: hash pieces [next, end); False if there were none."""
        buffer = memoryview(bytearray(BUFFER_BYTES))
        start = self._next
        for index in range(start, end):
            size = self._stored.info.span(index)[1]
            for offset in range(0, size, BUFFER_BYTES):
                part = buffer[: min(BUFFER_BYTES, size - offset)]
                self._stored.read_into(PieceIndex(index), offset, part)
                self._hash.update(part)
            self._next = index + 1
        return end > start
