"""What a daemon owes the system around it: logs, signals, readiness, and a look inside.

Always: a first SIGTERM or SIGINT ends in order, a second at once; SIGUSR1 changes nothing but the
log.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final

import trio

log = logging.getLogger("peerd")

SECOND_SIGNAL_EXIT: Final = 128 + signal.SIGTERM


class JsonLines(logging.Formatter):
    """One JSON object a line, for machines that gather logs."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)


class TextLines(logging.Formatter):
    """Time, level, where, what: for people."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("peerd.")
        line = f"{_time(record.created)} {record.levelname:<7} {name}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _time(seconds: float) -> str:
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up_logging(level: str, form: str) -> None:
    """To standard error; libraries speak only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("peerd").setLevel(level.upper())


async def watch_signals(
    stop: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Cancels `stop` at the first SIGTERM or SIGINT; ends the process at the second."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    with trio.open_signal_receiver(*wanted) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGUSR1:
                log.warning("tasks:\n%s", "\n".join(task_tree()))
            elif stop.cancel_called:
                os._exit(SECOND_SIGNAL_EXIT)
            else:
                log.info("stopping on %s", signal.Signals(number).name)
                stop.cancel()


def notify_ready() -> None:
    """READY=1 to systemd, where it started us (sd_notify(3)); nothing otherwise."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(b"READY=1\n", address)
        except OSError as error:
            log.warning("systemd could not be told that peerd is ready: %s", error)


def task_tree() -> list[str]:
    """Every trio task with where it stands, indented by nursery."""
    root = trio.lowlevel.current_root_task()
    return [] if root is None else list(_branch(root, 0))


def _branch(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name} {_where(task)}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _branch(child, depth + 1)


def _where(task: trio.lowlevel.Task) -> str:
    """The innermost frame of ours, else the innermost at all."""
    frames = [(frame, line) for frame, line in task.iter_await_frames()]
    ours = [(f, line) for f, line in frames if "peerd" in f.f_code.co_filename]
    chosen = (ours or frames)[-1:]
    return "".join(f"at {f.f_code.co_filename}:{line} {f.f_code.co_name}" for f, line in chosen)
