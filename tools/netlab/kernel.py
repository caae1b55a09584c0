"""The door to the kernel: ip, tc and nft, run with lists of lines, and what /proc knows.

Always: what they say when they fail is raised as LabError, with the line that failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from peerd.errors import PeerdError, UsageError
from tools.netlab.spec import Counters

NETNS: Final = Path("/run/netns")
PACKAGES: Final = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}
ENDS_S: Final = 10.0
"""A killed process is gone in milliseconds, unless the disk holds it."""


class LabError(PeerdError):
    """The kernel refused what a lab needs; the message has its words."""

    code, exit_code = "netlab", 90


def check_able() -> None:
    """Raises UsageError, in one sentence, where no lab can be made."""
    if os.geteuid() != 0:
        raise UsageError("a lab needs root, for network namespaces: run this again with sudo")
    for command, package in PACKAGES.items():
        if shutil.which(command) is None:
            raise UsageError(f"a lab needs {command}: type apt-get install -y {package}")


def ip(lines: Iterable[str], namespace: str | None = None) -> None:
    _batch(["ip", *_in(namespace), "-batch", "-"], lines)


def tc(lines: Iterable[str], namespace: str | None = None) -> None:
    _batch(["tc", *_in(namespace), "-batch", "-"], lines)


def nft(text: str, namespace: str) -> None:
    run(inside(namespace, ["nft", "-f", "-"]), text)


def inside(namespace: str, command: Iterable[str]) -> list[str]:
    """The command line that runs a command there; it becomes the command, same process id."""
    return ["ip", "netns", "exec", namespace, *command]


def counters(namespace: str, device: str) -> tuple[Counters, Counters]:
    """What was received and what was sent."""
    said = run(["ip", "-n", namespace, "-s", "-j", "link", "show", "dev", device])
    stats = json.loads(said)[0]["stats64"]
    received, sent = stats["rx"], stats["tx"]
    return (
        Counters(received["bytes"], received["packets"]),
        Counters(sent["bytes"], sent["packets"]),
    )


def exists(namespace: str, device: str) -> bool:
    command = ["ip", "-n", namespace, "link", "show", "dev", device]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"{' '.join(command)}: {'; '.join(words[:3]) or 'failed without a word'}")
    return done.stdout


def namespaces(prefix: str) -> list[str]:
    if not NETNS.is_dir():
        return []
    return sorted(entry.name for entry in NETNS.iterdir() if entry.name.startswith(prefix))


def remove(names: list[str]) -> None:
    """Ends every process inside these namespaces, then the namespaces."""
    end_inside(names)
    # -force: one that somebody else has just removed is no reason to leave the others.
    command = ["ip", "-force", "-batch", "-"]
    text = "".join(f"netns del {name}\n" for name in names if (NETNS / name).exists())
    subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    left = [name for name in names if (NETNS / name).exists()]
    if left:
        raise LabError(f"these namespaces cannot be removed: {', '.join(left)}")


def end_inside(names: Iterable[str]) -> None:
    """SIGKILL to every process whose network is one of these; returns when they are gone."""
    inodes = {inode for name in names if (inode := _inode(NETNS / name))}
    ends_at = time.monotonic() + ENDS_S
    while pids := _inhabitants(inodes):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > ends_at:
            raise LabError(f"processes {pids} in the lab do not end")
        time.sleep(0.01)


def end(pid: int) -> None:
    """SIGKILL to one process that is no child; returns when it is gone."""
    ends_at = time.monotonic() + ENDS_S
    while started_at(pid) is not None:
        os.kill(pid, signal.SIGKILL)
        if time.monotonic() > ends_at:
            raise LabError(f"process {pid} does not end")
        time.sleep(0.01)


def started_at(pid: int) -> int | None:
    """When a process started, in ticks since boot: with its id, who it is. None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _inhabitants(inodes: set[int]) -> list[int]:
    if not inodes:
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _inode(Path(f"/proc/{pid}/ns/net")) in inodes]


def _inode(path: Path) -> int | None:
    """A process that has ended but was not waited for has no namespace any more."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _batch(command: list[str], lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        run(command, text)
