"""peerd: real daemons, each in its namespace, no scheduler, no seed; all asked at one moment.

Asked through their control sockets from this one process: eight command lines that start on two
cores are not what is measured.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from peerd.cli import client
from peerd.errors import DaemonUnreachable
from tools.bench.swarm_case import Outcome
from tools.bench.swarm_run import Meter, Run

OVERLAY_PORT: Final = 4010
SETTLE_S: Final = 1.0
"""Start-up work that is still under way (dials, first gossip) is not the download's."""


def run_peerd(run: Run, keep: Callable[[Run], None] | None = None) -> Outcome:
    """`keep` looks at the run before it is removed."""
    names = run.case.names()
    run.serve()
    daemons = [start_daemon(run, name) for name in names]
    for name, daemon in zip(names, daemons, strict=True):
        run.wait_for(partial(_knows, run, name, len(names) - 1), name, daemon)
    time.sleep(SETTLE_S)
    barrier = threading.Barrier(len(names) + 1)
    with ThreadPoolExecutor(len(names)) as pool:
        answers = [pool.submit(_get, run, name, barrier) for name in names]
        meter = Meter(run, daemons)
        barrier.wait()
        done = [answer.result() for answer in answers]
    outcome = meter.stop({name: at for name, (at, _) in zip(names, done, strict=True)})
    right = run.right(
        {name: partial(_opened, run, name, told["ticket"])
         for name, (_, told) in zip(names, done, strict=True)}
    )  # fmt: skip
    found = outcome(right)
    found.notes["from_origin"] = [told["from_origin"] for _, told in done]
    if keep is not None:
        keep(run)
    return found


def task_story(run: Run, name: str) -> dict[str, Any]:
    """What `peerd task show --json` says of the run's one task."""
    tasks = client.ask(socket_of(run, name), "GET", "/v1/tasks")["tasks"]
    return client.ask(socket_of(run, name), "GET", f"/v1/tasks/{tasks[0]['task']}")


def start_daemon(run: Run, name: str) -> Any:
    first = run.case.names()[0]
    address = run.lab.address(name)
    words = [
        "join", "--data-dir", "data", "--socket", socket_of(run, name), "--name", name,
        "--listen", f"/ip4/{address}/tcp/{OVERLAY_PORT}", "--disk-reserve", "64MiB",
        "--metrics-listen", "off", "--health-listen", "off",
    ]  # fmt: skip
    if name != first:
        words += ["--bootstrap", f"{run.lab.address(first)}:{OVERLAY_PORT}"]
    if zone := run.case.zone_of()[name]:
        words += ["--zone", zone]
    return run.module(name, "peerd", *words)


def task_of(run: Run, name: str) -> list[str]:
    """The ids of what it holds."""
    tasks = client.ask(socket_of(run, name), "GET", "/v1/tasks")["tasks"]
    return [row["task"] for row in tasks]


def socket_of(run: Run, name: str) -> str:
    return str(run.place(name) / "s")


def _knows(run: Run, name: str, others: int) -> bool:
    try:
        peers: int = client.ask(socket_of(run, name), "GET", "/v1/status")["peers"]
    except DaemonUnreachable:
        return False
    return peers >= others


def _get(run: Run, name: str, barrier: threading.Barrier) -> tuple[float, dict[str, Any]]:
    barrier.wait()
    wish = {"url": run.url(), "timeout_s": run.limit_s()}
    *_, done = client.get(socket_of(run, name), wish)
    return time.monotonic(), done


def _opened(run: Run, name: str, ticket: str) -> Any:
    return os.fdopen(client.descriptor(socket_of(run, name), ticket), "rb")
