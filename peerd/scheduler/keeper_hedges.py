"""Hedges: pieces that somebody holds, read again because they would come later than directly.

Always: out of the group's budget of 1 % of the content, which audits and what does not spread draw
on too (keeper_audits.spend); a piece is hedged once; only for a member that says that it will be
slower than a plain download would have been, as fast as it, or else the group, reads (ADR 0017).
"""

from __future__ import annotations

from peerd.link.messages import HedgeAsk, LeaseKind
from peerd.scheduler.keeper_grants import able
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.leases import lowest, run_bits
from peerd.scheduler.roster import Entry

SLOWER = 1.05
SLOWER_S = 0.05
"""Half of what promise 5 (design.md) allows, 1.1 × a plain download + 100 ms: the rest is for what
rates and paces are off by, and for the read itself."""
PROBE_S = 1.0
"""Nobody has read yet, and a member expects so much a piece: one piece tells how fast the origin
is. Guess: an origin that is no faster is not worth a second copy."""


def ask(kept: Kept, entry: Entry, message: HedgeAsk, now: float) -> None:
    """Grant what the budget has left of it, what most members lack first."""
    if kept.scope or kept.paused() or kept.halted() or not (kept.parallel and kept.resolved):
        return
    if message.version != (kept.version.version if kept.version else None):
        return
    if not able(kept, entry, now):
        return
    free = _late(kept, entry, message)
    if not free:
        return
    order = sorted(free, key=lambda index: -_lacking(kept, index))
    chosen = order[: kept.audits.spend(len(order))]
    if not chosen:
        return
    bits = sum(1 << index for index in chosen)
    kept.hedged |= bits
    kept.audits.pieces_hedged += len(chosen)
    kept.book.granted &= ~bits  # Counted here, with its reason.
    kept.say(now, f"{len(chosen)} pieces would come late to {entry.peer}: read again (hedge)")
    while bits:
        first = lowest(bits)
        count = lowest(~(bits >> first))
        kept.grant(LeaseKind.READ, entry, first, count, now)
        bits &= ~run_bits(first, count)


def _late(kept: Kept, entry: Entry, message: HedgeAsk) -> list[int]:
    """The pieces that would come after a plain download's end, and may be hedged."""
    free = kept.roster.covered & ~(entry.bits | kept.book.leased | kept.hedged)
    pace_s = entry.pace_s if entry.pace_s is not None else _group_pace_s(kept)
    if pace_s is None:
        worst_s = max(message.expected_s, default=0.0)
        found = [index for index in message.indices if free >> index & 1]
        probing = any(lease.bits & kept.hedged for lease in kept.book.reading())
        slow = worst_s > PROBE_S * message.lacking
        return found[:1] if slow and not probing else []
    limit_s = SLOWER * message.lacking * pace_s + SLOWER_S
    told = zip(message.indices, message.expected_s, strict=False)
    return [index for index, at_s in told if free >> index & 1 and at_s > limit_s]


def _group_pace_s(kept: Kept) -> float | None:
    """The fastest reader's: so much the origin can do."""
    paces = [x.pace_s for x in kept.roster.entries.values() if x.pace_s is not None]
    return min(paces, default=None)


def _lacking(kept: Kept, index: int) -> int:
    return sum(1 for entry in kept.roster.entries.values() if not entry.bits >> index & 1)
