"""What the scheduler's leader advises a keeper, and what becomes of it.

Always: advice only re-orders: who is to come last is granted reads once the others cannot take any;
it ends by itself; nobody is held back where next to none of those who ask are left; two may read
whatever it says, so that one that stands still does not hold up all.
"""

from __future__ import annotations

from peerd.scheduler.keeper_events import KeeperAdvised
from peerd.scheduler.keeper_seat import Seat
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.roster import Entry

OTHERS_MIN = 2
OTHERS_SHARE = 8
"""At least two others must ask, and an eighth of all who do: else it is old, or wrong, and a group
would be as fast as a few. Guess."""


READERS_MIN = 2


def taken(seat: Seat | None, advice: KeeperAdvised, now: float) -> bool:
    """It counts from now on, if the task is kept here."""
    if seat is None or seat.kept is None or seat.kept.scope:
        return False
    before, seat.kept.advice = seat.kept.advice, advice
    if (before.last if before is not None else frozenset()) != advice.last:
        seat.say(now, f"grants {len(advice.last)} members after the others: {advice.by}")
    return True


def readers(kept: Kept, now: float) -> int:
    """How many may read at once."""
    advice = kept.advice
    if advice is None or advice.until <= now or not advice.readers:
        return kept.width.readers
    return min(kept.width.readers, max(READERS_MIN, advice.readers))


def orders(kept: Kept, now: float) -> bool:
    """Whether anybody is to come last."""
    return kept.advice is not None and kept.advice.until > now and bool(kept.advice.last)


def comes_last(kept: Kept, entry: Entry, now: float) -> bool:
    """Whether others are to be granted reads before it."""
    advice = kept.advice
    if advice is None or advice.until <= now or entry.peer not in advice.last:
        return False
    askers = kept.roster.askers
    others = len(askers) - sum(1 for peer in advice.last if peer in askers)
    return others >= max(OTHERS_MIN, len(askers) // OTHERS_SHARE)
