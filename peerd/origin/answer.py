"""What was asked of an origin, and what its answer means.

Always: an answer that does not fit what was asked is an error here, before any byte of its body is
used: the caller gets the bytes it asked for, or the whole content from byte 0, or no bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from peerd.errors import (
    OriginBusy,
    OriginChanged,
    OriginNotFound,
    OriginProtocolError,
    OriginRefused,
)
from peerd.origin.facts import OriginFacts
from peerd.origin.ranges import parse_content_range, parse_length, range_value
from peerd.origin.validators import is_etag, retry_after_s, same_version, strong_validator

Headers = Mapping[str, str]


class Want(Struct, frozen=True):
    """The parameters of `Origin.open`."""

    first_byte: int = 0
    last_byte: int | None = None
    expect: OriginFacts | None = None
    unless: str | None = None

    @property
    def ranged(self) -> bool:
        return self.last_byte is not None or self.first_byte > 0

    @property
    def pinned(self) -> str | None:
        """The validator without which the origin is to send nothing; None: whatever it has."""
        if not self.ranged or self.unless is not None or self.expect is None:
            return None
        return self.expect.validator

    def whole(self) -> Want:
        """The same without a range."""
        return msgspec.structs.replace(self, first_byte=0, last_byte=None)

    def headers(self) -> list[tuple[str, str]]:
        """The request headers that say this."""
        found: list[tuple[str, str]] = []
        if self.ranged:
            found.append(("range", range_value(self.first_byte, self.last_byte)))
        if self.unless is not None:
            name = "if-none-match" if is_etag(self.unless) else "if-modified-since"
            found.append((name, self.unless))
        elif self.pinned is not None:
            found.append(("if-range", self.pinned))
            # Else who has another version by now sends all of that, and to each reader much is on
            # its way before the answer is refused here.
            name = "if-match" if is_etag(self.pinned) else "if-unmodified-since"
            found.append((name, self.pinned))
        return found


class Plan(Struct, frozen=True):
    """The body that follows: `size_bytes` None where only its end will tell."""

    facts: OriginFacts
    size_bytes: int | None


class AskWhole(Exception):
    """The origin refuses a range that begins at byte 0: some do for empty content. Ask without."""


def judge(want: Want, status: int, headers: Headers, label: str, now_wall_s: float) -> Plan:
    """The body to read; else the error that says who must act. Redirects are not judged here."""
    match status:
        case 206 if want.ranged:
            plan = _part(want, headers, label)
        case 200:
            plan = _all(want, headers, label)
        case 304 if want.unless is not None:
            return Plan(OriginFacts(None, want.unless, False, 0, not_modified=True), 0)
        case 412 if want.pinned is not None:
            raise _changed(label)
        case 416 if want.ranged:
            plan = _unsatisfiable(want, headers, label)
        case _:
            raise _refusal(status, headers, label, now_wall_s)
    _compare(want, plan.facts, headers, label, whole=status == 200)
    return plan


def _part(want: Want, headers: Headers, label: str) -> Plan:
    said = parse_content_range(headers.get("content-range", ""))
    if said is None or said.first_byte is None or said.last_byte is None:
        raise OriginProtocolError(f"{label} answers 206 without saying which bytes; report it")
    size = said.last_byte - said.first_byte + 1
    ends = [byte for byte in (want.last_byte, _last(said.total_bytes)) if byte is not None]
    right_end = said.last_byte == min(ends) if ends else True
    if said.total_bytes is None and want.last_byte is not None:
        right_end = said.last_byte <= want.last_byte  # The tail of content of unknown length.
    if said.first_byte != want.first_byte or not right_end:
        raise OriginProtocolError(
            f"{label} was asked for {range_value(want.first_byte, want.last_byte)} and sends "
            f"{headers['content-range'][:80]!r}; report it to who runs it"
        )
    if "content-length" in headers and parse_length(headers["content-length"]) != size:
        raise OriginProtocolError(
            f"{label} answers with a range of {size} bytes and a Content-Length of "
            f"{headers['content-length'][:20]!r}; report it to who runs it"
        )
    facts = OriginFacts(said.total_bytes, strong_validator(headers), True, want.first_byte)
    return Plan(facts, size)


def _all(want: Want, headers: Headers, label: str) -> Plan:
    length = None
    if "content-length" in headers and "transfer-encoding" not in headers:
        length = parse_length(headers["content-length"])
        if length is None:
            raise OriginProtocolError(
                f"{label} gives a length that is none: {headers['content-length'][:40]!r}"
            )
    units = [unit.strip().lower() for unit in headers.get("accept-ranges", "").split(",")]
    ranged = "bytes" in units and not want.ranged
    return Plan(OriginFacts(length, strong_validator(headers), ranged, 0), length)


def _unsatisfiable(want: Want, headers: Headers, label: str) -> Plan:
    said = parse_content_range(headers.get("content-range", ""))
    total = None if said is None else said.total_bytes
    if want.first_byte == 0:
        if total == 0:
            return Plan(OriginFacts(0, strong_validator(headers), True, 0), 0)
        raise AskWhole
    if total == want.first_byte and want.expect is not None and want.expect.length_bytes is None:
        return Plan(OriginFacts(total, strong_validator(headers), True, total), 0)  # It ends here.
    if total is not None and total > want.first_byte:
        raise OriginProtocolError(
            f"{label} has {total} bytes and refuses those from {want.first_byte}; report it"
        )
    words = "ends before" if total is None else f"has only {total} bytes, which is before"
    raise OriginChanged(f"{label} {words} byte {want.first_byte}; start the download again")


def _refusal(status: int, headers: Headers, label: str, now_wall_s: float) -> Exception:
    if status in (404, 410):
        return OriginNotFound(f"{label} is not there ({status}); check the URL")
    if status == 407:
        return OriginRefused("the proxy asks for credentials (407); put them in its URL")
    if status in (401, 403):
        return OriginRefused(
            f"{label} refuses access ({status}); give credentials with -H 'Authorization: …'"
        )
    if status in (408, 429) or status >= 500:
        busy = OriginBusy(f"{label} is busy or broken (it answers {status}); try again later")
        busy.retry_after_s = retry_after_s(headers.get("retry-after", ""), now_wall_s)
        return busy
    return OriginProtocolError(f"{label} answers {status}, which is no content; check the URL")


def _compare(want: Want, facts: OriginFacts, headers: Headers, label: str, *, whole: bool) -> None:
    """OriginChanged unless the answer is of the expected version.

    A 206 that names no validator is right all the same: If-Range was sent with it. A 200 that
    names none is not: it is what an origin answers when If-Range did not fit.
    """
    if want.expect is None:
        return
    expected = want.expect.validator
    if expected is not None:
        same = same_version(headers, expected)
        if same is False or (same is None and whole):
            raise _changed(label)
    lengths = (want.expect.length_bytes, facts.length_bytes)
    if None not in lengths and lengths[0] != lengths[1]:
        raise _changed(label)


def _changed(label: str) -> OriginChanged:
    return OriginChanged(f"{label} has changed since the download began; start it again")


def _last(total_bytes: int | None) -> int | None:
    return None if total_bytes is None else total_bytes - 1
