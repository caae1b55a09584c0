"""`peerd demo`: an origin and N peers as real processes on loopback, one file to all at once.

Always: every process that was started is ended by its id, however the demo ends; what the origin
sent is the origin's own count; the direct download that it is compared with ran in the same
minute, against the same origin, and its bytes are not counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from peerd.cli import client, process
from peerd.cli.demo_peer import Peer
from peerd.cli.demo_show import Drawing, say, summary, words
from peerd.cli.get import end_in_order
from peerd.errors import (
    DaemonUnreachable,
    DigestMismatch,
    NoSpace,
    TimedOut,
    UsageError,
)
from peerd.units import format_duration, format_size, parse_size

SEED: Final = 1
KNOWN_S: Final = 15.0
"""Guess: gossip brings five peers together in about a second, on a busy machine in some."""
POLL_S: Final = 0.05
STALL_S: Final = 60.0
"""Guess: longer than any lease, so a dead reader is replaced well before."""
READ_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Origin:
    url: str
    sha256: str

    def sent_bytes(self) -> int:
        """Body bytes it has sent, by its own count."""
        with _http(self.url, "/.stats") as answer:
            return int(json.load(answer)["body_bytes"])


Command = Callable[..., list[str]]


def run(count: int, size_text: str, as_json: bool, command: Command = process.cli_command) -> None:
    """The whole demo; raises the first peer's error, or DigestMismatch, after the table.

    `command` makes a process out of the arguments of `peerd`.
    """
    try:
        size_bytes = parse_size(size_text)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error
    if size_bytes <= 0:
        raise UsageError("--size: the file has at least one byte")
    end_in_order()
    with tempfile.TemporaryDirectory(prefix="peerd-demo-") as place, _processes() as started:
        _check_space(place, (2 * count + 1) * size_bytes)
        origin = _start_origin(place, size_bytes, started)
        direct_s = _direct(origin, os.path.join(place, "direct"))
        say(f"one direct download: {format_duration(direct_s)}")
        peers = _start_peers(place, count, command, started)
        before = origin.sent_bytes()
        seconds = _all_at_once(peers, origin.url, size_bytes)
        copies = (origin.sent_bytes() - before) / size_bytes
        for peer in peers:
            peer.verified = bool(peer.done) and _sha256(peer.output) == origin.sha256
    if as_json:
        print(json.dumps(summary(peers, size_bytes, copies, seconds, direct_s)))
    else:
        print(words(peers, copies, seconds, direct_s))
    _raise_first(peers)


# --- processes --------------------------------------------------------------------------------


@contextlib.contextmanager
def _processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        process.stop(started)


def _start(
    command: list[str], log_path: str, started: list[subprocess.Popen[bytes]], **more: Any
) -> subprocess.Popen[bytes]:
    """A child out of our process group: Ctrl-C is for us, and we end it in order."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PEERD_") and not name.lower().endswith("_proxy")
    }
    with open(log_path, "wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=log,
            env=environment,
            process_group=0,
            **more,
        )
    started.append(child)
    return child


def _start_origin(place: str, size_bytes: int, started: list[subprocess.Popen[bytes]]) -> Origin:
    log_path = os.path.join(place, "origin.log")
    command = [sys.executable, "-m", "peerd.cli.origin_server", "--port", "0"]
    command += ["--size", str(size_bytes), "--seed", str(SEED)]
    child = _start(command, log_path, started, stdout=subprocess.PIPE)
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise DaemonUnreachable(f"the demo's origin did not start; {process.tail(log_path)}")
    said = json.loads(line)
    return Origin(said["url"], said["sha256"].removeprefix("sha256:"))


def _start_peers(
    place: str, count: int, command: Command, started: list[subprocess.Popen[bytes]]
) -> list[Peer]:
    """All of them ready, and, if that takes no longer than KNOWN_S, known to each other."""
    ports = _free_ports(2 * count)
    peers = [
        Peer(f"peer-{n + 1}", os.path.join(place, f"p{n + 1}"), ports[2 * n], ports[2 * n + 1])
        for n in range(count)
    ]
    say(f"starting {count} peers")
    for first, peer in zip([None] + [peers[0]] * (count - 1), peers, strict=True):
        os.mkdir(peer.place)
        log_path = os.path.join(peer.place, "log")
        child = _start(
            command(*peer.arguments(first)), log_path, started, stdout=subprocess.DEVNULL
        )
        if first is None:
            process.wait_ready(child, peer.socket, log_path)
    for peer, child in zip(peers, started[1:], strict=True):
        process.wait_ready(child, peer.socket, os.path.join(peer.place, "log"))
    ends_at = time.monotonic() + KNOWN_S
    while time.monotonic() < ends_at:
        if all(
            client.ask(peer.socket, "GET", "/v1/status")["peers"] >= count - 1 for peer in peers
        ):
            return peers
        time.sleep(POLL_S)
    say(f"not all peers know each other after {KNOWN_S:.0f} s; going on")
    return peers


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: all were open at once, so they differ."""
    import socket

    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _check_space(place: str, wanted_bytes: int) -> None:
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < wanted_bytes:
        raise NoSpace(
            f"the demo writes {format_size(wanted_bytes)} to {place} and {format_size(free_bytes)} "
            "are free; choose a smaller --size, or another place with TMPDIR"
        )


# --- the downloads ----------------------------------------------------------------------------


@contextlib.contextmanager
def _http(url: str, path: str | None = None) -> Iterator[http.client.HTTPResponse]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", path or parts.path)
        yield connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise DaemonUnreachable(f"the demo's origin does not answer: {error}") from error
    finally:
        connection.close()


def _direct(origin: Origin, path: str) -> float:
    """Seconds that one plain download to a file takes, without any check of its bytes."""
    began = time.monotonic()
    with _http(origin.url) as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file, READ_BYTES)
    seconds = time.monotonic() - began
    os.unlink(path)
    return seconds


def _all_at_once(peers: list[Peer], url: str, size_bytes: int) -> float:
    """Seconds until the last of them has its file; TimedOut where nothing moves any more."""
    began = moved_at = time.monotonic()
    threads = [threading.Thread(target=peer.get, args=(url, began), daemon=True) for peer in peers]
    for thread in threads:
        thread.start()
    drawing, held_bytes = Drawing(peers, size_bytes), 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(POLL_S)
        drawing.draw()
        held_before, held_bytes = held_bytes, sum(peer.held_bytes for peer in peers)
        moved_at = time.monotonic() if held_bytes > held_before else moved_at
        if time.monotonic() - moved_at > STALL_S:
            raise TimedOut(_stalled(peers))
    return max(peer.seconds or 0.0 for peer in peers)


def _stalled(peers: list[Peer]) -> str:
    waiting = [peer for peer in peers if peer.seconds is None]
    last = process.tail(os.path.join(waiting[0].place, "log"))
    names = ", ".join(peer.name for peer in waiting)
    return f"nothing arrived for {STALL_S:.0f} s at {names}; {waiting[0].name} said last: {last}"


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _raise_first(peers: list[Peer]) -> None:
    for peer in peers:
        if peer.error is not None:
            raise type(peer.error)(f"{peer.name}: {peer.error}")
        if not peer.verified:
            raise DigestMismatch(f"{peer.name} got other bytes than the origin sent")
