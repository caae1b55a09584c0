"""The control socket as a client sees it: one question a connection, in HTTP/1.0.

Always: 1.0 is meant: such an answer ends where its connection ends, so there are no chunks to
parse, and http.client, which takes longer to import than the question takes, is not needed; an
answer that was cut off is never taken for a whole one. Every error is one of errors.py.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

from peerd.errors import (
    DaemonForbidden,
    DaemonUnreachable,
    PeerdError,
    TimedOut,
    error_from,
)
from peerd.gateway.places import check_socket_path, default_data_dir, default_socket

ANSWER_TIMEOUT_S: Final = 30.0
"""Guess: a status is there in milliseconds; a daemon that is stopped (SIGSTOP) never answers."""
LINE_MAX_BYTES: Final = 1 << 20
HEAD_LINES_MAX: Final = 64
ANSWER_MAX_BYTES: Final = 64 << 20
"""A list of some 100,000 tasks."""
NOBODY: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})
"""What connect(2) says where no daemon listens."""


def socket_path(flag: str | None) -> str:
    """Where the daemon's socket is: --socket or PEERD_SOCKET, else the user's default."""
    if flag:
        return check_socket_path(flag)
    data_dir = os.environ.get("PEERD_DATA_DIR") or default_data_dir(os.environ, os.geteuid())
    return check_socket_path(default_socket(os.environ, os.geteuid(), data_dir))


def ask(path: str, method: str, target: str) -> dict[str, Any]:
    """The JSON answer of the daemon, or the error that it names."""
    with _connected(path) as connection:
        _send(connection, method, target, b"")
        with connection.makefile("rb") as stream:
            status = _read_head(stream)
            body = _guarded(lambda: stream.read(ANSWER_MAX_BYTES), path)
    return _checked(status, body)


def get(path: str, wish: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a download (ports.GetEvent as dicts); the last one is `done`.

    What failed is raised. Closing the iterator withdraws this caller.
    """
    timeout_s = wish.get("timeout_s")
    # The daemon keeps the time; this is for one that does not answer at all.
    ends_at = None if timeout_s is None else time.monotonic() + timeout_s + 5
    with _connected(path) as connection, connection.makefile("rb") as stream:
        _send(connection, "POST", "/v1/get", json.dumps(wish).encode())
        connection.settimeout(_left(ends_at))
        status = _read_head(stream)
        if status != 200:
            _checked(status, _guarded(lambda: stream.read(ANSWER_MAX_BYTES), path))
        while True:
            connection.settimeout(_left(ends_at))
            event = _parsed(_guarded(lambda: stream.readline(LINE_MAX_BYTES), path))
            if event.get("event") == "failed":
                raise error_from(str(event.get("code")), str(event.get("message")))
            yield event
            if event.get("event") == "done":
                return


def descriptor(path: str, ticket: str) -> int:
    """The read-only descriptor that a ticket stands for; the caller closes it."""
    received: list[int] = []
    answer = b""
    with _connected(path) as connection:
        _send(connection, "GET", f"/v1/descriptor?ticket={ticket}", b"")
        try:
            while len(answer) <= LINE_MAX_BYTES:
                data, fds, _, _ = socket.recv_fds(
                    connection, LINE_MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
                received += fds
                if not data:
                    break
                answer += data
        except OSError as error:
            _close(received)
            raise _went_away(path) from error
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        _checked(_status(head.partition(b"\r\n")[0]), body)
    except PeerdError:
        _close(received)
        raise
    if len(received) != 1:
        _close(received)
        raise DaemonUnreachable(f"the daemon on {path} passed no file; is it of another version?")
    return received[0]


def answers(path: str) -> bool:
    """Whether somebody listens there; raises where that cannot be told."""
    try:
        _connected(path).close()
    except DaemonUnreachable as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in NOBODY:
            return False
        raise
    return True


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT_S)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in NOBODY:
            raise DaemonUnreachable(
                f"no daemon answers on {path}; start one with `peerd join`, or name its socket "
                "with --socket"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise DaemonForbidden(
                f"you may not open the daemon's socket {path}; ask its owner to set socket_mode "
                "and socket_group, or run as that user"
            ) from error
        raise DaemonUnreachable(f"the daemon's socket {path} cannot be opened: {error}") from error
    return connection


def _send(connection: socket.socket, method: str, target: str, body: bytes) -> None:
    head = f"{method} {target} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        connection.sendall(head.encode("ascii") + body)
    except OSError as error:
        # A daemon that refuses early has answered, and then closed.
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise DaemonUnreachable(f"the daemon does not take the request: {error}") from error


def _read_head(stream: BinaryIO) -> int:
    lines = [_guarded(lambda: stream.readline(LINE_MAX_BYTES), "the control socket")]
    while lines[-1] not in (b"\r\n", b"") and len(lines) < HEAD_LINES_MAX:
        lines.append(_guarded(lambda: stream.readline(LINE_MAX_BYTES), "the control socket"))
    return _status(lines[0])


def _status(line: bytes) -> int:
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise DaemonUnreachable("what listens on the control socket is no peerd daemon")
    return int(parts[1])


def _checked(status: int, body: bytes) -> dict[str, Any]:
    answer = _parsed(body)
    error = answer.get("error")
    if status >= 400 and isinstance(error, dict):
        raise error_from(str(error.get("code")), str(error.get("message")))
    if status != 200:
        raise DaemonUnreachable(f"the daemon answered with status {status}")
    return answer


def _parsed(line: bytes) -> dict[str, Any]:
    """One JSON object; cut off, it is no JSON, or its line end is missing."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DaemonUnreachable(
            "the daemon stopped in mid-answer; its log says why. Run the command again: what it "
            "holds is kept"
        )
    return value


def _guarded(read: Any, path: str) -> bytes:
    try:
        data: bytes = read()
    except TimeoutError as error:
        raise TimedOut("the daemon did not answer in time; is it stopped or busy?") from error
    except OSError as error:
        raise _went_away(path) from error
    return data


def _went_away(path: str) -> DaemonUnreachable:
    return DaemonUnreachable(
        f"the daemon on {path} went away; run the command again: what it holds is kept"
    )


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(0.001, ends_at - time.monotonic())


def _close(descriptors: list[int]) -> None:
    for number in descriptors:
        os.close(number)
