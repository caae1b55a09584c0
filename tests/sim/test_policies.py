"""Each policy against its absence, small; docs/simulation.md has the large table."""

from __future__ import annotations

import pytest

from tools.sim.__main__ import simulate
from tools.sim.policies import POLICIES, compare
from tools.sim.scenario import load


def test_taken_away_and_given_back_a_run_is_what_it_was() -> None:
    scenario = load("flash-crowd", {"peers.count": "6", "size": "8MiB"})
    before = simulate(scenario, 1)["trace"]
    for each in POLICIES:
        if each.scenario == "flash-crowd":
            with each.taken_away():
                assert simulate(scenario, 1)["trace"] != before, f"{each.name} changes nothing"
    assert simulate(scenario, 1)["trace"] == before


FEW = {"peers.count": "12", "size": "16MiB"}


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("reader's window", FEW, 1.3),
        ("cancel breaks off", FEW, 2.0),
        ("lingering", FEW, 3.0),
        ("one child is told first", {"size": "64MiB"}, 1.15),
    ],
)
def test_without_the_policy_there_is_more_of_what_it_is_against(
    name: str, changes: dict[str, str], least: float
) -> None:
    [policy] = [each for each in POLICIES if each.name == name]
    line = compare(policy, changes, seeds=2)
    print(line.told())
    assert line.having["failed"] == 0
    assert line.worse() >= least
