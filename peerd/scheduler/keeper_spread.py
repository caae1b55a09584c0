"""Whether what a reader reads reaches the others, and what is done where it does not.

Always: a reader is passed over only while another can read whose pieces do spread; so never one
alone, nor when all are equally behind. What is read again for it comes out of the group's budget
of 1 % of the content (design.md, section 4.4).
"""

from __future__ import annotations

from statistics import median

from peerd.pieces import extent_pieces
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.leases import lowest
from peerd.scheduler.roster import Entry

TIMES_MEDIAN = 4
"""So many times what others have unspread is more than chance. Guess."""


def look(kept: Kept, now: float) -> None:
    """Fold over what members hold: which pieces have a second holder, and which do not for long."""
    if not kept.parallel or len(kept.roster.entries) < 2:
        return
    if now - kept.alone.looked_at < kept.config.overdue_check_s:
        return
    kept.alone.looked_at = now
    once, kept.spread = _held(kept)
    alone = once & ~kept.spread
    others = (entry.bits for entry in kept.roster.entries.values() if not entry.bits & alone)
    kept.alone.look(alone, sum(bits.bit_count() for bits in others), now)
    waiting = [entry.enrolled_at for entry in kept.roster.wanting()]
    if kept.book.drained and waiting:  # All wait for what is left.
        left = once & ~(kept.spread | kept.rescued | kept.book.leased)
        stuck = kept.alone.overdue(left, kept.config.alone_s, min(waiting), now)
        _read_again(kept, stuck, "one member", now)
    for peer in list(kept.readers) if len(kept.readers) > 1 else ():
        entry = kept.roster.entries.get(peer)
        if entry is not None:
            _mark(kept, entry, now)
            _rescue(kept, entry, now)


def _held(kept: Kept) -> tuple[int, int]:
    """What anybody holds, and what two do."""
    once = twice = 0
    for entry in kept.roster.entries.values():
        if kept.roster.trusted(entry.peer):
            twice |= once & entry.bits
            once |= entry.bits
            if twice == kept.roster.full:
                break
    return once, twice


def _mark(kept: Kept, entry: Entry, now: float) -> None:
    """What it alone has held since the last mark is stuck, whoever gets it in the end."""
    marked_at, marked = entry.alone_mark
    if now - marked_at < kept.config.alone_s:
        return
    alone = entry.read & ~kept.spread
    entry.stuck |= alone & marked
    entry.read &= ~entry.stuck
    entry.alone_mark = (now, alone)


def _rescue(kept: Kept, entry: Entry, now: float) -> None:
    """Others read again what is stuck, while it holds more than its share."""
    stuck = entry.stuck & entry.bits & ~kept.spread & ~kept.rescued & ~kept.book.leased
    if stuck and behind(kept, entry):
        _read_again(kept, stuck, entry.peer, now)


def _read_again(kept: Kept, stuck: int, holder: str, now: float) -> None:
    """So much of it as the budget allows."""
    bits = 0
    for _ in range(kept.audits.spend(stuck.bit_count())):
        bits |= 1 << lowest(stuck)
        stuck &= stuck - 1
    if bits:
        kept.say(now, f"{bits.bit_count()} pieces do not spread from {holder}: read again")
        kept.rescued |= bits
        kept.book.unread(bits, "alone")


def behind(kept: Kept, entry: Entry) -> bool:
    """Whether it has more that nobody else has, or is about to, than its pieces' spreading allows.

    It may have a few at first, and one more for each that spread; never far more than others.
    """
    if not kept.parallel or len(kept.roster.askers) < 2:
        return False
    mine = _unspread(kept, entry)
    first = kept.config.spread_first * extent_pieces(kept.count or 1)
    if mine < first:
        return False
    entries = kept.roster.entries
    others = [entries[x] for x in kept.readers if x != entry.peer and x in entries]
    typical = median([_unspread(kept, other) for other in others]) if others else 0
    limit = min(first + (entry.read & kept.spread).bit_count(), first + TIMES_MEDIAN * typical)
    return mine >= limit


def _unspread(kept: Kept, entry: Entry) -> int:
    leased = sum(lease.count for lease in kept.book.of(entry.peer) if lease.reads)
    return (entry.read & ~kept.spread | entry.stuck).bit_count() + leased
