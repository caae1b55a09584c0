"""The frames of a link: their keys, how they are sealed and opened in place, and what is in them.

Always: a frame is a 4-byte length in clear, which the seal covers, and AES-256-GCM ciphertext of 1
type byte and a body; the nonce is the number of the frame in its direction and is never sent; what
`open_frame` returns was sealed by the other side, whole and in order, or it is RemoteProtocolError.
docs/protocol.md has every byte; docs/adr/0004 the reasons.
"""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from msgspec import Struct

from peerd.codec import MESSAGE_MAX_BYTES, decode, encode
from peerd.errors import RemoteProtocolError
from peerd.ids import PieceIndex, VersionId
from peerd.link.messages import Message, decode_message
from peerd.manifest import Attestation
from peerd.pieces import PIECE_COUNT_MAX, PIECE_LENGTH_MAX_BYTES
from peerd.units import KIB, MIB

LINK_PROTOCOL: Final = 1
"""Version of handshake and frames; that of the messages in them is ids.WIRE_VERSION."""
SECRET_BYTES: Final = 32
LENGTH_BYTES: Final = 4
TAG_BYTES: Final = 16
SEAL_BYTES: Final = LENGTH_BYTES + TAG_BYTES
"""What sealing adds to a plaintext."""
DATA_MAX_BYTES: Final = MIB
"""Piece data in one frame (docs/design.md, 5)."""
ATTESTATION_MAX_BYTES: Final = 512
"""Twice what an attestation takes with the longest peer id allowed."""
PLAINTEXT_MAX_BYTES: Final = DATA_MAX_BYTES + KIB
FRAMES_PER_KEY: Final = 1 << 16
"""Frames of at most 1 MiB: a key ends after 64 GiB at the latest (docs/design.md, 5)."""

MESSAGE: Final = 1
PIECE: Final = 2
_LENGTH = struct.Struct(">I")
_PIECE_HEAD = struct.Struct(">B32sIIIH")
PIECE_HEAD_MAX_BYTES: Final = _PIECE_HEAD.size + ATTESTATION_MAX_BYTES
assert PIECE_HEAD_MAX_BYTES <= PLAINTEXT_MAX_BYTES - DATA_MAX_BYTES
assert MESSAGE_MAX_BYTES < PLAINTEXT_MAX_BYTES


# --- keys


class DirectionKey:
    """The key of one direction and the number of the next frame in it.

    Whoever seals or opens calls `next_frame` once a frame, in wire order.
    """

    def __init__(self, key: bytes, frames_per_key: int = FRAMES_PER_KEY) -> None:
        self._key = key
        self._cipher = AESGCM(key)
        self._frames_per_key = frames_per_key
        self.counter = 0

    def next_frame(self) -> tuple[AESGCM, bytes]:
        """Cipher and nonce of the next frame; the key before is forgotten at each ratchet."""
        if self.counter and self.counter % self._frames_per_key == 0:
            self._key = ratcheted(self._key)
            self._cipher = AESGCM(self._key)
        nonce = self.counter.to_bytes(12, "big")
        self.counter += 1
        return self._cipher, nonce


def ratcheted(key: bytes) -> bytes:
    """The key that follows `key`; there is no way back."""
    return HKDFExpand(SHA256(), 32, _info("ratchet")).derive(key)


def direction_keys(
    dialler_secret: bytes, listener_secret: bytes, handshake_hash: bytes
) -> tuple[bytes, bytes]:
    """(what the dialler seals with, what the listener seals with)."""
    both = dialler_secret + listener_secret

    def key(role: str) -> bytes:
        return HKDF(SHA256(), 32, salt=handshake_hash, info=_info(role)).derive(both)

    return key("dialler"), key("listener")


def _info(role: str) -> bytes:
    return f"peerd/link/{LINK_PROTOCOL}/{role}".encode()


# --- sealing


def seal_frame(key: DirectionKey, buffer: memoryview, plaintext_bytes: int) -> int:
    """Seal the plaintext that stands at buffer[4:4+n], in place; returns the frame's size.

    The buffer has room for n + 20 bytes.
    """
    assert 1 <= plaintext_bytes <= PLAINTEXT_MAX_BYTES
    _LENGTH.pack_into(buffer, 0, plaintext_bytes + TAG_BYTES)
    end = LENGTH_BYTES + plaintext_bytes
    cipher, nonce = key.next_frame()
    cipher.encrypt_into(
        nonce, buffer[LENGTH_BYTES:end], buffer[:LENGTH_BYTES], buffer[LENGTH_BYTES : end + 16]
    )
    return end + TAG_BYTES


def frame_bytes(prefix: bytes | bytearray | memoryview) -> int:
    """Size of the frame that begins with these 4 bytes, length included."""
    (sealed,) = _LENGTH.unpack_from(prefix)
    if not 1 + TAG_BYTES <= sealed <= PLAINTEXT_MAX_BYTES + TAG_BYTES:
        raise RemoteProtocolError(f"a frame of {sealed} bytes")
    return LENGTH_BYTES + int(sealed)


