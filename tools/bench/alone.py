"""One peer alone beside curl: what a user waits for a file that nobody else has (promise 5).

In the network lab: nginx, one peer, its daemon running. Three ways, in turns: curl, the command
line `peerd get`, and the same question to the daemon by a process that runs already ("asked"), so
that what Python's start costs can be told from the download. All end with the caller's own copy,
but for "daemon": what the daemon says of those asked, until it held all. Each download is of a URL
of its own, so nothing is held before it.

Example: python -m tools.bench alone --rate 1gbit --size 1GiB --size 10kB --repeat 5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from peerd.cli import client
from peerd.cli.get import fetch
from peerd.cli.output import target_for
from peerd.errors import PeerdError, TimedOut
from peerd.units import format_size, parse_size
from tools.bench.swarm_case import Case
from tools.bench.swarm_peerd import socket_of, start_daemon, task_of
from tools.bench.swarm_run import Run, Source, a_run, command_path, machine
from tools.netlab import kernel, parse_rate

PEER: Final = "p0"
SETTLE_S: Final = 2.0
"""Start-up work that is still under way (a first look for others) is not the download's."""
WARM_UP_MAX_BYTES: Final = 64 << 20
"""Below it the first run of Python's compiler would be measured."""
SIZES: Final = (1 << 30, 10_000)


def main(argv: list[str]) -> int:
    said = _parser().parse_args(argv)
    rate = parse_rate(said.rate)
    try:
        kernel.check_able()
        with tempfile.TemporaryDirectory(prefix="peerd-alone-", dir=said.dir) as name:
            sizes = said.size or list(SIZES)
            rows = [_measure(Path(name), size, rate or 0, said.repeat) for size in sizes]
    except PeerdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    told = {"rows": rows, **machine("alone", argv)}
    sys.stdout.write(f"{told['command']}\n{told['date']}, {told['machine']}\n")
    for row in rows:
        sys.stdout.write(_words(row) + "\n")
    if said.json:
        sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _measure(folder: Path, size_bytes: int, rate_bit_s: int, repeat: int) -> dict[str, Any]:
    place = folder / str(size_bytes)
    place.mkdir()
    source = Source.make(place, size_bytes)
    case = Case(1, rate_bit_s, rate_bit_s, size_bytes)
    seconds: dict[str, list[float]] = {name: [] for name in SHOWN}
    with a_run(case, source, place, 1) as run:
        run.serve()
        daemon = start_daemon(run, PEER)
        run.wait_for(partial(client.answers, socket_of(run, PEER)), PEER, daemon)
        time.sleep(SETTLE_S)
        if size_bytes <= WARM_UP_MAX_BYTES:
            _command(run, f"{run.url()}?first")
        for turn in range(repeat):
            for way, measured in WAYS.items():
                for name, took_s in measured(run, f"{run.url()}?{way}={turn}").items():
                    seconds[name].append(took_s)
                    sys.stderr.write(f"{format_size(size_bytes)}, {name}: {took_s:.3f} s\n")
    source.path.unlink()
    return row(size_bytes, seconds)


def row(size_bytes: int, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians, and how each way compares with curl's."""
    curl = median(seconds["curl"])
    return {
        "bytes": size_bytes,
        "seconds": {way: round(median(times), 4) for way, times in seconds.items()},
        "over_curl": {way: round(median(times) / curl, 3) for way, times in seconds.items()},
        "more_than_curl_s": {way: round(median(x) - curl, 4) for way, x in seconds.items()},
        "spread": {way: [round(min(x), 4), round(max(x), 4)] for way, x in seconds.items()},
        "verified": True,
    }


# --- the three ways


def _curl(run: Run, url: str) -> dict[str, float]:
    command = [command_path("curl", "curl"), "-sS", "--fail", "-o", "got", url]
    return {"curl": _process(run, command)}


def _command(run: Run, url: str) -> dict[str, float]:
    words = ["get", url, "-O", "got", "--no-progress", "--socket", socket_of(run, PEER)]
    # Compiled once, like an installed package, but not into this checkout.
    compiled = [
        "env",
        "-u",
        "PYTHONDONTWRITEBYTECODE",
        f"PYTHONPYCACHEPREFIX={run.folder}/compiled",
    ]
    took_s = _process(run, [*compiled, sys.executable, "-m", "peerd", *words])
    _forget(run)
    return {"command": took_s}


def _process(run: Run, command: list[str]) -> float:
    """From its start to its end."""
    began = time.monotonic()
    process = run.spawn(PEER, command)
    # Popen.wait with a timeout looks every 50 ms: that would be half of a small file's time.
    ended = os.pidfd_open(process.pid)
    select.select([ended], [], [], run.limit_s())
    took_s = time.monotonic() - began
    os.close(ended)
    if process.wait(1.0) != 0:
        raise TimedOut(f"{command} failed: {run.log(PEER)}")
    _check(run)
    return took_s


def _asked(run: Run, url: str) -> dict[str, float]:
    wish = {"url": url, "timeout_s": run.limit_s()}
    target = target_for(str(run.place(PEER) / "got"), url)
    began = time.monotonic()
    done = fetch(socket_of(run, PEER), wish, target, _Silent())
    took_s = time.monotonic() - began
    _check(run)
    _forget(run)
    return {"asked": took_s, "daemon": done["seconds"]}


class _Silent:
    def show(self, event: Mapping[str, Any]) -> None: ...
    def end(self) -> None: ...


def _check(run: Run) -> None:
    """The copy is right, and gone."""
    got = run.place(PEER) / "got"
    if not run.right({PEER: partial(got.open, "rb")}):
        raise TimedOut(f"wrong bytes in {got}")
    got.unlink()


def _forget(run: Run) -> None:
    """The daemon's copy goes: memory is what this is measured in."""
    for task in task_of(run, PEER):
        client.ask(socket_of(run, PEER), "DELETE", f"/v1/tasks/{task}")


WAYS: Final[dict[str, Callable[[Run, str], dict[str, float]]]] = {
    "curl": _curl,
    "asked": _asked,
    "command": _command,
}
SHOWN: Final = ("curl", "daemon", "asked", "command")


def _words(row: Mapping[str, Any]) -> str:
    curl, *others = (
        f"{way} {row['seconds'][way]:.3f} s ({row['spread'][way][0]:.3f}-"
        f"{row['spread'][way][1]:.3f})"
        + (f" = {row['over_curl'][way]:.2f} x, {row['more_than_curl_s'][way] * 1000:+.0f} ms"
           if way != "curl" else "")
        for way in SHOWN
    )  # fmt: skip
    return f"{format_size(row['bytes'])}: {curl}; {'; '.join(others)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench alone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", default="1gbit", help="the peer's and the origin's")
    parser.add_argument("--size", type=parse_size, action="append", help="1GiB and 10kB")
    parser.add_argument("--repeat", type=int, default=3)
    memory = Path("/dev/shm")
    parser.add_argument(
        "--dir", type=Path, default=memory if memory.is_dir() else None,
        help="where content and copies go; memory unless given, so that no disk is the bound",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    return parser
