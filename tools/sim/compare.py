"""The same scenario on another commit, and what differs.

Always: the other commit's simulator runs that commit's cores, in a folder of its own that is gone
afterwards; the scenario's file is the one from here.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from peerd.errors import UsageError

ROOT: Final = Path(__file__).parents[2]
SHOWN: Final = (
    ("time p50", "time_over_bound", "p50"),
    ("time p99", "time_over_bound", "p99"),
    ("time max", "time_over_bound", "max"),
    ("untroubled max", "survivors_max"),
    ("origin copies", "origin_copies"),
    ("zone copies", "zone_copies"),
    ("wasted bytes", "wasted_bytes"),
    ("control B/s a peer", "control_bytes_per_peer_s"),
    ("gossip B/s a peer", "gossip_bytes_per_peer_s"),
    ("failed", "failed"),
    ("CPU s", "cpu_s"),
)  # fmt: skip


def run_at(revision: str, arguments: list[str]) -> dict[str, Any]:
    """The result of `python -m tools.sim run ARGUMENTS --json` at `revision`."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision, "peerd", "tools"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        raise UsageError(f"--compare {revision}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory(prefix="peerd-sim-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        if not (Path(folder) / "tools" / "sim" / "__main__.py").is_file():
            raise UsageError(f"--compare {revision}: that commit has no simulator")
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "tools.sim", "run", *arguments, "--json"],
            cwd=folder, env={**os.environ, "PYTHONPATH": folder, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
    if ran.returncode:
        raise UsageError(f"--compare {revision}: its simulator ended with {ran.returncode}")
    row: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return row


def difference(before: dict[str, Any], after: dict[str, Any], revision: str) -> str:
    """A table for people."""
    lines = [f"  {'':20} {revision[:12]:>14} {'here':>14} {'change':>9}"]
    for words, *keys in SHOWN:
        old, new = _at(before, keys), _at(after, keys)
        if old is None or new is None:
            continue
        change = f"{100 * (new - old) / old:+.1f} %" if old else ""
        lines.append(f"  {words:20} {old:>14} {new:>14} {change:>9}")
    same = before.get("trace") == after.get("trace")
    return "\n".join([*lines, f"  the traces are {'the same' if same else 'different'}"])


def _at(row: dict[str, Any], keys: list[str]) -> Any:
    value: Any = row
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
