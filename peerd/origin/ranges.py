"""Range and Content-Range as RFC 9110, section 14 writes them.

Always: a parser returns None for what it does not understand, and never raises; no number above
LENGTH_MAX_BYTES leaves this module.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LENGTH_MAX_BYTES = (1 << 50) - 1
"""1 PiB: what a length on our own wires may be (codec.WireLength)."""

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,16})-([0-9]{1,16})|\*)/([0-9]{1,16}|\*)", re.I)
_RANGE = re.compile(r"bytes=\s*([0-9]{0,16})\s*-\s*([0-9]{0,16})\s*", re.I)
_LENGTH = re.compile(r"[0-9]{1,16}")


class ContentRange(NamedTuple):
    """`bytes first-last/total`; first and last are None for `bytes */total`, total for `/*`."""

    first_byte: int | None
    last_byte: int | None
    total_bytes: int | None


class Unsatisfiable(NamedTuple):
    """A range that begins at or after the end of the content: answer 416."""


def parse_content_range(text: str) -> ContentRange | None:
    """What a server says it sends; None where that is no byte range, or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, total = (None if part in (None, "*") else int(part) for part in match.groups())
    if max(first or 0, last or 0, total or 0) > LENGTH_MAX_BYTES:
        return None
    if first is None or last is None:
        return ContentRange(None, None, total) if total is not None else None
    if last < first or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)


def parse_length(text: str) -> int | None:
    """A Content-Length."""
    text = text.strip()
    if _LENGTH.fullmatch(text) is None:
        return None
    length = int(text)
    return length if length <= LENGTH_MAX_BYTES else None


def range_value(first_byte: int, last_byte: int | None) -> str:
    """The Range header that asks for these bytes, inclusive; without `last_byte` to the end."""
    return f"bytes={first_byte}-" if last_byte is None else f"bytes={first_byte}-{last_byte}"


def parse_range(text: str, length_bytes: int) -> tuple[int, int] | Unsatisfiable | None:
    """The one range a client asks for, cut to the content; None: ignore the header, send it all."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        return None
    if match[1] == "":
        suffix = int(match[2])
        if suffix == 0 or length_bytes == 0:
            return Unsatisfiable()
        return max(0, length_bytes - suffix), length_bytes - 1
    first = int(match[1])
    last = int(match[2]) if match[2] else length_bytes - 1
    if match[2] and last < first:
        return None
    if first >= length_bytes:
        return Unsatisfiable()
    return first, min(last, length_bytes - 1)
