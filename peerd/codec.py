"""msgpack to and from typed values; every byte from outside comes in through `decode`.

Always: what `decode` returns has the type that was asked for, within the bounds its fields state;
anything else is RemoteProtocolError. Encoding is deterministic, so it may be signed.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, TaskId, VersionId

Value = TypeVar("Value")

MESSAGE_MAX_BYTES = 256 * 1024
"""No control message is larger: a bitmap of 2 million pieces, or 1,000 roster entries."""

WirePeerId = Annotated[PeerId, msgspec.Meta(pattern=r"^[1-9A-HJ-NP-Za-km-z]{32,64}\Z")]
WireTaskId = Annotated[TaskId, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
WireVersionId = Annotated[VersionId, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
WireIndex = Annotated[int, msgspec.Meta(ge=0, lt=1 << 22)]
WireDigest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
WireSignature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
WireWords = Annotated[str, msgspec.Meta(max_length=512)]
WireAddress = Annotated[str, msgspec.Meta(max_length=255)]
WireUrl = Annotated[str, msgspec.Meta(max_length=8192)]
WireLength = Annotated[int, msgspec.Meta(ge=0, lt=1 << 50)]
WireCount = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
WireTerm = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
WireSeconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
WireBitmap = Annotated[bytes, msgspec.Meta(max_length=1 << 18)]

Decoder = msgspec.msgpack.Decoder

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(value: Any) -> bytes:
    """The msgpack bytes of a value; the same value always gives the same bytes."""
    return _encoder.encode(value)


def decode(
    data: bytes | memoryview, kind: type[Value] | Any, *, max_bytes: int = MESSAGE_MAX_BYTES
) -> Any:
    """The value of type `kind` that `data` encodes; RemoteProtocolError if it is anything else."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = Decoder(kind)
    return decode_by(decoder, data, max_bytes=max_bytes)


def decode_by(
    decoder: Decoder[Any], data: bytes | memoryview, *, max_bytes: int = MESSAGE_MAX_BYTES
) -> Any:
    """The same, for who decodes much: a union of many types takes longer to find than a message
    takes to decode."""
    if len(data) > max_bytes:
        raise RemoteProtocolError(f"message of {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise RemoteProtocolError(f"message does not decode: {error}") from error
