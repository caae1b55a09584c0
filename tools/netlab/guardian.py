"""Waits for the end of a lab's owner, however it ends, and removes the lab.

Started by the owner, in a session of its own. It watches a process descriptor and not a pipe: the
owner's children may inherit a pipe's end, and then it never closes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from peerd.errors import UsageError
from tools.netlab import record


def start(name: str) -> subprocess.Popen[bytes]:
    checkout = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env=os.environ | {"PYTHONPATH": checkout},
        start_new_session=True,
    )


def watch(name: str) -> None:
    """Returns when the lab is gone."""
    try:
        kept = record.load(name)
    except UsageError:
        return
    if kept.owner_pid is not None:
        try:
            owner = os.pidfd_open(kept.owner_pid)
        except ProcessLookupError:
            owner = None
        # Opened first, compared then: from here on the descriptor is the owner, or it has ended.
        if owner is not None and not kept.orphaned():
            select.select([owner], [], [])
    record.remove(name)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(sys.argv[1])
