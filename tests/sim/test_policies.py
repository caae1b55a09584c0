"""Each policy against its absence, small; docs/simulation.md has the large table."""

from __future__ import annotations

from tools.sim.__main__ import simulate
from tools.sim.policies import POLICIES
from tools.sim.scenario import load


def test_taken_away_and_given_back_a_run_is_what_it_was() -> None:
    scenario = load("flash-crowd", {"peers.count": "6", "size": "8MiB"})
    before = simulate(scenario, 1)["trace"]
    for each in POLICIES:
        if each.scenario == "flash-crowd":
            with each.taken_away():
                assert simulate(scenario, 1)["trace"] != before, f"{each.name} changes nothing"
    assert simulate(scenario, 1)["trace"] == before
