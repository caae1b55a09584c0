"""What the demo shows: how far everybody is while it runs, and the table at its end."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from peerd.cli.demo_peer import Peer
from peerd.cli.progress import Rate
from peerd.cli.show import table
from peerd.units import format_duration, format_size

LINE_EVERY_S: Final = 1.0


class Drawing:
    """A line a peer, drawn over itself, on a terminal; one line a second elsewhere."""

    def __init__(self, peers: list[Peer], size_bytes: int) -> None:
        self._peers = peers
        self._size_bytes = size_bytes
        self._terminal = sys.stderr.isatty()
        self._rate = Rate()
        self._next_line_at = time.monotonic() + LINE_EVERY_S
        self._drawn = False

    def draw(self) -> None:
        now = time.monotonic()
        total = sum(peer.held_bytes for peer in self._peers)
        rate = f"{format_size(self._rate.add(total, now) or 0)}/s in all"
        if self._terminal:
            up = f"\x1b[{len(self._peers) + 1}A" if self._drawn else ""
            lines = [*map(self._line, self._peers), rate]
            sys.stderr.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines))
            sys.stderr.flush()
            self._drawn = True
        elif now >= self._next_line_at:
            share = 100 * total // (self._size_bytes * len(self._peers))
            say(f"{share:3d}% of {len(self._peers)} copies, {rate}")
            self._next_line_at = now + LINE_EVERY_S

    def _line(self, peer: Peer) -> str:
        filled = 30 * peer.held_bytes // self._size_bytes
        share = 100 * peer.held_bytes // self._size_bytes
        return f"{peer.name:8} [{'#' * filled:30}] {share:3d}%"


def summary(
    peers: list[Peer], size_bytes: int, copies: float, seconds: float, direct_s: float
) -> dict[str, Any]:
    return {
        "peers": len(peers),
        "bytes": size_bytes,
        "origin_copies": round(copies, 4),
        "seconds": round(seconds, 3),
        "direct_seconds": round(direct_s, 3),
        "all_verified": all(peer.verified for peer in peers),
    }


def words(peers: list[Peer], copies: float, seconds: float, direct_s: float) -> str:
    rows = [
        {
            "peer": peer.name,
            "seconds": peer.seconds,
            "from_origin": peer.done.get("from_origin", 0),
            "from_peers": peer.done.get("from_peers", 0),
            "digest": "ok" if peer.verified else str(peer.error or "wrong"),
        }
        for peer in peers
    ]
    return (
        f"{table(rows, '')}\n\n"
        f"origin copies  {copies:.2f} ×\n"
        f"time           {format_duration(seconds)} for {len(peers)} copies, "
        f"{seconds / direct_s:.2f} × one direct download ({format_duration(direct_s)})"
    )


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
