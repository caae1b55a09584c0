"""How often an origin is asked again, and when: without a clock."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import OriginBusy, OriginUnreachable
from peerd.origin.patience import Patience, Transient
from peerd.origin.settings import OriginConfig

CONFIG = OriginConfig()
REFUSED = Transient(OriginUnreachable("refused"))
SILENT = Transient(OriginUnreachable("silent"), slow=True)


def busy(retry_after_s: float | None) -> Transient:
    error = OriginBusy("busy")
    error.retry_after_s = retry_after_s
    return Transient(error)


def test_waits_double_and_end() -> None:
    patience = Patience(CONFIG, Random(1))
    waits = [patience.after_failure(REFUSED) for _ in range(CONFIG.retries_max)]
    for count, wait_s in enumerate(waits):
        assert wait_s is not None
        assert CONFIG.backoff_first_s * 2**count / 2 <= wait_s <= CONFIG.backoff_first_s * 2**count
    assert patience.after_failure(REFUSED) is None


def test_whoever_is_silent_is_asked_less_often() -> None:
    patience = Patience(CONFIG, Random(1))
    assert patience.after_failure(SILENT) is not None
    assert patience.after_failure(SILENT) is not None
    assert patience.after_failure(SILENT) is None


def test_an_answer_renews_the_patience() -> None:
    patience = Patience(CONFIG, Random(1))
    for _ in range(10):
        assert patience.after_failure(SILENT) is not None
        patience.answered()


def test_what_the_origin_asks_for_is_done_up_to_a_limit() -> None:
    patience = Patience(CONFIG, Random(1))
    assert patience.after_failure(busy(7.0)) == 7.0
    assert patience.after_failure(busy(CONFIG.retry_after_max_s)) == CONFIG.retry_after_max_s
    assert patience.after_failure(busy(CONFIG.retry_after_max_s + 1)) is None


def test_a_cut_after_progress_is_resumed_at_once_and_always() -> None:
    patience = Patience(CONFIG, Random(1))
    assert {patience.after_cut(CONFIG.cut_progress_bytes) for _ in range(1000)} == {0.0}


@given(st.lists(st.integers(0, 2 * CONFIG.cut_progress_bytes), max_size=50), st.integers())
def test_every_wait_is_bounded_and_so_are_cuts_in_a_row(progress: list[int], seed: int) -> None:
    patience, fruitless = Patience(CONFIG, Random(seed)), 0
    for progress_bytes in progress:
        fruitless = 0 if progress_bytes >= CONFIG.cut_progress_bytes else fruitless + 1
        wait_s = patience.after_cut(progress_bytes)
        assert (wait_s is None) == (fruitless > CONFIG.cuts_max)
        assert wait_s is None or 0.0 <= wait_s <= CONFIG.backoff_max_s


def test_a_silent_body_is_given_longer_each_time_and_the_first_time_after_progress() -> None:
    patience = Patience(CONFIG, Random(1))
    waits = []
    for progress in (100_000, 0, 0, 0, 100_000):
        patience.after_cut(progress)
        waits.append(patience.silence_s())
    assert waits == [1.0, 2.0, 4.0, 8.0, 1.0]
