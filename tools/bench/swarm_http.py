"""curl against nginx: what everybody does today, and the time that peerd is never to exceed."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from peerd.errors import TimedOut
from tools.bench.swarm_case import Outcome
from tools.bench.swarm_run import Meter, Run, command_path


def run_curl(run: Run) -> Outcome:
    """N of them at once, each the whole file."""
    run.serve()
    curl = command_path("curl", "curl")
    command = [curl, "-sS", "--fail", "-o", "got", run.url()]
    names = run.case.names()
    meter = Meter(run, [])
    processes = {name: run.spawn(name, command) for name in names}

    def wait(name: str) -> float:
        process: subprocess.Popen[Any] = processes[name]
        if process.wait(run.limit_s()) != 0:
            raise TimedOut(f"curl of {name} failed: {run.log(name)}")
        return time.monotonic()

    with ThreadPoolExecutor(len(names)) as pool:
        done_at = dict(zip(names, pool.map(wait, names), strict=True))
    outcome = meter.stop(done_at)
    return outcome(
        run.right({name: partial(open, run.place(name) / "got", "rb") for name in names})
    )
