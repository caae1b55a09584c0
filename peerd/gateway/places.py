"""Where a user's daemon is found on this machine: its data directory and its control socket.

Always: the standard library alone, and little of it: the command line imports this on every start
(docs/adr/0008).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from peerd.errors import UsageError

SOCKET_PATH_MAX_BYTES: Final = 107
"""sockaddr_un.sun_path is 108 bytes with its closing zero: unix(7)."""
ROOT_DATA_DIR: Final = "/var/lib/peerd"
ROOT_SOCKET: Final = "/run/peerd/peerd.sock"
LINGER: Final = b"linger\n"
"""Said on its standard input to a daemon that was started for one download: it has been useful,
and may stay for others (docs/adr/0016)."""


def default_data_dir(environment: Mapping[str, str], user_id: int) -> str:
    """/var/lib/peerd for root, else peerd under the user's XDG data directory."""
    if user_id == 0:
        return ROOT_DATA_DIR
    base = environment.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):  # The XDG specification: a relative path is ignored.
        base = os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "peerd")


def default_socket(environment: Mapping[str, str], user_id: int, data_dir: str) -> str:
    """/run/peerd/peerd.sock for root, else in $XDG_RUNTIME_DIR, else in the data directory."""
    if user_id == 0:
        return ROOT_SOCKET
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime if os.path.isabs(runtime) else data_dir, "peerd.sock")


def check_socket_path(path: str) -> str:
    """The path, absolute; UsageError where no unix socket can have that name."""
    if not path or "\0" in path:
        raise UsageError(f"{path!r} is no path for a socket")
    absolute = os.path.abspath(os.path.expanduser(path))
    size = len(os.fsencode(absolute))
    if size > SOCKET_PATH_MAX_BYTES:
        raise UsageError(
            f"the socket path {absolute} has {size} bytes and the kernel takes at most "
            f"{SOCKET_PATH_MAX_BYTES}; choose a shorter one with --socket"
        )
    return absolute
