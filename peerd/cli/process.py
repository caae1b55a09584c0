"""Daemons as processes: how one is started, waited for, and ended by its id.

Always: a process that was started here is ended here, by its own id: SIGTERM, then, after more
than the 5 s that a daemon has, SIGKILL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from peerd.cli import client
from peerd.errors import DaemonUnreachable, PeerdError, error_classes

READY_S: Final = 10.0
"""A daemon is ready within 3 s (issue 2); a busy machine gets more."""
READY_POLL_S: Final = 0.02
STOP_S: Final = 7.0
LOG_TAIL_BYTES: Final = 4096


def daemon_command(overrides: Mapping[str, Any]) -> list[str]:
    """The command that runs a daemon with these settings. -P: not the working directory's code."""
    return [sys.executable, *_flags(), "-m", "peerd.daemon", json.dumps(overrides)]


def cli_command(*arguments: str) -> list[str]:
    """The command that runs `peerd` with these arguments."""
    return [sys.executable, *_flags(), "-m", "peerd", *arguments]


def _flags() -> list[str]:
    """-P where peerd is installed. Run from a checkout's root it is found by being there."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found_by_working_directory = sys.path[:1] in ([""], [os.getcwd()]) and home == os.getcwd()
    return [] if found_by_working_directory else ["-P"]


def wait_ready(process: subprocess.Popen[bytes], path: str, log_path: str) -> None:
    """Returns when the daemon answers; else raises what it said on its way out."""
    ends_at = time.monotonic() + READY_S
    while time.monotonic() < ends_at:
        if client.answers(path):
            return
        if process.poll() is not None:
            raise _death(process.returncode, log_path)
        time.sleep(READY_POLL_S)
    raise DaemonUnreachable(f"the daemon was not ready after {READY_S:.0f} s; {tail(log_path)}")


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ends them all, together."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    ends_at = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _death(exit_code: int, log_path: str) -> PeerdError:
    """The error that the daemon ended with, by its exit code and its last line."""
    for cls in error_classes().values():
        if cls.exit_code == exit_code:
            return cls(tail(log_path))
    return DaemonUnreachable(
        f"the daemon could not be started (exit code {exit_code}); {tail(log_path)}"
    )


def tail(log_path: str) -> str:
    """The last line that the daemon wrote."""
    try:
        with open(log_path, "rb") as stream:
            stream.seek(max(0, os.path.getsize(log_path) - LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].removeprefix("peerd: ") if lines else "it said nothing"
