"""A daemon for the length of one download, where none is running.

Always: it uses the default data directory, so that a cut-off download goes on where it stopped,
and a socket of its own in a fresh directory; only one such daemon runs in a data directory, others
wait for their turn; it ends with us, because its standard input closes even if we are killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from peerd.cli import process
from peerd.errors import UsageError
from peerd.gateway.places import default_data_dir

LOCK_NAME: Final = "get.lock"


@contextlib.contextmanager
def daemon(
    command: Callable[[Mapping[str, Any]], list[str]] = process.daemon_command,
) -> Iterator[str]:
    """The path of its control socket. Raises what the daemon said if it could not start."""
    with _turn(os.environ.get("PEERD_DATA_DIR") or default_data_dir(os.environ, os.geteuid())):
        # Not $TMPDIR: it may be too long a path for a socket.
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        place = tempfile.mkdtemp(prefix="peerd-", dir=runtime if os.path.isdir(runtime) else "/tmp")
        try:
            with _running(command, place) as path:
                yield path
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _running(command: Callable[[Mapping[str, Any]], list[str]], place: str) -> Iterator[str]:
    path, log_path = os.path.join(place, "peerd.sock"), os.path.join(place, "log")
    with open(log_path, "wb") as log:
        child = subprocess.Popen(
            command({"ephemeral": True, "socket": path}),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            process_group=0,  # Ctrl-C is for us: we end it in order.
        )
    try:
        process.wait_ready(child, path, log_path)
        yield path
    finally:
        process.stop([child])


@contextlib.contextmanager
def _turn(data_dir: str) -> Iterator[None]:
    """Holds the data directory's lock for downloads without a daemon."""
    try:
        os.makedirs(data_dir, mode=0o700, exist_ok=True)
        descriptor = os.open(
            os.path.join(data_dir, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise UsageError(
            f"no daemon runs, and none can be started in {data_dir}: {error.strerror}; start one "
            "with `peerd join`, or set PEERD_DATA_DIR"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(
                f"peerd: waiting for another download without a daemon in {data_dir}; with "
                "`peerd join` they run at once\n"
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
