"""The origin's process, as scenarios hold it: its address, what it sent, what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from peerd.cli.origin_server import CONTENT_PATH
from tools.chaos.janitor import ROOT
from tools.chaos.origin_process import PORT
from tools.chaos.peer import Spoiled

ANSWERS_S: Final = 20.0
"""It makes its content first: a second for 64 MiB, and two cores are shared."""


@dataclass(frozen=True)
class Sent:
    """What left the origin so far: of the content, to whom, and in all."""

    content_bytes: int
    by_address: dict[str, int]
    body_bytes: int
    old_bytes: int
    """Of the content as it was before it changed."""
    statuses: dict[str, int]


class Origin:
    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self._base = f"http://{address}:{PORT}"
        self.url = self._base + CONTENT_PATH
        self.sha256 = self.sha256_changed = ""

    @classmethod
    async def start(
        cls, inside: list[str], address: str, size_bytes: int, seed: int, folder: Path
    ) -> Origin:
        command = [*inside, sys.executable, "-m", "tools.chaos.origin_process", address,
                   str(size_bytes), str(seed)]  # fmt: skip
        origin = cls(_process(command, folder), address)
        origin.sha256, origin.sha256_changed = (await origin._line())["digests"]
        return origin

    def small(self, number: int) -> str:
        return f"{self._base}/small-{number}"

    async def sent(self) -> Sent:
        told = await self._order({})
        return Sent(told["content_bytes"], told["sent"], told["body_bytes"], told["old_bytes"],
                    told["statuses"])  # fmt: skip

    async def faults(self, **faults: Any) -> None:
        """These, of peerd.cli.origin_serving.Faults, and no others, from the next request on."""
        await self._order({"faults": faults})

    async def change(self) -> None:
        await self._order({"change": True})

    async def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return await self._line()

    async def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with trio.move_on_after(ANSWERS_S):
            line = await trio.to_thread.run_sync(
                self.process.stdout.readline, abandon_on_cancel=True
            )
            if line:
                told: dict[str, Any] = json.loads(line)
                return told
        raise Spoiled("the origin does not answer; origin.log says why")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def _process(command: list[str], folder: Path) -> subprocess.Popen[str]:
    with (folder / "origin.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        )  # fmt: skip
