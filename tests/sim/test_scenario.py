"""What a scenario file may say, and what is said of one that says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.errors import UsageError
from tools.sim.scenario import FOLDER, load, names, zone_names

WANTED = {"flash-crowd", "arrivals", "zones", "partition", "churn", "slow-peer", "liar", "booting"}


def test_every_scenario_that_comes_along_is_right() -> None:
    assert set(names()) >= WANTED | {"silent", "keeper-killed"}
    for name in names():
        assert load(name).description
        scenario = load(name, {"peers.count": "16", "size": "16MiB"})
        assert scenario.tasks or scenario.all_tasks[0].size_bytes == 16 << 20


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size = '1GiB'", "description"),
        ("description = 'x'\nsize = 'much'", "size"),
        ("description = 'x'\npears = 3", "pears"),
        ("description = 'x'\n[peers]\ncount = 0", "peers.count"),
        ("description = 'x'\n[peers]\ncount = 2\nseeds = 3", "seeds"),
        ("description = 'x'\n[origin]\nzone = 'mars'", "zone"),
        ("description = 'x'\n[[events]]\ndo = 'sing'\nat_s = 1.0", "events"),
        ("description = 'x'\n[[events]]\ndo = 'kill'", "at_progress"),
        ("description = 'x'\n[[events]]\ndo = 'kill'\nat_s = 1.0\nwho = [64]", "no peer 64"),
        ("description = ", "Invalid value"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load(str(path))
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_an_unknown_name_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="flash-crowd"):
        load("flash-mob")


def test_fields_can_be_set_from_the_command_line() -> None:
    changed = load("zones", {"network.zones": "3", "origin.zone": "zone-1"})
    assert zone_names(changed) == ["zone-0", "zone-1", "zone-2"]
    assert changed.origin.zone == "zone-1"
    with pytest.raises(UsageError, match="has no fields"):
        load("zones", {"size.unit": "1"})


def test_the_files_lie_where_the_package_looks() -> None:
    assert FOLDER.is_dir()