def open_frame(key: DirectionKey, frame: memoryview) -> memoryview:
    """The plaintext of one whole frame, in place; the buffer is worthless after an error."""
    if len(frame) < LENGTH_BYTES or frame_bytes(frame[:LENGTH_BYTES]) != len(frame):
        raise RemoteProtocolError("a frame that is not as long as it says")
    plaintext = frame[LENGTH_BYTES:-TAG_BYTES]
    cipher, nonce = key.next_frame()
    try:
        cipher.decrypt_into(nonce, frame[LENGTH_BYTES:], frame[:LENGTH_BYTES], plaintext)
    except InvalidTag:
        raise RemoteProtocolError("a frame was changed on its way, or is not in its turn") from None
    return plaintext


# --- what is in a frame


class PieceFrame(Struct, frozen=True):
    """Part of a piece of `size_bytes`: `data` from `offset_bytes` on; attested in the first."""

    version: VersionId
    index: PieceIndex
    size_bytes: int
    offset_bytes: int
    attestation: Attestation | None
    data: memoryview

    @property
    def ends_piece(self) -> bool:
        return self.offset_bytes + len(self.data) == self.size_bytes


def message_frame(key: DirectionKey, encoded: bytes) -> bytearray:
    """One whole sealed frame of an encoded message."""
    frame = bytearray(len(encoded) + 1 + SEAL_BYTES)
    frame[LENGTH_BYTES] = MESSAGE
    frame[LENGTH_BYTES + 1 : -TAG_BYTES] = encoded
    with memoryview(frame) as view:
        seal_frame(key, view, len(encoded) + 1)
    return frame


def write_piece_head(
    buffer: memoryview,
    version: bytes,
    index: int,
    size_bytes: int,
    offset_bytes: int,
    attestation: bytes,
) -> int:
    """Type byte and header at the start of a plaintext; returns where the data goes."""
    _PIECE_HEAD.pack_into(
        buffer, 0, PIECE, version, index, size_bytes, offset_bytes, len(attestation)
    )
    end = _PIECE_HEAD.size + len(attestation)
    buffer[_PIECE_HEAD.size : end] = attestation
    return end


def encode_attestation(attestation: Attestation) -> bytes:
    encoded = encode(attestation)
    assert len(encoded) <= ATTESTATION_MAX_BYTES
    return encoded


def parse_plaintext(plaintext: memoryview) -> Message | PieceFrame:
    """What a frame carries, within all bounds that can be checked without the frames before."""
    match plaintext[0]:
        case 1:
            return decode_message(plaintext[1:])
        case 2:
            return _parse_piece(plaintext)
        case kind:
            raise RemoteProtocolError(f"a frame of type {kind}")


def _parse_piece(plaintext: memoryview) -> PieceFrame:
    if len(plaintext) <= _PIECE_HEAD.size:
        raise RemoteProtocolError("a piece frame without data")
    _, version, index, size, offset, attested = _PIECE_HEAD.unpack_from(plaintext)
    start = _PIECE_HEAD.size + attested
    data = plaintext[start:].toreadonly()
    if index >= PIECE_COUNT_MAX or not 1 <= size <= PIECE_LENGTH_MAX_BYTES:
        raise RemoteProtocolError(f"piece {index} of {size} bytes")
    if not 1 <= len(data) <= DATA_MAX_BYTES or offset + len(data) > size:
        raise RemoteProtocolError(f"{len(data)} bytes at {offset} of a piece of {size}")
    if bool(attested) != (offset == 0) or attested > ATTESTATION_MAX_BYTES:
        raise RemoteProtocolError("a piece is attested in its first frame, and only there")
    version_id = VersionId(version.hex())
    attestation: Attestation | None = None
    if attested:
        attestation = decode(plaintext[_PIECE_HEAD.size : start], Attestation)
        if attestation.version != version_id or attestation.index != index:
            raise RemoteProtocolError(f"piece {index} comes with another's attestation")
    return PieceFrame(version_id, PieceIndex(index), size, offset, attestation, data)


class PieceOrder:
    """The parts of a piece follow each other; a new piece may begin before the last has ended."""

    def __init__(self) -> None:
        self._expected: tuple[VersionId, PieceIndex, int, int] | None = None

    def check(self, frame: PieceFrame) -> None:
        """RemoteProtocolError where `frame` neither begins a piece nor goes on where it stood."""
        here = (frame.version, frame.index, frame.size_bytes, frame.offset_bytes)
        if frame.offset_bytes != 0 and here != self._expected:
            raise RemoteProtocolError(f"part of piece {frame.index} out of its order")
        end = frame.offset_bytes + len(frame.data)
        here = (frame.version, frame.index, frame.size_bytes, end)
        self._expected = None if frame.ends_piece else here
