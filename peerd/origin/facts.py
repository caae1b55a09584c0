"""What an origin says of its content.

Always: `length_bytes` is the length of the whole content, never of a part; a weak validator is no
validator.
"""

from __future__ import annotations

from msgspec import Struct


class OriginFacts(Struct, frozen=True):
    """What an origin said of its content, beside the bytes.

    `length_bytes` of the whole content, None if it is not known; `validator` only if it is strong
    (an ETag, or a Last-Modified that the answer's Date makes strong: RFC 9110, 8.8); `ranged`: the
    answer was a 206, or the whole content from byte 0 by a server that says Accept-Ranges: bytes;
    `first_byte`: where the body starts; `not_modified`: a 304, there is no body.
    """

    length_bytes: int | None
    validator: str | None
    ranged: bool
    first_byte: int
    not_modified: bool = False
