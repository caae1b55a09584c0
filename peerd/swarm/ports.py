"""What one download needs from its neighbours. Each has an in-memory twin and a conformance suite.

Always: a port speaks in our values and raises our errors; sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link.messages import Message
from peerd.link.ports import PieceSource
from peerd.manifest import Attestation, VersionInfo
from peerd.origin.facts import OriginFacts as OriginFacts
from peerd.pieces import PieceSet
from peerd.scheduler.ports import SwarmMember
from peerd.task import Ask


class StoredVersion(Protocol):
    """One version of a content in the store: pieces in place, a journal that acknowledges."""

    @property
    def info(self) -> VersionInfo: ...

    @property
    def held(self) -> PieceSet:
        """Acknowledged pieces (a copy). Suspect ones are in it until `check` found them damaged."""
        ...

    @property
    def complete(self) -> bool:
        """`finish` was called: every piece held and the whole digest, where known, was right."""
        ...

    def write(self, index: PieceIndex, parts: Sequence[memoryview]) -> None:
        """Blocking, for worker threads: a verified piece to its place. NoSpace if there is none."""
        ...

    async def acknowledge(self, index: PieceIndex, attestation: Attestation) -> None:
        """Journals a written piece; returns after the commit (grouped within 20 ms).

        It is not held afterwards where it was dropped meanwhile, or where another wrote other
        bytes over it first (two attesters disagree): ask `held`.
        """
        ...

    def attestation(self, index: PieceIndex) -> Attestation | None: ...

    async def check(self, index: PieceIndex) -> bool:
        """Whether a held piece may be used: a suspect one is hashed again first, once per boot.

        False: it was damaged and is held no more.
        """
        ...

    def read_into(self, index: PieceIndex, offset_bytes: int, buffer: memoryview) -> None:
        """Blocking, for worker threads: fills the buffer from a held piece, else OSError."""
        ...

    async def drop(self, indices: Sequence[PieceIndex]) -> None:
        """Forget these pieces: somebody vouched wrongly for them."""
        ...

    async def prove(self) -> None:
        """Checks whatever is suspect; before the whole is used (whole digest, descriptor)."""
        ...

    async def set_info(self, info: VersionInfo) -> None:
        """The same version with its length now known (a signed END), or vouched for anew."""
        ...

    async def finish(self) -> None:
        """Marks the version complete, durably."""
        ...

    def descriptor(self) -> int:
        """A new read-only file descriptor of a complete version; the caller closes it."""
        ...


class PieceStore(Protocol):
    """All that this peer holds."""

    async def create(self, ask: Ask, info: VersionInfo) -> StoredVersion:
        """The stored version of that id, made and preallocated if new; NoSpace if it cannot."""
        ...

    def versions(self, task: TaskId | None = None) -> Sequence[StoredVersion]:
        """All, or a task's, the newest first."""
        ...

    def find(self, version: VersionId) -> StoredVersion | None:
        """By its id."""
        ...

    def asked(self, task: TaskId) -> Ask | None:
        """What was asked for (credentials are not kept)."""
        ...

    def validated_at(self, version: VersionId) -> float:
        """Wall-clock seconds when the origin last confirmed the version; 0.0 if never."""
        ...

    async def set_validated(self, version: VersionId, at_wall_s: float) -> None: ...

    def account(self, version: VersionId) -> bytes:
        """What was kept of how its download went (swarm/account.py); b"" if nothing."""
        ...

    async def set_account(self, version: VersionId, account: bytes) -> None:
        """Kept with the version until it is removed."""
        ...

    async def remove(self, version: VersionId) -> None:
        """Unlinks it. A descriptor that somebody holds goes on working."""
        ...


class OriginBody(Protocol):
    facts: OriginFacts

    async def read(self) -> bytes:
        """Some bytes in order, b"" at the end. A cut is resumed inside where ranges allow it.

        OriginCut, OriginChanged, OriginUnreachable, OriginProtocolError.
        """
        ...


class Origin(Protocol):
    """Back-to-source: one door for all URL schemes."""

    def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AbstractAsyncContextManager[OriginBody]:
        """Bytes [first_byte, last_byte] (inclusive, as in HTTP; None: to the end).

        A ranged GET is sent when `last_byte` is given or `first_byte` > 0; the origin may answer
        with the whole content (facts.first_byte 0, facts.ranged False). `expect`: OriginChanged if
        the answer is of another version (If-Range with the validator, and the length is compared).
        `unless`: If-None-Match / If-Modified-Since, see facts.not_modified. Retries 429, 5xx and
        refused connections with backoff, a bounded number of times, then raises the Origin* error.
        """
        ...


class Links(Protocol):
    """Links to other peers, by peer id. A message to oneself is delivered like any other."""

    async def connect(
        self, peer: PeerId, addresses: Sequence[str] = (), through: Sequence[PeerId] = ()
    ) -> None:
        """A link is up when this returns, direct or through a third peer; else PeerUnreachable.

        `through` are peers that are likely to be linked with it.
        """
        ...

    def connected(self, peer: PeerId) -> bool: ...

    def send(self, peer: PeerId, message: Message) -> None:
        """Queues it, never waits; PeerUnreachable where no link is up."""
        ...

    async def send_piece(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        attestation: Attestation,
        source: PieceSource,
    ) -> None:
        """Sends a whole piece; returns when its last frame is with the kernel."""
        ...

    def piece_bytes_sent(self) -> int:
        """How much of all pieces has left over all links so far."""
        ...

    def least_round_trip_s(self, peer: PeerId) -> float | None:
        """The least that the link to it has seen: what the network alone takes."""
        ...

    async def close(self, peer: PeerId, code: str, words: str) -> None: ...


class Keepers(Protocol):
    """Finds the keeper of each task and keeps in touch with it."""

    def join(self, member: SwarmMember) -> None: ...

    def leave(self, task: TaskId) -> None:
        """No more business in it; the keeper is told if one is known."""
        ...

    def let_be(self, task: TaskId) -> None:
        """Nothing more is wanted there, but what its keeper heard that we hold is still true."""
        ...

    def tell(self, task: TaskId, message: Message) -> bool:
        """To the task's keeper; False where none is known now (it is told all on enrolling)."""
        ...

    def term(self, task: TaskId) -> int: ...

    def holds(self, version: VersionInfo) -> None:
        """A complete version is held: register it at keeper and standby, now and after changes."""
        ...

    def dropped(self, task: TaskId) -> None:
        """It is held no more."""
        ...
