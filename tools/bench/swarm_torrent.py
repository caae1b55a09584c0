"""BitTorrent, by libtorrent and by aria2: one seeder in the origin's namespace, N leechers.

Always: the same torrent for both, with pieces as long as peerd's. libtorrent's peers are told of
each other at the start, which spares them a tracker's round; aria2 has a tracker.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from peerd.errors import TimedOut, UsageError
from peerd.pieces import piece_length_for
from tools.bench.swarm_case import ORIGIN, Outcome
from tools.bench.swarm_run import Meter, Run, command_path

TRACKER_PORT: Final = 6969
PEER_PORT: Final = 6881
POLL_S: Final = 0.01


def run_libtorrent(run: Run, super_seeding: bool = False) -> Outcome:
    torrent = _torrent(run)
    names = [ORIGIN, *run.case.names()]
    processes = {name: _session(run, name, torrent, super_seeding) for name in names}
    for process in processes.values():
        _line(run, process)
    addresses = {name: f"{run.lab.address(name)}:{PEER_PORT}" for name in names}
    meter = Meter(run, list(processes.values()))
    for name, process in processes.items():
        others = [address for other, address in addresses.items() if other != name]
        process.stdin.write(json.dumps(others) + "\n")
        process.stdin.flush()
    done_at = {name: float(_line(run, processes[name])) for name in run.case.names()}
    outcome = meter.stop(done_at)
    return outcome(_right(run))


def run_aria2(run: Run) -> Outcome:
    torrent = _torrent(run)
    aria2 = command_path("aria2c", "aria2")
    address = run.lab.address(ORIGIN)
    tracker = run.module(
        ORIGIN, "tools.bench.swarm_tracker", address, str(TRACKER_PORT), stdout=subprocess.PIPE
    )
    _line(run, tracker)
    command = [
        aria2, "--no-conf", "--seed-ratio=0.0", f"--listen-port={PEER_PORT}",
        "--file-allocation=none",
        "--enable-dht=false", "--bt-enable-lpd=false", "--bt-tracker-interval=2",
        "--summary-interval=0", "--console-log-level=warn", "--allow-overwrite=true",
    ]  # fmt: skip
    # What is looked at is the time at which aria2 calls this.
    hook = run.folder / "done.sh"
    hook.write_text("#!/bin/sh\n: > done\n")
    hook.chmod(0o755)
    seeder = run.spawn(
        ORIGIN,
        [*command, f"--dir={run.source.path.parent}", "--check-integrity=true", str(torrent)],
    )
    _line(run, tracker)  # the seeder announced itself
    names = run.case.names()
    meter = Meter(run, [tracker, seeder])
    offset_s = time.time() - time.monotonic()
    leechers = [
        run.spawn(name, [*command, "--dir=.", f"--on-bt-download-complete={hook}", str(torrent)])
        for name in names
    ]
    meter.add(leechers)
    marks = {name: run.place(name) / "done" for name in names}
    ends_at = time.monotonic() + run.limit_s()
    while not all(mark.exists() for mark in marks.values()):
        if time.monotonic() > ends_at or any(one.poll() is not None for one in leechers):
            raise TimedOut(f"aria2 does not finish: {run.logs()}")
        time.sleep(POLL_S)
    outcome = meter.stop({name: mark.stat().st_mtime - offset_s for name, mark in marks.items()})
    return outcome(_right(run))


def _torrent(run: Run) -> Path:
    try:
        lt: Any = importlib.import_module("libtorrent")
    except ImportError as error:
        raise UsageError("this needs libtorrent: type make setup-lab") from error
    storage = lt.file_storage()
    lt.add_files(storage, str(run.source.path))
    length = piece_length_for(run.source.size_bytes)
    made = lt.create_torrent(storage, length, flags=lt.create_torrent.v1_only)
    made.add_tracker(f"http://{run.lab.address(ORIGIN)}:{TRACKER_PORT}/announce")
    lt.set_piece_hashes(made, str(run.source.path.parent))
    torrent = run.folder / "content.torrent"
    torrent.write_bytes(lt.bencode(made.generate()))
    return torrent


def _session(run: Run, name: str, torrent: Path, super_seeding: bool) -> Any:
    seeds = name == ORIGIN
    place = run.source.path.parent if seeds else run.place(name)
    role = ("super-seed" if super_seeding else "seed") if seeds else "leech"
    return run.module(
        name, "tools.bench.swarm_session", role, str(torrent), str(place), run.lab.address(name),
        str(PEER_PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _line(run: Run, process: Any) -> Any:
    """The next thing that a process says."""
    said = process.stdout.readline()
    if not said:
        raise TimedOut(f"{shlex.join(map(os.fspath, process.args))} ended: {run.logs()}")
    return said


def _right(run: Run) -> bool:
    name = run.source.path.name
    return run.right(
        {peer: partial(open, run.place(peer) / name, "rb") for peer in run.case.names()}
    )
