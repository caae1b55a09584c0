"""One daemon in its namespace: started, killed, stopped, asked.

Always: its data directory outlives it, so that a start after a kill is a restart; everything that
may block is done in a thread and ends when the daemon does, or within the client's own timeouts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from peerd.cli import client
from peerd.errors import PeerdError
from tools.chaos.janitor import ROOT

T = TypeVar("T")
READY_S: Final = 40.0
"""A daemon promises 3 s; two cores that start many at once get more."""
POLL_S: Final = 0.05
OVERLAY_PORT: Final = 4010
LINK_PORT: Final = 4011


class Spoiled(Exception):
    """The run cannot be judged: something that the scenario needs did not happen."""


@dataclass(frozen=True)
class Got:
    """What one get came to: the last event, and the SHA-256 of what it delivered."""

    done: dict[str, Any]
    sha256: str


@dataclass
class Peer:
    name: str
    address: str
    home: Path
    inside: list[str]
    """The beginning of a command line that runs in its namespace."""
    settings: dict[str, Any]
    mode: str = ""
    """What it does wrong, of tools.chaos.liar; empty: nothing."""
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    peer_id: str = ""
    up: trio.Event = field(default_factory=trio.Event)
    """Set while its daemon answers."""

    @property
    def socket(self) -> str:
        return str(self.home / "s")

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    # Its life.

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = json.dumps(self.settings | {
            "data_dir": str(self.data_dir), "socket": self.socket, "name": self.name,
            "listen": [f"/ip4/{self.address}/tcp/{OVERLAY_PORT}"],
            "link_listen": f"{self.address}:{LINK_PORT}", "disk_reserve": "1MiB",
            "metrics_listen": "off", "health_listen": "off",
        })  # fmt: skip
        lies = [self.mode] if self.mode else []
        module = "tools.chaos.liar" if self.mode else "peerd.daemon"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PEERD_")}
        with (self.home / "out").open("ab") as out, (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, sys.executable, "-m", module, *lies, settings],
                stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                env=clean | {"PYTHONPATH": str(ROOT)} | self.environment,
            )  # fmt: skip

    async def ready(self) -> None:
        with trio.move_on_after(READY_S):
            while True:
                assert self.process is not None, "it was started"
                if self.process.poll() is not None:
                    break
                with contextlib.suppress(PeerdError):
                    self.peer_id = (await self.status())["peer_id"]
                    self.up.set()
                    return
                await trio.sleep(POLL_S)
        raise Spoiled(f"{self.name} does not start: {self.last_words()}")

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None, "it was started"
        self.up = trio.Event()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, "it was started"
        self.process.send_signal(number)

    def last_words(self) -> str:
        lines = (self.home / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    # What it is asked.

    async def status(self) -> dict[str, Any]:
        return await _aside(lambda: client.ask(self.socket, "GET", "/v1/status"))

    async def scheduler(self) -> dict[str, Any]:
        return await _aside(lambda: client.ask(self.socket, "GET", "/v1/scheduler"))

    async def peers(self) -> list[dict[str, Any]]:
        told = await _aside(lambda: client.ask(self.socket, "GET", "/v1/peers"))
        rows: list[dict[str, Any]] = told["peers"]
        return rows

    async def task(self, task: str) -> dict[str, Any]:
        return await _aside(lambda: client.ask(self.socket, "GET", f"/v1/tasks/{task}"))

    async def get(self, wish: dict[str, Any], saw: Callable[[dict[str, Any]], None]) -> Got:
        """Like `peerd get`; `saw` is called, in trio's thread, with each event."""

        def follow() -> Got:
            event: dict[str, Any] = {}
            for event in client.get(self.socket, wish):
                trio.from_thread.run_sync(saw, event)
            with os.fdopen(client.descriptor(self.socket, event["ticket"]), "rb") as content:
                return Got(event, hashlib.file_digest(content, "sha256").hexdigest())

        return await _aside(follow)

    # What it holds, as its journal says: also when it is dead.

    def pieces(self) -> dict[int, tuple[int, bool]]:
        """Sizes of the pieces it holds of its largest version, and whether it read them itself."""
        journal = self.data_dir / "journal.db"
        if not journal.exists():
            return {}
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as base:
            rows = base.execute(
                "SELECT idx, size, attester FROM pieces WHERE number ="
                " (SELECT number FROM pieces GROUP BY number ORDER BY SUM(size) DESC LIMIT 1)"
            ).fetchall()
        return {index: (size, attester == self.peer_id) for index, size, attester in rows}


async def _aside(work: Callable[[], T]) -> T:
    """In a thread that is left alone when nobody waits any more: it ends with its daemon."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
