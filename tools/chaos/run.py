"""Runs a scenario: once undisturbed, once disturbed, and the verdict on both.

Always: two runs that are compared have the same shape and came from the same call; a run that fails
leaves the logs of its daemons behind, and says where.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from peerd.errors import PeerdError
from tools.chaos.disturb import nothing
from tools.chaos.lab import Lab, Setting, standing
from tools.chaos.peer import Spoiled
from tools.chaos.scenarios import Scenario
from tools.chaos.verdict import Measured, Shape, Verdict, failed, judge

STANDING_MAX_S: Final = 120.0
"""From nothing to daemons that know each other; and, afterwards, to the last question answered."""
STORIES_MAX_S: Final = 10.0


class Runner:
    """Keeps the undisturbed runs, by shape, for as long as one call lasts."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._undisturbed: dict[Shape, Measured] = {}

    def run(self, scenario: Scenario, asked: Shape) -> Verdict:
        shape = scenario.shape(asked)
        setting = scenario.setting(shape)
        try:
            if shape not in self._undisturbed:
                measured, _ = self._once("undisturbed", shape, Setting(), nothing, None)
                if measured.finished < measured.asked:
                    raise Spoiled(f"undisturbed, {measured.finished} of {measured.asked} finish")
                self._undisturbed[shape] = measured
            reference = self._undisturbed[shape]
            _, verdict = self._once(
                scenario.name, shape, setting, scenario.disturb,
                lambda measured: judge(scenario.name, shape, scenario.limits, reference, measured),
            )  # fmt: skip
        except* (Spoiled, PeerdError) as spoiled:
            verdict = failed(scenario.name, shape, _words(spoiled))
        assert verdict is not None
        return verdict

    def _once(
        self,
        name: str,
        shape: Shape,
        setting: Setting,
        disturb: Callable[[Lab], Awaitable[None]],
        judged: Callable[[Measured], Verdict] | None,
    ) -> tuple[Measured, Verdict | None]:
        self._say(f"{name}, seed {shape.seed} …")

        async def run() -> tuple[Measured, Verdict | None]:
            green = False
            async with standing(shape, setting) as lab:
                try:
                    measured = await _downloaded(lab, disturb)
                    verdict = judged(measured) if judged is not None else None
                    green = verdict is None or verdict.green
                finally:
                    if not green:
                        self._say(f"logs: {await _keep(lab, name)}")
                return measured, verdict

        return trio.run(run)


async def _downloaded(lab: Lab, disturb: Callable[[Lab], Awaitable[None]]) -> Measured:
    with trio.move_on_after(lab.limit_s + STANDING_MAX_S):
        async with trio.open_nursery() as both:
            both.start_soon(lab.ask_everybody)
            both.start_soon(disturb, lab)
        return await lab.measured()
    raise Spoiled("it does not come to an end in time")


async def _keep(lab: Lab, name: str) -> Path:
    """The daemons' logs, and what they say of the task, where it outlives the run."""
    kept = Path(tempfile.mkdtemp(prefix=f"peerd-chaos-{name}-"))
    for log in sorted([*lab.folder.glob("*/log"), *lab.folder.glob("*.log")]):
        label = log.parent.name if log.name == "log" else log.stem
        shutil.copyfile(log, kept / f"{label}.log")
    with trio.move_on_after(STORIES_MAX_S):
        for peer in lab.alive():
            try:
                told = await peer.task(lab.task())
            except (PeerdError, Spoiled) as error:
                told = {"error": str(error)}
            (kept / f"{peer.name}.json").write_text(json.dumps(told, indent=1))
    return kept


def _words(group: BaseExceptionGroup[Spoiled | PeerdError]) -> str:
    """Those of the first; when a daemon is gone, the others say the same."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
