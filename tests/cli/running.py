"""The command line as a real process, beside a control socket served in the test's own loop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from peerd.gateway.control import ControlServer
from tests.gateway.fake_control import FakeControl

URL = "http://origin.example/dir/file.bin"
Result = subprocess.CompletedProcess[bytes]


@asynccontextmanager
async def daemon(control: FakeControl, path: Path, **who: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(control, str(path), **who).run)
        yield str(path)
        nursery.cancel_scope.cancel()


async def peerd(*arguments: str, **environment: str) -> Result:
    """Runs `peerd`; never raises for its exit code."""
    return await trio.run_process(
        [sys.executable, "-m", "peerd", *arguments],
        env=clean_environment() | environment,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PEERD_")}


def left_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))
