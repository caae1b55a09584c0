"""Attestations of held pieces, read from the journal in blocks: memory stays small at any content.

Always: what is remembered was committed; a block that was read while something changed is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import trio

from peerd.ids import VersionId
from peerd.manifest import Attestation
from peerd.store.journal import Journal
from peerd.store.rows import ATTESTED, attestation_row

BLOCK_PIECES: Final = 128
BLOCKS_MAX: Final = 128
"""16,384 attestations of about 600 bytes: 10 MB at most."""

Block = dict[int, Attestation]


class Attested:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._blocks: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self._changes = 0

    def get(self, number: int, version: VersionId, index: int) -> Attestation | None:
        """Blocks for one small read where `fetch` did not come first."""
        key = (number, index // BLOCK_PIECES)
        block = self._blocks.get(key)
        if block is None:
            block = self._load(key, version)
            self._keep(key, block)
        return block.get(index)

    async def fetch(self, number: int, version: VersionId, index: int) -> None:
        """Reads the block in a worker thread, so that `get` finds it in memory."""
        key = (number, index // BLOCK_PIECES)
        if key in self._blocks:
            return
        before = self._changes
        block = await trio.to_thread.run_sync(self._load, key, version)
        if before == self._changes:
            self._keep(key, block)

    def remember(self, number: int, made: Attestation) -> None:
        self._changes += 1
        block = self._blocks.get((number, made.index // BLOCK_PIECES))
        if block is not None:
            block[made.index] = made

    def forget(self, number: int, indices: Iterable[int]) -> None:
        self._changes += 1
        for index in indices:
            self._blocks.get((number, index // BLOCK_PIECES), {}).pop(index, None)

    def _keep(self, key: tuple[int, int], block: Block) -> None:
        self._blocks[key] = block
        if len(self._blocks) > BLOCKS_MAX:
            self._blocks.popitem(last=False)

    def _load(self, key: tuple[int, int], version: VersionId) -> Block:
        number, first = key[0], key[1] * BLOCK_PIECES
        rows = self._journal.rows(ATTESTED, (number, first, first + BLOCK_PIECES))
        return {row[0]: attestation_row(version, row) for row in rows}
