"""`python -m tools.chaos`: `list`, and `run NAME …` or `run all`. Exit code 1: not all green."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from peerd.errors import PeerdError, UsageError
from peerd.units import parse_size
from tools.chaos.run import Runner
from tools.chaos.scenarios import SCENARIOS, named
from tools.chaos.verdict import Shape, Verdict, table, with_seed
from tools.netlab import kernel, parse_rate

NICE: Final = -10
"""Of all that runs in the lab, so that what else the machine does is not what is judged."""


def show_list(said: argparse.Namespace) -> int:
    if said.json:
        rows = [{"name": one.name, "does": one.does} for one in SCENARIOS]
        sys.stdout.write(json.dumps({"scenarios": rows}) + "\n")
        return 0
    for one in SCENARIOS:
        sys.stdout.write(f"{one.name:15} {one.does}\n")
    return 0


def run(said: argparse.Namespace) -> int:
    kernel.check_able()
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    names = [one.name for one in SCENARIOS] if said.scenarios == ["all"] else said.scenarios
    scenarios = [named(name) for name in names]
    shape = Shape(peers=said.peers, size_bytes=said.size, rate_bit_s=said.rate, seed=said.seed)
    for scenario in scenarios:
        scenario.setting(scenario.shape(shape))  # What cannot be run is said before anything is.
    verdicts = []
    for repetition in range(said.repeat):
        runner = Runner(_say)
        for scenario in scenarios:
            verdict = runner.run(scenario, with_seed(shape, shape.seed + repetition))
            _say(table(verdict))
            verdicts.append(verdict)
    if said.json:
        sys.stdout.write(json.dumps(_told(verdicts)) + "\n")
    red = [verdict for verdict in verdicts if not verdict.green]
    if len(verdicts) > 1:
        names = ", ".join(f"{verdict.scenario} ({verdict.shape.seed})" for verdict in red)
        _say(f"{len(verdicts) - len(red)} of {len(verdicts)} green; red: {names or 'none'}")
    return 1 if red else 0


def _told(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Of one, its keys; of many, all of them and whether all are green."""
    if len(verdicts) == 1:
        return verdicts[0].to_json()
    green = all(verdict.green for verdict in verdicts)
    return {"scenarios": [verdict.to_json() for verdict in verdicts],
            "verdict": "green" if green else "red"}  # fmt: skip


def _say(words: str) -> None:
    sys.stderr.write(words.rstrip("\n") + "\n")
    sys.stderr.flush()


def _rate(text: str) -> int:
    try:
        rate = parse_rate(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if rate is None:
        raise argparse.ArgumentTypeError("chaos needs a rate, or everything is over at once")
    return rate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = commands.add_parser("list", help="what there is", epilog="Example: list --json")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(carry_out=show_list)
    sub = commands.add_parser(
        "run", help="run some, each beside an undisturbed run",
        epilog="Example: python -m tools.chaos run keeper --peers 4 --size 16MiB --seed 7",
    )  # fmt: skip
    sub.add_argument("scenarios", nargs="+", metavar="SCENARIO", help="or all")
    sub.add_argument("--peers", type=int, default=Shape.peers)
    sub.add_argument("--size", type=parse_size, default=Shape.size_bytes)
    sub.add_argument("--rate", type=_rate, default=Shape.rate_bit_s, help="each one's, each way")
    sub.add_argument("--seed", type=int, default=1, help="who is hit, and the content's bytes")
    sub.add_argument("--repeat", type=int, default=1, help="with the next seed each time")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(carry_out=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    said = _parser().parse_args(argv)
    try:
        code: int = said.carry_out(said)
    except PeerdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
