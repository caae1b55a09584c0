"""Real daemons, a real origin, real sockets: what an end-to-end story is told with.

Always: every process is started in the lab's folder and ended by its id when the lab closes; a
daemon that dies unasked fails the story with its log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peerd.cli import client
from peerd.errors import PeerdError

MIB = 1 << 20
READY_S = 20.0
"""A daemon promises 3 s; two cores that start five at once get more."""


@dataclass
class Origin:
    """A real HTTP origin with one file."""

    process: subprocess.Popen[str]
    url: str
    digest: str
    changed: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.rsplit("/", 1)[0] + "/.stats", timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def body_bytes(self) -> int:
        return int(self.stats()["body_bytes"])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Got:
    """What one get came to: `done` (the last event) and the bytes' digest, or the error."""

    peer: Peer
    asked_at: float
    done: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    error: PeerdError | None = None
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Peer:
    """One `peerd join` process."""

    name: str
    home: Path
    overlay_port: int
    link_port: int
    flags: list[str]
    mode: str = ""
    socket_name: str = "s"
    watched: str = "off"
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.home / self.socket_name)

    def start(self, wait: bool = True) -> None:
        self.home.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "peerd", "join", "--data-dir", str(self.home / "data"),
            "--socket", self.socket, "--listen", f"/ip4/127.0.0.1/tcp/{self.overlay_port}",
            "--link-listen", f"127.0.0.1:{self.link_port}", "--name", self.name,
            "--disk-reserve", "64MiB", "--metrics-listen", self.watched,
            "--health-listen", self.watched, *self.flags,
        ]  # fmt: skip
        if self.mode:
            command = [sys.executable, "-m", "tools.chaos.liar", self.mode, self._settings(command)]
        with (self.home / "out").open("ab") as out, (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=log, env=os.environ | self.environment
            )
        if wait:
            self.wait_ready()

    def _settings(self, command: list[str]) -> str:
        """The same flags as one JSON object, for a daemon that is not started by `peerd join`."""
        flags = command[4:]
        said: dict[str, Any] = {}
        for name, value in zip(flags[::2], flags[1::2], strict=True):
            key = name.removeprefix("--").replace("-", "_")
            said[key] = [value] if key in ("listen", "bootstrap") else value
        return json.dumps(said)

    def wait_ready(self) -> None:
        ends_at = time.monotonic() + READY_S
        while time.monotonic() < ends_at:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} died:\n{self.log()[-3000:]}"
            with contextlib.suppress(PeerdError):
                client.ask(self.socket, "GET", "/v1/status")
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} is not ready:\n{self.log()[-3000:]}")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """The signal, and the exit code that followed."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        return client.ask(self.socket, "GET", "/v1/status")

    def peers(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = client.ask(self.socket, "GET", "/v1/peers")["peers"]
        return rows

    def tasks(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = client.ask(self.socket, "GET", "/v1/tasks")["tasks"]
        return rows

    def task(self, task: str) -> dict[str, Any]:
        return client.ask(self.socket, "GET", f"/v1/tasks/{task}")

    def get(self, url: str, at: float = 0.0, **wish: Any) -> Got:
        """Like `peerd get`, from this process: asks at the moment `at` of the monotonic clock."""
        request = {"url": url, **wish}
        time.sleep(max(0.0, at - time.monotonic()))
        got = Got(self, time.monotonic())
        try:
            for event in client.get(self.socket, request):
                got.events.append(event)
            got.done = got.events[-1]
            got.sha256 = self._digest(got.done["ticket"])
        except PeerdError as error:
            got.error = error
        return got

    def _digest(self, ticket: str) -> str:
        with os.fdopen(client.descriptor(self.socket, ticket), "rb") as content:
            return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


class Lab:
    """Starts and ends everything of one story."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self.peers: list[Peer] = []

    def origin(self, size: int, *flags: str, seed: int = 1) -> Origin:
        command = [
            sys.executable, "-m", "peerd.cli.origin_server", "--port", "0", "--size", str(size),
            "--seed", str(seed), *flags,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        return Origin(
            process, told["url"], f"sha256:{told['sha256']}", f"sha256:{told.get('sha256_changed')}"
        )

    def peer(self, *flags: str, bootstrap: Peer | None = None, start: bool = True) -> Peer:
        """The first peer is the others' bootstrap unless another is named."""
        name = f"peer{len(self.peers)}"
        door = bootstrap or (self.peers[0] if self.peers else None)
        known = ["--bootstrap", f"127.0.0.1:{door.overlay_port}"] if door else []
        peer = Peer(name, self.folder / name, free_port(), free_port(), [*known, *flags])
        self.peers.append(peer)
        if start:
            peer.start()
        return peer

    def group(self, count: int, *flags: str) -> list[Peer]:
        """So many peers that all know each other."""
        peers = [self.peer(*flags)]
        peers += [self.peer(*flags, start=False) for _ in range(count - 1)]
        for peer in peers[1:]:
            peer.start(wait=False)
        for peer in peers[1:]:
            peer.wait_ready()
        self.acquainted(peers)
        return peers

    def acquainted(self, peers: Sequence[Peer], seconds: float = 20.0) -> None:
        """Returns when each of these knows all the others."""
        ends_at = time.monotonic() + seconds
        while True:
            known = [peer.status()["peers"] for peer in peers]
            if all(count >= len(peers) - 1 for count in known):
                return
            assert time.monotonic() < ends_at, f"they know {known} others: {self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.log()[-4000:]}" for p in self.peers)

    def close(self) -> None:
        for peer in self.peers:
            if peer.process is not None and peer.process.poll() is None:
                peer.process.kill()
        for peer in self.peers:
            if peer.process is not None:
                peer.process.wait()
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


PORTS = range(12_000, 32_000)
"""Below those that the system gives to whoever dials: a dial cannot take one meanwhile."""

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, nor was given one before, who may not listen there yet; by
    chance, for suites that run side by side."""
    while True:
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


@contextlib.contextmanager
def gets(peers: Sequence[Peer], url: str, **wish: Any) -> Iterator[list[Got]]:
    """All ask at one moment; the list is full when the block is left."""
    found: list[Got] = []
    at = time.monotonic() + 0.2
    threads = [
        threading.Thread(target=lambda p=peer: found.append(p.get(url, at, **wish)))
        for peer in peers
    ]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        for thread in threads:
            thread.join()


def all_get(peers: Sequence[Peer], url: str, **wish: Any) -> list[Got]:
    with gets(peers, url, **wish) as found:
        pass
    return found


def check_right(found: Sequence[Got], origin: Origin) -> None:
    """Every one of them got the origin's bytes."""
    for got in found:
        assert got.error is None, f"{got.peer.name}: {got.error!r}\n{got.peer.log()[-3000:]}"
        assert got.sha256 == origin.digest, f"{got.peer.name} got wrong bytes"
