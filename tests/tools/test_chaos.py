"""Chaos itself: the arithmetic of its verdicts, what it says, and one scenario for real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peerd.errors import UsageError
from peerd.units import MIB
from tools.chaos.janitor import MEMORY
from tools.chaos.scenarios import SCENARIOS, named
from tools.chaos.verdict import Finding, Limits, Measured, Shape, failed, judge, table
from tools.netlab import kernel, record

ROOT = Path(__file__).parents[2]
SHAPE = Shape(peers=4, size_bytes=100 * MIB)
REFERENCE = Measured(asked=4, finished=4, right=4, seconds=10.0, origin_bytes=100 * MIB)
KEYS = {"asked", "finished", "right", "origin_copies", "time_over_undisturbed", "verdict"}


def unable() -> str:
    """Why no lab can be made here, or nothing."""
    try:
        kernel.check_able()
    except UsageError as error:
        return f"NOT TESTED: {error}"
    return ""


needs_root = pytest.mark.skipif(bool(unable()), reason=unable())


def measured(**other: object) -> Measured:
    return Measured(**(vars(REFERENCE) | other))


@pytest.mark.parametrize(
    ("run", "limits", "green"),
    [
        (measured(), Limits(), True),
        (measured(finished=3), Limits(), False),
        (measured(right=3), Limits(), False),
        (measured(origin_bytes=102 * MIB), Limits(), True),
        (measured(origin_bytes=103 * MIB), Limits(), False),
        (measured(origin_bytes=103 * MIB, spared_bytes=MIB), Limits(), True),
        (measured(origin_bytes=300 * MIB), Limits(copies_max=None), True),
        (measured(seconds=10.5), Limits(time_over_undisturbed_max=1.05), True),
        (measured(seconds=10.6), Limits(time_over_undisturbed_max=1.05), False),
        (measured(seconds=11.4), Limits(time_over_undisturbed_max=1.05, time_added_max_s=1), True),
        (measured(seconds=0.0), Limits(time_over_undisturbed_max=1.05), False),
        (measured(findings=(Finding("x", "1", "0", False),)), Limits(), False),
    ],
)
def test_a_verdict_is_green_if_each_row_is(run: Measured, limits: Limits, green: bool) -> None:
    verdict = judge("x", SHAPE, limits, REFERENCE, run)
    assert verdict.green is green, table(verdict)
    assert verdict.to_json()["verdict"] == ("green" if green else "red")
    assert ("NOT OK" in table(verdict)) is not green


def test_a_time_stands_beside_how_busy_the_processors_were() -> None:
    """Else nobody can tell whether the swarm or the machine was slow."""
    reference, limits = measured(machine_busy=0.5), Limits(time_over_undisturbed_max=1.05)
    verdict = judge("x", SHAPE, limits, reference, measured(machine_busy=0.934))
    [row] = [row for row in verdict.rows if row.what == "processors busy"]
    assert (row.measured, row.limit, row.ok) == ("93%", "(told only; undisturbed 50%)", True)


def test_the_keys_are_those_of_the_design() -> None:
    verdict = judge("x", SHAPE, Limits(), REFERENCE, measured(seconds=12.0))
    told = json.loads(json.dumps(verdict.to_json()))
    assert set(told) >= KEYS
    assert (told["asked"], told["origin_copies"], told["time_over_undisturbed"]) == (4, 1.0, 1.2)
    assert set(failed("x", SHAPE, "no").to_json()) == set(told)
    assert not failed("x", SHAPE, "no").green


def test_every_scenario_is_documented_and_listed() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/chaos.md").read_text(), re.MULTILINE)
    assert re.findall(r"`([^`]+)`", " ".join(rows)) == names
    done = chaos("list", "--json")
    assert [row["name"] for row in told(done)["scenarios"]] == names


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no scenario 'quake'; there are: churn"):
        named("quake")
    with pytest.raises(UsageError, match="too few"):
        named("keeper").shape(Shape(peers=2))


@needs_root
@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_the_keeper_dies_for_real() -> None:
    """Not judged here: time, since the machine has other tests to run, and copies, since of 32
    pieces each is 3 %."""
    done = chaos("run", "keeper", "--peers", "4", "--size", "8MiB", "--rate", "20mbit", "--json")
    said = told(done)
    rows = {row["what"]: row["ok"] for row in said["findings"]}
    assert {what for what, ok in rows.items() if not ok} <= {"time", "origin copies"}, done.stderr
    assert said["finished"] == said["right"] == said["asked"] == 4
    assert rows["keepers killed"]
    assert done.returncode == (0 if said["verdict"] == "green" else 1)


@needs_root
@pytest.mark.e2e
def test_killed_it_leaves_nothing_behind() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "tools.chaos", "run", "keeper", "--peers", "4", "--size", "64MiB"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    lab, folders = record.path(f"chaos{run.pid}"), f"peerd-chaos-{run.pid}-*"
    try:
        await_that(lambda: lab.exists() and len(list(MEMORY.glob(f"{folders}/*/log"))) == 4)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    await_that(lambda: not lab.exists() and not list(MEMORY.glob(folders)))


def await_that(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    ends_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.chaos", *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
