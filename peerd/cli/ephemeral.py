"""A daemon for the length of one download, where none is running; it may linger (docs/adr/0016).

Always: it uses the default data directory, so that a cut-off download goes on where it stopped,
and a socket of its own in a fresh directory; only one such daemon runs in a data directory, others
wait for their turn, or use the one that lingers there; until it lingers it ends with us, because
its standard input closes even if we are killed.

Who holds `get.lock` runs that daemon; one that lingers has it from us, and its socket and settings
stand inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from peerd.cli import client, process
from peerd.errors import PeerdError, UsageError
from peerd.gateway.places import LINGER, default_data_dir

LOCK_NAME: Final = "get.lock"
LOCK_MAX_BYTES: Final = 4096
TURN_POLL_S: Final = 0.05
GIVE_WAY_S: Final = 6.0
"""A daemon ends within 5 s of SIGTERM."""
PLACE_PREFIX: Final = "peerd-"
NOT_SETTINGS: Final = ("PEERD_SOCKET", "PEERD_LINGER_S")

Command = Callable[[Mapping[str, Any]], list[str]]


def data_directory() -> str:
    return os.environ.get("PEERD_DATA_DIR") or default_data_dir(os.environ, os.geteuid())


@contextlib.contextmanager
def daemon(
    command: Command = process.daemon_command, linger_s: float | None = None
) -> Iterator[tuple[str, bool]]:
    """The path of its control socket, and whether it is one that lingered here.

    Raises what the daemon said if it could not start. One that was started here lingers when the
    block is left without an error, if it has reasons to; `linger_s`: at most so long.
    """
    lock = _open_lock(data_directory())
    try:
        lingerer = _turn(lock)
        if lingerer is not None:
            yield lingerer, True
            return
        # Not $TMPDIR: it may be too long a path for a socket.
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        where = runtime if os.path.isdir(runtime) else "/tmp"
        place = tempfile.mkdtemp(prefix=PLACE_PREFIX, dir=where)
        overrides = {} if linger_s is None else {"linger_s": linger_s}
        lingers = False
        try:
            child = _start(command, overrides, place, lock)
            try:
                path = os.path.join(place, "peerd.sock")
                process.wait_ready(child, path, os.path.join(place, "log"))
                yield path, False
                lingers = _let_linger(child, path, lock)
            finally:
                if not lingers:
                    process.stop([child])
        finally:
            if lingers:
                os.unlink(os.path.join(place, "log"))
            else:
                shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(lock)


def give_way(data_dir: str) -> None:
    """Ends a daemon that lingers in that directory and is not used: another wants its place."""
    try:
        lock = os.open(os.path.join(data_dir, LOCK_NAME), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        lingerer = None if _taken(lock) else _lingerer(lock)
        if lingerer is None or not _end(str(lingerer["socket"])):
            return
        ends_at = time.monotonic() + GIVE_WAY_S
        while not _taken(lock) and time.monotonic() < ends_at:
            time.sleep(TURN_POLL_S)
    finally:
        os.close(lock)


# --- whose turn it is


def _open_lock(data_dir: str) -> int:
    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
        return os.open(
            os.path.join(data_dir, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise UsageError(
            f"no daemon runs, and none can be started in {data_dir}: {error.strerror}; start one "
            "with `peerd join`, or set PEERD_DATA_DIR"
        ) from error


def _turn(lock: int) -> str | None:
    """Returns with the lock, or with the socket of a daemon that lingers with our settings."""
    said, ended = False, set()
    while not _taken(lock):
        lingerer = _lingerer(lock)
        path = "" if lingerer is None else str(lingerer["socket"])
        if lingerer is not None and lingerer["settings"] == _settings() and client.answers(path):
            return path
        if path and path not in ended and _end(path):
            ended.add(path)  # A second SIGTERM would cut it off.
        elif path not in ended and not said:
            said = True
            sys.stderr.write(
                f"peerd: waiting for another download without a daemon in {data_directory()}; "
                "with `peerd join` they run at once\n"
            )
        time.sleep(TURN_POLL_S)
    _tidy(lock)
    return None


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tidy(lock: int) -> None:
    """What a lingering daemon left that was killed."""
    lingerer = _lingerer(lock)
    if lingerer is not None:
        place = os.path.dirname(str(lingerer["socket"]))
        if os.path.basename(place).startswith(PLACE_PREFIX):
            with contextlib.suppress(OSError):
                os.unlink(str(lingerer["socket"]))
            with contextlib.suppress(OSError):
                os.rmdir(place)
    os.ftruncate(lock, 0)


# --- one that lingers


def _lingerer(lock: int) -> dict[str, Any] | None:
    """What stands in the lock's file; None while nobody lingers."""
    try:
        said = json.loads(os.pread(lock, LOCK_MAX_BYTES, 0))
    except ValueError:
        return None
    return said if isinstance(said, dict) and {"socket", "settings"} <= said.keys() else None


def _settings() -> str:
    """What the environment says of a daemon, in short: another one is not ours to use."""
    said = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("PEERD_") and name not in NOT_SETTINGS
    )
    return hashlib.sha256("\0".join(said).encode(errors="surrogateescape")).hexdigest()


def _let_linger(child: subprocess.Popen[bytes], path: str, lock: int) -> bool:
    """Tells our daemon that it may stay without us; False where it has no reason to."""
    try:
        if not client.ask(path, "GET", "/v1/status").get("lingers"):
            return False
        said = json.dumps({"socket": path, "settings": _settings()})
        os.pwrite(lock, said.encode(), 0)
        assert child.stdin is not None, "started with a pipe"
        child.stdin.write(LINGER)
        child.stdin.close()
    except (PeerdError, OSError):
        return False  # It has just ended.
    return True


def _end(path: str) -> bool:
    """SIGTERM to who listens there, unless it is being used; whether it is ending now."""
    try:
        if client.ask(path, "GET", "/v1/status").get("downloads"):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(GIVE_WAY_S)
            connection.connect(path)
            who = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        os.kill(struct.unpack("3i", who)[0], signal.SIGTERM)
    except (PeerdError, OSError):
        pass  # It ends already.
    return True


def _start(
    command: Command, overrides: Mapping[str, Any], place: str, lock: int
) -> subprocess.Popen[bytes]:
    with open(os.path.join(place, "log"), "wb") as log:
        return subprocess.Popen(
            command({"ephemeral": True, "socket": os.path.join(place, "peerd.sock"), **overrides}),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock,),  # Held for as long as either of us lives.
            start_new_session=True,  # Ctrl-C and a closed terminal are for us: we end it in order.
        )
