"""A version of a task's content, its piece digests, and who vouches for each.

Always: a VersionInfo and an Attestation are worth something only after `verified`; a version id
follows from what pins the version, so that two who resolve the same content give it the same id,
and two who say different things of it never mean one version.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from peerd import signing
from peerd.codec import (
    WireDigest,
    WireIndex,
    WireLength,
    WirePeerId,
    WireSignature,
    WireTaskId,
    WireVersionId,
    encode,
)
from peerd.errors import RemoteProtocolError
from peerd.ids import PieceIndex, TaskId, VersionId
from peerd.pieces import (
    PIECE_COUNT_MAX,
    PIECE_LENGTH_MAX_BYTES,
    PIECE_LENGTH_UNKNOWN_BYTES,
    PieceSet,
    piece_count,
    piece_length_for,
    piece_span,
)
from peerd.signing import SigningKey

WirePieceLength = Annotated[int, Meta(ge=1, le=PIECE_LENGTH_MAX_BYTES)]
WireValidator = Annotated[str, Meta(max_length=1024)]
ContentDigest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class VersionInfo(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One state of a task's content, as the member that resolved it vouches.

    `length_bytes` is None until the end of content of unknown length was read. `validator` is what
    If-Range takes (a strong ETag or an HTTP date); content with a `digest` has none: it may come
    from many origins, each with a validator of its own. `ranged`: extents of it can be read in
    parallel.
    """

    task: WireTaskId
    version: WireVersionId
    length_bytes: WireLength | None
    piece_length_bytes: WirePieceLength
    validator: WireValidator | None
    ranged: bool
    digest: ContentDigest | None
    attester: WirePeerId
    signature: WireSignature

    @property
    def piece_count(self) -> int | None:
        if self.length_bytes is None:
            return None
        return piece_count(self.length_bytes, self.piece_length_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """(offset, size in bytes) of a piece; without a length every piece is a full one."""
        if self.length_bytes is None:
            return index * self.piece_length_bytes, self.piece_length_bytes
        return piece_span(index, self.length_bytes, self.piece_length_bytes)

    def bytes_of(self, held: PieceSet) -> int:
        """The bytes in these pieces; the last one may be short."""
        total = len(held) * self.piece_length_bytes
        count = self.piece_count
        if count and self.length_bytes is not None and count - 1 in held:
            total -= count * self.piece_length_bytes - self.length_bytes
        return total

    def signed(self, key: SigningKey) -> VersionInfo:
        own = msgspec.structs.replace(self, attester=key.peer_id)
        return msgspec.structs.replace(own, signature=key.sign("version", own._covered()))

    def verified(self) -> VersionInfo:
        """Itself; RemoteProtocolError where the signature or a field does not fit."""
        if self.piece_count is not None and self.piece_count > PIECE_COUNT_MAX:
            raise RemoteProtocolError(f"a version of {self.piece_count} pieces")
        if not self._says_what_it_is():
            raise RemoteProtocolError(f"version {self.version[:12]} is not what its id pins")
        if not signing.verify(self.attester, "version", self._covered(), self.signature):
            raise RemoteProtocolError(f"{self.attester} did not sign version {self.version[:12]}")
        return self

    def _says_what_it_is(self) -> bool:
        """Whether id and piece length follow from the rest; an id from a nonce is its reader's."""
        unknown = PIECE_LENGTH_UNKNOWN_BYTES
        if self.piece_length_bytes not in (piece_length_for(self.length_bytes), unknown):
            return False
        if self.digest is None and self.validator is None:
            return True
        if self.digest is not None and self.validator is not None:
            return False
        ids = {
            version_id(
                self.task,
                digest=self.digest,
                validator=self.validator,
                length_bytes=length,
                nonce=b"",
            )
            for length in (self.length_bytes, None)  # The id stays when an end is found.
        }
        return self.version in ids

    def _covered(self) -> bytes:
        return encode(msgspec.structs.astuple(self)[:-1])


class Attestation(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`attester` read this piece of this version from the origin, and it had this BLAKE3 digest."""

    version: WireVersionId
    index: WireIndex
    digest: WireDigest
    attester: WirePeerId
    signature: WireSignature

    @classmethod
    def made(
        cls, key: SigningKey, version: VersionId, index: PieceIndex, digest: bytes
    ) -> Attestation:
        covered = encode((version, index, digest, key.peer_id))
        return cls(version, index, digest, key.peer_id, key.sign("attestation", covered))

    def verified(self) -> Attestation:
        """Itself; RemoteProtocolError where the signature does not fit."""
        covered = encode((self.version, self.index, self.digest, self.attester))
        if not signing.verify(self.attester, "attestation", covered, self.signature):
            raise RemoteProtocolError(f"{self.attester} did not sign piece {self.index}")
        return self


def version_id(
    task: TaskId,
    *,
    digest: str | None,
    validator: str | None,
    length_bytes: int | None,
    nonce: bytes,
) -> VersionId:
    """By digest and length; else by validator and length; else by a nonce of the reader."""
    if digest is not None:
        pin: tuple[object, ...] = ("digest", digest, length_bytes)
    elif validator is not None:
        pin = ("validator", validator, length_bytes)
    else:
        pin = ("nonce", nonce)
    return VersionId(hashlib.sha256(b"peerd/version\0" + encode((task, *pin))).hexdigest())
