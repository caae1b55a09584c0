"""Rendezvous order, token buckets, units and error codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd import units
from peerd.errors import PeerdError, UsageError, error_classes, error_from
from peerd.ids import PeerId
from peerd.rate import TokenBucket
from peerd.rendezvous import ranked

PEERS = [PeerId(f"p{n}") for n in range(40)]


@given(st.permutations(PEERS), st.integers(0, 39))
def test_one_that_leaves_changes_nothing_among_the_others(order: list[PeerId], who: int) -> None:
    before = ranked(order, "task")
    after = ranked([p for p in order if p != PEERS[who]], "task")
    assert [p for p in before if p != PEERS[who]] == after


def test_tasks_spread_over_the_peers() -> None:
    first = [ranked(PEERS, f"task{n}", most=1)[0] for n in range(2000)]
    assert max(first.count(p) for p in PEERS) < 100, "2,000 tasks on 40 peers are 50 each"


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2)), max_size=40))
def test_a_bucket_never_lets_more_through_than_its_rate(uses: list[tuple[int, float]]) -> None:
    bucket, now, let = TokenBucket(1000.0, burst_bytes=500), 0.0, 0
    for amount, pause in uses:
        now += pause
        now += bucket.take(amount, now)
        let += amount
        assert let <= 1000.0 * now + 500 + amount * 1e-6 + 1e-3


def test_a_bucket_without_a_rate_lets_all_through() -> None:
    assert TokenBucket(None).take(1 << 40, 0.0) == 0.0
    with pytest.raises(ValueError, match="more than 0"):
        TokenBucket(0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10", 10), ("10MB", 10_000_000), ("1.5 GiB", 1_610_612_736), ("1MiB/s", 1 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "10 parsecs", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        units.parse_size(text)


def test_durations_and_how_they_read() -> None:
    assert [units.parse_duration(t) for t in ("5", "250ms", "2h")] == [5.0, 0.25, 7200.0]
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration("soon")
    told = [units.format_duration(s) for s in (0.4, 42, 200, 7500)]
    assert told == ["0.40 s", "42 s", "3 min 20 s", "2 h 5 min"]
    assert [units.format_size(n) for n in (5, 1536, 1 << 50)] == ["5 B", "1.5 KiB", "1024.0 TiB"]


def test_every_error_has_a_code_and_an_exit_of_its_own() -> None:
    classes = list(error_classes().values())
    assert len({c.code for c in classes}) == len({c.exit_code for c in classes}) == len(classes)
    assert all(c.__doc__ for c in classes)
    assert isinstance(error_from("usage", "x"), UsageError)
    assert type(error_from("from-the-future", "x")) is PeerdError
