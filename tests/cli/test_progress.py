"""The progress line: bytes, rate, time left, from origin and from peers."""

from __future__ import annotations

from typing import Any

from peerd.cli.progress import Rate, line


def event(total: int | None, held: int) -> dict[str, Any]:
    return {"bytes_total": total, "bytes_held": held, "from_origin": held, "from_peers": 0}


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.add(0, 0.0) is None
    assert rate.add(1000, 1.0) == 1000
    for second in range(2, 10):
        last = rate.add(1000, float(second))
    assert last == 0
    assert rate.add(0, 10.0) == 0  # A new version began at nothing.


def test_a_line_says_all_there_is_to_know() -> None:
    text = line("file", event(4096, 1024), 1024.0)
    assert text == (
        "file   25%  1.0 KiB of 4.0 KiB  1.0 KiB/s  3.00 s left  origin 1.0 KiB  peers 0 B"
    )


def test_an_unknown_length_and_a_standstill_promise_nothing() -> None:
    assert "%" not in line("file", event(None, 10), None)
    assert "left" not in line("file", event(100, 10), 0.0)
    assert "left" not in line("file", event(0, 0), 1.0)
