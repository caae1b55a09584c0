"""What in an answer's headers names the version it is of, and when to come again.

Always: what `strong_validator` returns can stand in If-Range: two versions never share it. Header
names are lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

VALIDATOR_MAX_CHARS = 1024
"""What our own wires carry (manifest.WireValidator)."""
DATE_MARGIN_S = 60.0
"""RFC 9110, 8.8.2.2: Date and Last-Modified must be far enough apart that differing clocks do not
matter. It asks for one second of the same clock; sixty, its predecessor's figure (RFC 7232, 2.2.2),
also covers a file server's clock that is not the web server's."""

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_SECONDS = re.compile(r"[0-9]{1,10}")


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """A strong ETag, else a Last-Modified that Date makes strong, else None."""
    etag = headers.get("etag", "")
    if _STRONG_ETAG.fullmatch(etag) and len(etag) <= VALIDATOR_MAX_CHARS:
        return etag
    modified_text = headers.get("last-modified", "")
    modified, answered = http_date(modified_text), http_date(headers.get("date", ""))
    if modified is None or answered is None or answered - modified < DATE_MARGIN_S:
        return None
    return modified_text


def is_etag(validator: str) -> bool:
    return validator.startswith(('"', 'W/"'))


def same_version(headers: Mapping[str, str], validator: str) -> bool | None:
    """Whether an answer is of that version; None if it does not say."""
    said = headers.get("etag" if is_etag(validator) else "last-modified")
    return None if said is None else said == validator


def http_date(text: str) -> float | None:
    """Seconds since 1970 from any of HTTP's three date formats."""
    if not 0 < len(text) <= 64:
        return None
    try:
        parsed = parsedate_tz(text)
        return None if parsed is None else float(mktime_tz(parsed))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None  # email.utils lets a few malformed dates through to these.


def retry_after_s(text: str, now_wall_s: float) -> float | None:
    """Seconds from now that a Retry-After asks for, in either of its forms; never negative."""
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    at = http_date(text)
    return None if at is None else max(0.0, at - now_wall_s)
