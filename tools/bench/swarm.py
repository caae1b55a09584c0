"""A swarm beside others in the same network: time over the physical bound, copies, processors.

One origin and N peers in the network lab (docs/lab.md), all started at once. Always: systems take
turns, a run has a lab of its own, and what is printed has least, median and most.

Example: python -m tools.bench swarm --peers 8 --rate 50mbit --size 64MiB \
--against curl,libtorrent,aria2 --repeat 5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from peerd.errors import PeerdError, UsageError
from peerd.units import GIB, parse_size
from tools.bench.swarm_case import Case, Outcome, parse_zone, row
from tools.bench.swarm_http import run_curl
from tools.bench.swarm_peerd import run_peerd
from tools.bench.swarm_plot import plot
from tools.bench.swarm_run import Run, Source, a_run, machine
from tools.bench.swarm_torrent import run_aria2, run_libtorrent
from tools.netlab import kernel, parse_rate

SYSTEMS: Final[dict[str, Callable[[Run], Outcome]]] = {
    "peerd": run_peerd,
    "curl": run_curl,
    "libtorrent": run_libtorrent,
    "libtorrent-super": partial(run_libtorrent, super_seeding=True),
    "aria2": run_aria2,
}


def main(argv: list[str]) -> int:
    said = _parser().parse_args(argv)
    try:
        kernel.check_able()
        rows = _measure(said)
        told = _told(rows, argv)
        if said.plot:
            plot(rows, told, said.plot)
    except PeerdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(_table(rows, told))
    if said.json:
        sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _measure(said: argparse.Namespace) -> list[dict[str, Any]]:
    cases = _cases(said)
    systems = _systems(said)
    runs: dict[tuple[int, str], list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="peerd-swarm-", dir=said.dir) as name:
        folder = Path(name)
        _check_space(folder, max(case.peers + 2 for case in cases) * said.size)
        source = Source.make(folder, said.size)
        number = 0
        for turn in range(said.repeat):
            for case in cases:
                for system in systems:
                    number += 1
                    with a_run(case, source, folder, number) as run:
                        outcome = SYSTEMS[system](run)
                    runs.setdefault((case.peers, system), []).append(outcome)
                    _progress(turn, case, system, outcome)
    return [row(system, case, runs[case.peers, system]) for case in cases for system in systems]


def _cases(said: argparse.Namespace) -> list[Case]:
    zones = tuple(parse_zone(text) for text in said.zone)
    in_zones = sum(one.peers for one in zones)
    try:
        counts = [int(word) for word in (said.peers or str(in_zones or 8)).split(",")]
    except ValueError as error:
        raise UsageError(f"--peers {said.peers!r}: write 8, or 2,4,8,16") from error
    if zones and counts != [in_zones]:
        raise UsageError(f"the zones have {in_zones} peers; leave --peers out")
    rate = parse_rate(said.rate)
    origin_rate = parse_rate(said.origin_rate) if said.origin_rate else rate
    if rate is None or origin_rate is None:
        raise UsageError("there is no bound without rates: give --rate and --origin-rate")
    return [Case(count, rate, origin_rate, said.size, zones) for count in counts]


def _systems(said: argparse.Namespace) -> list[str]:
    systems = [word for word in said.against.split(",") if word]
    systems = list(dict.fromkeys([*([] if said.without_peerd else ["peerd"]), *systems]))
    for system in systems:
        if system not in SYSTEMS:
            raise UsageError(f"--against {system!r}: there are {', '.join(SYSTEMS)}")
    return systems


def _check_space(folder: Path, needed_bytes: int) -> None:
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < needed_bytes * 1.1:
        raise UsageError(
            f"{folder.parent} has no room for {needed_bytes / GIB:.1f} GiB: name another with --dir"
        )


def _progress(turn: int, case: Case, system: str, outcome: Outcome) -> None:
    sys.stderr.write(
        f"turn {turn + 1}, {case.peers} peers, {system}: {outcome.seconds:.2f} s "
        f"({outcome.seconds / case.bound_s():.2f} x the bound), "
        f"{outcome.origin_bytes / case.size_bytes:.3f} copies, {outcome.cpu_s:.1f} CPU s, "
        f"{'right' if outcome.verified else 'WRONG'}\n"
    )


def _told(rows: list[dict[str, Any]], argv: list[str]) -> dict[str, Any]:
    return {"rows": rows, **machine("swarm", argv)}


def _table(rows: list[dict[str, Any]], told: dict[str, Any]) -> str:
    lines = [
        f"{told['command']}\n{told['date']}, {told['machine']}",
        f"{'system':<17}{'peers':>6}{'time/bound':>12}{'(least-most)':>16}{'origin':>8}"
        f"{'CPU s':>8}{'busy':>6}  zones",
    ]
    for one in rows:
        least, middle, most = one["spread"]["time_over_bound"]
        zones = " ".join(f"{zone} {value:.2f}" for zone, value in one["zone_copies"].items())
        lines.append(
            f"{one['system']:<17}{one['peers']:>6}{middle:>12.2f}{f'({least:.2f}-{most:.2f})':>16}"
            f"{one['origin_copies']:>8.3f}{one['cpu_s']:>8.1f}{one['machine_busy']:>6.0%}  {zones}"
            f"{'' if one['verified'] else '  WRONG BYTES'}"
        )
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench swarm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", metavar="N[,N…]", help="8 unless given; several for --plot")
    parser.add_argument("--rate", default="50mbit", help="each peer's, each way")
    parser.add_argument("--origin-rate", help="the peers' unless given")
    parser.add_argument("--size", type=parse_size, default="64MiB")
    parser.add_argument(
        "--against", default="", metavar="SYSTEM,…", help=f"of {', '.join(SYSTEMS)}"
    )
    parser.add_argument("--without-peerd", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--zone", action="append", default=[], metavar="NAME:PEERS:RATE:DELAY_MS:LOSS",
        help="repeatable; the origin is in the first; rate, delay (one way) and loss are those of "
        "the zone's one link",
    )  # fmt: skip
    memory = Path("/dev/shm")
    parser.add_argument(
        "--dir", type=Path, default=memory if memory.is_dir() else None,
        help="where content and copies go; memory unless given, so that no disk is the bound",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--json", action="store_true")
    return parser
