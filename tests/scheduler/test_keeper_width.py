"""How many read the origin at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from peerd.scheduler.keeper_events import KeeperConfig
from peerd.scheduler.keeper_width import REST_MAX, Width
from tests.scheduler.desk import Desk

CONFIG = KeeperConfig()


def seen(rate_of: Callable[[int], float], pieces: int = 4000, *, wanted: bool = True) -> list[int]:
    """How many may read at each piece, where so many read so many pieces a second together."""
    width, now, found = Width(CONFIG), 0.0, []
    for _ in range(pieces):
        now += 1 / rate_of(width.readers)
        width.made(1, now, wanted=wanted)
        found.append(width.readers)
    return found


def test_readers_are_added_while_each_makes_it_faster() -> None:
    assert seen(lambda readers: 2.0 * readers)[-1] == CONFIG.readers_max


def test_no_more_than_saturate_the_origin() -> None:
    found = seen(lambda readers: min(2.0 * readers, 33.0))[1000:]
    assert sorted(found)[len(found) // 2] in (16, 20), "16.5 readers are what it can feed"


def test_a_saturated_origin_is_read_by_the_fewest_that_spread_well() -> None:
    found = seen(lambda _: 20.0)
    assert found[0] == CONFIG.readers_first
    assert sum(x == CONFIG.readers_min for x in found[2000:]) > 1600, "it looks up now and then"


def test_too_many_make_it_slower_and_are_taken_back() -> None:
    found = seen(lambda readers: 24.0 if readers <= 12 else 10.0)
    assert sum(x > 12 for x in found) < len(found) / 4


def test_chance_moves_nothing_beyond_its_bounds_and_tries_become_rare() -> None:
    found = seen(lambda readers: 2.0 * readers * (1.1 if readers % 8 else 0.9), pieces=20_000)
    assert CONFIG.readers_min <= min(found) <= max(found) <= CONFIG.readers_max
    steady = seen(lambda readers: 2.0 * min(readers, 12), pieces=20_000)[10_000:]
    changes = sum(a != b for a, b in pairwise(steady))
    assert changes < 10_000 / (3 * 12 * REST_MAX) * 2 + 4


def test_where_nobody_else_would_read_nothing_is_tried() -> None:
    assert set(seen(lambda readers: 2.0 * readers, wanted=False)) == {CONFIG.readers_first}


def test_the_keeper_lets_more_read_where_that_makes_it_faster() -> None:
    numbers = range(1, 33)
    desk = Desk(numbers, config=KeeperConfig(ramp_first=64))
    for number in numbers:
        desk.enrol(number, room=2)
    desk.later(1.0)
    for number in numbers:
        desk.ask(number, 2)
    desk.resolve(next(n for n in numbers if desk.grants(n)), 400)
    most = 0
    while desk.leases():
        desk.later(1.0)
        holders = [n for n in numbers if desk.leases(n)]
        most = max(most, len(holders))
        for number in holders:
            desk.finish(number, desk.leases(number)[0])
    assert most > CONFIG.readers_first
