"""Why a download went as it did, as `peerd explain` shows it: the account in words and numbers.

Always: of a download that runs, what is so now; of one that is over, what was kept with it.
"""

from __future__ import annotations

from typing import Any

from peerd.swarm.account import Told, direct_s


def explained(told: Told, length_bytes: int | None) -> dict[str, Any]:
    """One JSON object; times in seconds since the download began."""
    directly_s = direct_s(told, length_bytes)
    return {
        "state": told.state,
        "seconds": told.seconds,
        "directly_s": directly_s,
        "compared": _compared(told, directly_s),
        "from": {
            "origin": told.from_origin,
            "peers": sum(source.size_bytes for source in told.sources) + told.others_bytes,
            "store": told.from_store,
        },
        "time": [
            {"on": what, "seconds": seconds}
            for what, seconds in sorted(told.waits.items(), key=lambda item: -item[1])
        ],
        "decisions": [
            {
                "by": made.by,
                "what": made.what,
                "why": made.why,
                "times": made.count,
                "first_s": made.first_s,
                "last_s": made.last_s,
            }
            for made in told.decisions
        ],
        "more_decisions": told.more,
        "parents": [
            {"peer_id": source.peer, "bytes": source.size_bytes, "why": source.why}
            for source in told.sources
        ],
    }


def _compared(told: Told, directly_s: float | None) -> str:
    if directly_s is None:
        return "not known: this peer read nothing from the origin"
    if told.state != "complete" or told.seconds <= 0:
        return "what a plain download would take, at the rate at which this peer reads the origin"
    ratio = directly_s / told.seconds
    return (
        f"a plain download would have taken {ratio:.1f} times as long, at the rate at which this "
        "peer read the origin"
    )
