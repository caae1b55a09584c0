"""What stands in headers, from any server: parsed exactly, or not at all."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from peerd.origin.ranges import (
    LENGTH_MAX_BYTES,
    ContentRange,
    Unsatisfiable,
    parse_content_range,
    parse_length,
    parse_range,
    range_value,
)
from peerd.origin.validators import (
    DATE_MARGIN_S,
    http_date,
    retry_after_s,
    same_version,
    strong_validator,
)

POSITIONS = st.integers(0, LENGTH_MAX_BYTES)
HEADERISH = st.text(alphabet="bytes =0123456789-/*,; \t\x00é", max_size=60)


@given(POSITIONS, POSITIONS, POSITIONS | st.none())
def test_a_content_range_is_read_as_it_was_written(a: int, b: int, total: int | None) -> None:
    text = f"bytes {a}-{b}/{'*' if total is None else total}"
    possible = a <= b and (total is None or b < total)
    assert parse_content_range(text) == (ContentRange(a, b, total) if possible else None)


@given(POSITIONS)
def test_an_unsatisfied_range_says_the_total(total: int) -> None:
    assert parse_content_range(f"bytes */{total}") == ContentRange(None, None, total)


@given(HEADERISH | st.text())
def test_no_header_makes_a_parser_raise_or_lie(text: str) -> None:
    said = parse_content_range(text)
    if said is not None and said.first_byte is not None and said.last_byte is not None:
        assert 0 <= said.first_byte <= said.last_byte <= LENGTH_MAX_BYTES
        assert said.total_bytes is None or said.last_byte < said.total_bytes
    length = parse_length(text)
    assert length is None or 0 <= length <= LENGTH_MAX_BYTES
    span = parse_range(text, 1000)
    if span is not None and not isinstance(span, Unsatisfiable):
        assert 0 <= span[0] <= span[1] < 1000
    wait_s = retry_after_s(text, 0.0)
    assert wait_s is None or wait_s >= 0.0
    strong_validator({"etag": text, "last-modified": text, "date": text})


@given(st.integers(0, 2000), st.none() | st.integers(0, 2000), st.integers(0, 1500))
def test_a_range_is_asked_for_and_understood(first: int, more: int | None, length: int) -> None:
    last = None if more is None else first + more
    span = parse_range(range_value(first, last), length)
    if first >= length:
        assert isinstance(span, Unsatisfiable)
    else:
        assert span == (first, min(length - 1, length - 1 if last is None else last))


@given(st.integers(0, 2000), st.integers(0, 1500))
def test_a_suffix_is_the_end(suffix: int, length: int) -> None:
    span = parse_range(f"bytes=-{suffix}", length)
    if suffix == 0 or length == 0:
        assert isinstance(span, Unsatisfiable)
    else:
        assert span == (max(0, length - suffix), length - 1)


def test_lengths_beyond_all_content_are_none() -> None:
    assert parse_length(str(LENGTH_MAX_BYTES)) == LENGTH_MAX_BYTES
    for text in (str(LENGTH_MAX_BYTES + 1), "9" * 5000, "-1", "+1", "0x10", "1_0", "", "٣"):
        assert parse_length(text) is None


@given(st.integers(0, 4_000_000_000), st.integers(0, 4_000_000_000))
def test_retry_after_is_a_number_or_a_date(now: int, at: int) -> None:
    assert retry_after_s(str(at), now) == float(at)
    assert retry_after_s(formatdate(at, usegmt=True), now) == max(0.0, float(at - now))


def test_the_three_dates_of_http() -> None:
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ):
        assert http_date(text) == 784111777.0
    for text in ("", "yesterday", "Sun, 99 Nov 1994 08:49:37 GMT " * 3, "99999999999 Nov 1994"):
        assert http_date(text) is None


@given(st.integers(0, 4_000_000_000), st.integers(-100, 200))
def test_a_date_is_a_validator_only_long_after(modified: int, later_s: int) -> None:
    headers = {"last-modified": formatdate(modified, usegmt=True)}
    assert strong_validator(headers) is None
    headers["date"] = formatdate(max(0, modified + later_s), usegmt=True)
    strong = max(0, modified + later_s) - modified >= DATE_MARGIN_S
    assert strong_validator(headers) == (headers["last-modified"] if strong else None)


def test_which_tags_are_validators() -> None:
    assert strong_validator({"etag": '"a"'}) == '"a"'
    for weak in ('W/"a"', "a", '"a', '"a"b"', '"a", "b"', '"' + "x" * 2000 + '"', '"a\r\nb"', ""):
        assert strong_validator({"etag": weak}) is None


def test_an_answer_may_say_nothing_of_its_version() -> None:
    assert same_version({}, '"a"') is None
    assert same_version({"etag": '"a"'}, '"a"') is True
    assert same_version({"etag": 'W/"a"'}, '"a"') is False
    assert same_version({"etag": '"a"'}, "Sun, 06 Nov 1994 08:49:37 GMT") is None
