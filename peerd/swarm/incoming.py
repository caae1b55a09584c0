"""Pieces on their way in: parts are hashed as they come, and written once, when all is right.

Always: a piece that was not requested from that peer is not kept; nothing is written before its
digest fits an attestation whose signature is right. `feed` runs in worker threads, one at a time
for each peer, beside the event loop: every access to a table is one step that neither can tear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import blake3

from peerd.errors import NoSpace, RemoteProtocolError
from peerd.ids import PeerId, PieceIndex, VersionId
from peerd.manifest import Attestation
from peerd.swarm.ports import StoredVersion
from peerd.units import MIB

UNASKED_MAX_BYTES: Final = 256 * MIB
"""Bytes a peer may send that were cancelled meanwhile, before its link is closed; a right piece
makes up for as many."""

Key = tuple[PeerId, VersionId, int]


@dataclass(frozen=True)
class Arrived:
    """A piece is written and right, but not yet in the journal."""

    stored: StoredVersion
    peer: PeerId
    attestation: Attestation
    size_bytes: int


@dataclass(frozen=True)
class Spoilt:
    """A piece is wrong (`words` say how), or could not be written (`error`).

    `blame`: the sender must have known.
    """

    stored: StoredVersion
    peer: PeerId
    index: PieceIndex
    words: str
    blame: bool = True
    error: Exception | None = None


Outcome = Arrived | Spoilt


@dataclass
class _Incoming:
    stored: StoredVersion
    distrusted: Callable[[PeerId], bool]
    parts: list[memoryview] = field(default_factory=list)
    taken_bytes: int = 0
    attestation: Attestation | None = None
    hasher: Any = None


class Inbound:
    """All pieces requested from all peers."""

    def __init__(self) -> None:
        self._pieces: dict[Key, _Incoming] = {}
        self._unasked: dict[PeerId, int] = {}
        self.received_bytes: dict[PeerId, int] = {}

    def expect(
        self,
        peer: PeerId,
        stored: StoredVersion,
        indices: tuple[int, ...],
        distrusted: Callable[[PeerId], bool],
    ) -> None:
        for index in indices:
            self._pieces[peer, stored.info.version, index] = _Incoming(stored, distrusted)

    def forget(self, peer: PeerId, version: VersionId, indices: tuple[int, ...]) -> None:
        for index in indices:
            self._pieces.pop((peer, version, index), None)

    def forget_version(self, version: VersionId) -> None:
        self._forget(lambda key: key[1] == version)

    def peer_gone(self, peer: PeerId) -> None:
        self._forget(lambda key: key[0] == peer)
        self._unasked.pop(peer, None)
        self.received_bytes.pop(peer, None)

    def _forget(self, unwanted: Callable[[Key], bool]) -> None:
        """Over a copy: a worker may take a piece out meanwhile."""
        for key in list(self._pieces):
            if unwanted(key):
                self._pieces.pop(key, None)

    def feed(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        offset_bytes: int,
        attestation: Attestation | None,
        data: memoryview,
    ) -> Outcome | None:
        """In a worker thread: the outcome once the piece is whole or spoilt."""
        key = peer, version, index
        incoming = self._pieces.get(key)
        if incoming is not None and offset_bytes == 0 and incoming.taken_bytes:
            incoming = self._anew(key, incoming)
        if incoming is None or offset_bytes != incoming.taken_bytes:
            # The rest of a piece that was cancelled and asked for again: it comes whole later.
            self._unexpected(peer, len(data))
            return None
        self.received_bytes[peer] = self.received_bytes.get(peer, 0) + len(data)
        outcome: Outcome | None
        try:
            outcome = _take(incoming, peer, index, size_bytes, attestation, data)
        except ValueError as error:  # The content became shorter meanwhile.
            outcome = Spoilt(incoming.stored, peer, index, str(error), blame=False)
        if outcome is not None and self._pieces.get(key) is incoming:
            self._pieces.pop(key, None)
        if isinstance(outcome, Arrived):
            self._unasked[peer] = max(0, self._unasked.get(peer, 0) - size_bytes)
        return outcome

    def _anew(self, key: Key, before: _Incoming) -> _Incoming | None:
        """A piece begins again: what came of it is forgotten, and counts as unasked for."""
        self._unexpected(key[0], before.taken_bytes)
        if key not in self._pieces:
            return None
        fresh = self._pieces[key] = _Incoming(before.stored, before.distrusted)
        return fresh

    def _unexpected(self, peer: PeerId, size_bytes: int) -> None:
        total = self._unasked[peer] = self._unasked.get(peer, 0) + size_bytes
        if total > UNASKED_MAX_BYTES:
            raise RemoteProtocolError(f"{peer} sent {total} bytes that nobody asked for")


def _take(
    incoming: _Incoming,
    peer: PeerId,
    index: PieceIndex,
    size_bytes: int,
    attestation: Attestation | None,
    data: memoryview,
) -> Outcome | None:
    stored = incoming.stored
    if attestation is not None and incoming.distrusted(attestation.attester):
        words = f"piece {index} is attested by {attestation.attester}, who vouched for wrong bytes"
        return Spoilt(stored, peer, index, words, blame=False)
    unfit = _unfit(incoming, size_bytes, len(data), attestation, index)
    if unfit:
        return Spoilt(stored, peer, index, unfit)
    if incoming.hasher is None:
        incoming.hasher = blake3.blake3()
    incoming.hasher.update(data)
    incoming.parts.append(data)
    incoming.taken_bytes += len(data)
    if incoming.taken_bytes < size_bytes:
        return None
    attested = incoming.attestation
    assert attested is not None, "checked with the first part"
    if incoming.hasher.digest() != attested.digest:
        return Spoilt(stored, peer, index, f"piece {index} does not have its attested digest")
    try:
        stored.write(index, incoming.parts)
    except (NoSpace, OSError) as error:
        return Spoilt(stored, peer, index, str(error), blame=False, error=error)
    return Arrived(stored, peer, attested, size_bytes)


def _unfit(
    incoming: _Incoming,
    size_bytes: int,
    part_bytes: int,
    attestation: Attestation | None,
    index: PieceIndex,
) -> str | None:
    """Why this part cannot be taken, in words; None if it can."""
    info = incoming.stored.info
    size = info.span(index)[1]
    if info.length_bytes is not None and size_bytes != size:
        return f"piece {index} of {size_bytes} bytes, it has {size}"
    if size_bytes > size or incoming.taken_bytes + part_bytes > size_bytes:
        return f"piece {index} is longer than it is said to be"
    if incoming.taken_bytes == 0:
        return _attested(incoming, attestation, index)
    return None


def _attested(
    incoming: _Incoming, attestation: Attestation | None, index: PieceIndex
) -> str | None:
    info = incoming.stored.info
    if attestation is None or attestation.index != index or attestation.version != info.version:
        return f"piece {index} without an attestation of its own"
    try:
        incoming.attestation = attestation.verified()
    except RemoteProtocolError as error:
        return str(error)
    return None
