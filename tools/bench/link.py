"""A link beside a bare copy: sealed, verified and written against sendfile, hashed and written.

Always: the same bytes over loopback between two processes, the source in the page cache, a fresh
preallocated target for every run, runs alternating; figures are medians, and every run is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import blake3
import msgspec

from peerd.pieces import piece_length_for, piece_span
from peerd.units import KIB, MIB, format_size, parse_size
from tools.bench.link_ends import Plan

_KINDS = ("bare", "link")
_BLOCK_BYTES = 64 * MIB


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench link", description=__doc__)
    parser.add_argument("--size", type=parse_size, default="1GiB")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--piece",
        type=parse_size,
        action="append",
        help="piece length; repeatable; the first one gives the figures. "
        "Default: what a file of this size has, then 256 KiB",
    )
    parser.add_argument("--dir", type=Path, help="where the files go (default: the temporary one)")
    parser.add_argument(
        "--signatures", action="store_true", help="check every attestation's signature as well"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    own_piece = piece_length_for(arguments.size)
    pieces = arguments.piece or list(dict.fromkeys((own_piece, 256 * KIB)))
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="peerd-bench-") as directory:
        source = make_source(Path(directory), arguments.size)
        rows = [
            measure(source, arguments.size, piece, arguments.repeat, arguments.signatures)
            for piece in pieces
        ]
    if arguments.json:
        sys.stdout.write(json.dumps(report(rows, arguments.size)) + "\n")
    return 0


def make_source(directory: Path, size_bytes: int) -> Path:
    """Random bytes, written and so in the page cache."""
    source = directory / "source"
    block = os.urandom(min(_BLOCK_BYTES, size_bytes))
    with source.open("wb") as file:
        left = size_bytes
        while left:
            left -= file.write(block[:left])
        file.flush()
        os.fsync(file.fileno())  # so that no run pays for its writing back
    return source


def measure(
    source: Path, size_bytes: int, piece_bytes: int, repeat: int, signatures: bool
) -> dict[str, Any]:
    digests = tuple(_digests(source, size_bytes, piece_bytes))
    plan = Plan(str(source), str(source.parent / "target"), size_bytes, piece_bytes, digests,
                signatures)  # fmt: skip
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    for number in range(1, repeat + 1):
        for kind in _KINDS:
            run = one_run(kind, plan)
            runs[kind].append(run)
            sys.stderr.write(
                f"{format_size(piece_bytes)} pieces, run {number}, {kind}: "
                f"{run['mb_s']:.0f} MB/s, CPU {run['sender_cpu_s']:.2f} s sending, "
                f"{run['receiver_cpu_s']:.2f} s receiving\n"
            )
    medians = {kind: statistics.median(run["mb_s"] for run in runs[kind]) for kind in _KINDS}
    ratio = medians["link"] / medians["bare"]
    sys.stderr.write(
        f"{format_size(piece_bytes)} pieces: link {medians['link']:.0f} MB/s, "
        f"bare {medians['bare']:.0f} MB/s, ratio {ratio:.2f}\n"
    )
    return {"piece_bytes": piece_bytes, "ratio": ratio, "medians": medians, "runs": runs}


def one_run(kind: str, plan: Plan) -> dict[str, float]:
    target = Path(plan.target)
    with target.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, plan.size_bytes)
    plan_file = target.with_name("plan")
    plan_file.write_bytes(msgspec.json.encode(plan))
    with _end(f"{kind}-send", plan_file) as sender:
        address = str(_said(sender)["address"])
        with _end(f"{kind}-receive", plan_file, address) as receiver:
            received = _said(receiver)
            sent = _said(sender)
    target.unlink()
    if sender.returncode or receiver.returncode:
        raise SystemExit(f"{kind}: an end failed")
    return {
        "mb_s": plan.size_bytes / float(received["wall_s"]) / 1e6,
        "wall_s": received["wall_s"],
        "sender_cpu_s": sent["cpu_s"],
        "receiver_cpu_s": received["cpu_s"],
    }


def report(rows: list[dict[str, Any]], size_bytes: int) -> dict[str, Any]:
    """The keys of docs/design.md, 11, from the first row; all rows beside them."""
    first = rows[0]

    def cpu_s_per_gb(kind: str, end: str) -> float:
        seconds: list[float] = [run[f"{end}_cpu_s"] for run in first["runs"][kind]]
        return round(statistics.median(seconds) / size_bytes * 1e9, 3)

    ends = {
        kind: {end: cpu_s_per_gb(kind, end) for end in ("sender", "receiver")} for kind in _KINDS
    }
    return {
        "ratio": round(first["ratio"], 3),
        "link_mb_s": round(first["medians"]["link"], 1),
        "bare_mb_s": round(first["medians"]["bare"], 1),
        "cpu_s_per_gb": round(sum(ends["link"].values()), 3),
        "cpu_s_per_gb_ends": ends,
        "size_bytes": size_bytes,
        "rows": rows,
    }


def _digests(source: Path, size_bytes: int, piece_bytes: int) -> list[str]:
    with source.open("rb") as file:
        spans = (
            piece_span(index, size_bytes, piece_bytes)
            for index in range(-(-size_bytes // piece_bytes))
        )
        return [blake3.blake3(file.read(size)).hexdigest() for _, size in spans]


def _end(role: str, plan_file: Path, *address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.bench.link_ends", role, str(plan_file), *address],
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(end: subprocess.Popen[str]) -> dict[str, Any]:
    assert end.stdout is not None
    line = end.stdout.readline()
    if not line:
        raise SystemExit("an end of the benchmark died")
    words: dict[str, Any] = json.loads(line)
    return words
