"""How fast the group reads, who falls behind it, and what becomes of the leases of those who do.

Always: a lease is taken back early only where others read on meanwhile and one of them can take
it; while nobody reads, it is the origin that is slow, and the leases' own ends count (ADR 0005).
"""

from __future__ import annotations

from math import inf
from statistics import median

from peerd.ids import PeerId
from peerd.link.messages import LeaseKind
from peerd.scheduler.keeper_state import Kept, Timer
from peerd.scheduler.leases import Lease
from peerd.scheduler.roster import Entry

TOOK_ENOUGH = 4
"""Extents that must have been read before their times say anything. Guess."""
READERS_REMEMBERED = 16
"""Above `readers_max`: whoever reads now is among them."""
TAKERS_SCANNED_MAX = 64
"""So many of those who ask are looked at for one that could take a lease over. Guess."""
STREAM_AHEAD = 4
"""Pieces that a stream's reader may have read beyond its last report. Guess."""


# --- what is measured


def read(kept: Kept, entry: Entry, lease: Lease, bits: int, now: float) -> None:
    """`entry` attested these pieces of `lease`."""
    lease.attested |= bits
    whole = lease.kind is LeaseKind.READ and not lease.bits & ~lease.attested
    if whole and lease.granted_at > -inf:
        kept.took_s.append(now - lease.granted_at)
    since = max(lease.made_at, entry.made_at)
    pace_s = max(0.0, now - since) / bits.bit_count()
    share = kept.config.pace_weight
    if entry.pace_s is not None:
        pace_s = share * pace_s + (1 - share) * entry.pace_s
    entry.pace_s = pace_s
    lease.made_at = entry.made_at = now
    entry.read |= bits
    kept.readers.pop(entry.peer, None)
    kept.readers[entry.peer] = now
    while len(kept.readers) > READERS_REMEMBERED:
        del kept.readers[next(iter(kept.readers))]


def overdue_s(kept: Kept) -> float:
    """What a lease may take without a piece, by what others took for one; inf: not known yet."""
    if len(kept.took_s) < TOOK_ENOUGH:
        return inf
    return max(kept.config.overdue_min_s, kept.config.lease_margin * median(kept.took_s))


def others_read(kept: Kept, peer: PeerId, since: float) -> bool:
    """Whether somebody else, who still asks for leases, read a piece at that time or later."""
    for other, at in reversed(kept.readers.items()):
        if at < since:
            return False
        asks = other != peer and other in kept.roster.askers
        if asks and not kept.roster.entries[other].failures:
            return True
    return False


def may_begin(kept: Kept, now: float) -> bool:
    """Whether one more read may start: few at first, then as many more as there are pieces.

    All at once they would share the origin, and the first piece be whole when the last is. One
    that brings nothing for long holds nobody up.
    """
    config = kept.config
    most = config.ramp_first + kept.roster.covered.bit_count()
    if most >= config.readers_max * config.leases_each_max:
        return True
    since = now - config.overdue_min_s
    busy = sum(1 for x in kept.book.leases.values() if x.reads and x.made_at > since)
    return busy < most


# --- who falls behind


def may_try(kept: Kept, entry: Entry, now: float) -> bool:
    """Whether one that failed lately is worth a lease, while others read: one at a time, and not
    of the last extents, for which all would wait."""
    if not entry.failures or not others_read(kept, entry.peer, now - kept.config.failure_forget_s):
        return True
    few = kept.book.extents_waiting <= kept.config.readers_max
    return not few and entry.peer not in kept.book.by_holder


def back_off(kept: Kept, entry: Entry, now: float) -> None:
    """It failed: grant it nothing for a while, longer each time, and where others do better.

    What fails together counts once.
    """
    if entry.cool_until > now:
        return
    config = kept.config
    others = others_read(kept, entry.peer, now - config.failure_forget_s)
    first_s = config.behind_backoff_s if others else config.failure_backoff_s
    pause_s = first_s * 2.0 ** min(entry.failures, 10)
    entry.failures += 1
    kept.cool(entry, min(pause_s, config.failure_backoff_max_s), now)


