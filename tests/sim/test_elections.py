"""Scheduler services as a whole, split and healed; the command does it two hundred times."""

from __future__ import annotations

import json

import pytest

from tools.sim.__main__ import main
from tools.sim.elections import alone, elect, elect_often


def test_each_side_of_a_partition_is_led_and_one_leader_stays() -> None:
    told = elect_often(20, 1, peers=14, electors=4)
    assert told["elected_s"] <= 4.25
    assert told["healed_s"] <= 5.25


def test_in_a_group_with_cells_too() -> None:
    told = elect(3, peers=100, electors=5)
    assert told["sides"] in (2, 3)
    assert told["term"] >= 2


def test_the_same_seed_tells_the_same() -> None:
    assert elect(5, peers=10, electors=3) == elect(5, peers=10, electors=3)


def test_the_command_says_it_in_words_and_as_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["elections", "--peers", "8", "--electors", "3", "--partitions", "2", "--json"]) == 0
    )
    words, said = capsys.readouterr().out.splitlines()
    assert words.startswith("2 partitions of 8 peers")
    assert json.loads(said)["partitions"] == 2


def test_a_leader_that_nobody_follows_advises_nobody_and_does_not_spin() -> None:
    """Alone in its group, with a download of its own: it leads, and there is nobody to advise."""
    told = alone(seconds=30.0)
    assert told["leads"]
    assert told["decisions"] <= 4, "as long as its first lease counts"
    assert told["wakes"] < 200, "some a second"