def give_up_on(kept: Kept, entry: Entry, failed: Lease, now: float) -> None:
    """One read failed: what else it has will, too, if it has read nothing since, and others do."""
    if entry.made_at >= failed.granted_at:
        return
    if not others_read(kept, entry.peer, failed.granted_at):
        return
    for lease in kept.book.of(entry.peer):
        if lease.kind is LeaseKind.READ and not lease.attested:
            kept.revoke(lease, "returned", now)


def hand_out_again(kept: Kept, peer: PeerId, reason: str, now: float, *, tell: bool) -> None:
    """`peer` counts no more: what it was reading is anybody's. `tell`: it can be told so."""
    for lease in kept.book.of(peer):
        if lease.kind is LeaseKind.READ and tell:
            kept.revoke(lease, reason, now)
        elif lease.kind is LeaseKind.READ:
            kept.end_lease(lease, reason, now, unread=False)


# --- time


def reclaim(kept: Kept, now: float) -> None:
    """Take back what a reader is far slower with than the group is, where another can take it."""
    reads = [x for x in kept.book.leases.values() if x.kind is LeaseKind.READ]
    if not reads:
        return
    kept.wake(Timer.OVERDUE, now + kept.config.overdue_check_s)
    patience_s = overdue_s(kept)
    for lease in reads:
        if lease.lease not in kept.book.leases or not _behind(kept, lease, patience_s, now):
            continue
        if not _another_can(kept, lease.holder, now):
            continue
        words = f"{lease.kind.name} {lease.first}+{lease.count} of {lease.holder}"
        kept.say(now, f"{words} is overdue: others need {patience_s / 3:.2f} s")
        _take_back(kept, lease, "overdue", now)


def _behind(kept: Kept, lease: Lease, patience_s: float, now: float) -> bool:
    """Others read on while it did not; or they are through, and it had twice the time."""
    waited_s = now - lease.made_at
    if waited_s < patience_s or lease.said_done:
        return False
    if others_read(kept, lease.holder, now - patience_s / 2):
        return True
    return waited_s >= 2 * patience_s and others_read(kept, lease.holder, lease.made_at)


def _another_can(kept: Kept, holder: PeerId, now: float) -> bool:
    """Whether somebody else asks, and reads well as far as is known."""
    for _, peer in zip(range(TAKERS_SCANNED_MAX), kept.roster.askers, strict=False):
        entry = kept.roster.entries[peer]
        idle = entry.lost_at is None and entry.cool_until <= now
        if peer != holder and idle and not entry.failures:
            return True
    return False


def expire_leases(kept: Kept, now: float) -> None:
    """Take back what was neither finished nor renewed."""
    for lease in kept.book.expired(now, kept.config.lease_slack_s):
        if lease.lease not in kept.book.leases:
            continue
        if lease.said_done:
            kept.end_lease(lease, "unattested", now, unread=False)
            continue
        kept.say(now, f"{lease.kind.name} {lease.first}+{lease.count} of {lease.holder} ran out")
        if lease.kind is LeaseKind.STREAM:
            ahead = lease.attested.bit_length() + STREAM_AHEAD
            kept.book.granted &= (1 << max(ahead, lease.first + STREAM_AHEAD)) - 1
        _take_back(kept, lease, "expired", now)


def _take_back(kept: Kept, lease: Lease, reason: str, now: float) -> None:
    kept.revoke(lease, reason, now)
    entry = kept.roster.entries.get(lease.holder)
    if entry is None:
        return
    if others_read(kept, entry.peer, now - kept.config.failure_forget_s):
        back_off(kept, entry, now)
    else:
        kept.cool(entry, kept.config.lease_min_s, now)


def warm_up(kept: Kept, now: float) -> None:
    """Failed readers whose pause is over wait in line again."""
    for peer, until in list(kept.cooling.items()):
        if until <= now:
            del kept.cooling[peer]
            entry = kept.roster.entries.get(peer)
            if entry is not None:
                kept.line_up(entry, now)
    if kept.cooling:
        kept.wake(Timer.COOL, min(kept.cooling.values()))
