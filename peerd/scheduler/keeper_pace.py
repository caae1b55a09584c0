"""How fast members read, who falls behind, and what becomes of the leases of those who do.

Always: a lease is taken back early only where others read on meanwhile and one of them can take
it; while nobody reads, it is the origin that is slow, and the leases' own ends count; a reader is
measured by those of its own zone: over a slow border all are slow, and that is no fault (ADR 0005).
"""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median

from peerd.ids import PeerId
from peerd.link.messages import LeaseKind
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.leases import Lease
from peerd.scheduler.roster import Entry

TOOK_KEPT = 16
"""Leases whose times are remembered, of each zone. Guess: about as many as are read at once."""
TOOK_ENOUGH = 4
"""Extents that must have been read before their times say anything. Guess."""
ZONES_REMEMBERED = 64
"""Zones whose times are remembered. Guess."""
FAR_TIMES = 4
"""So many times what others need, for readers of a zone that has no times of its own. Guess."""
SLOW_TIMES = 3
"""Who takes so many times as long for a piece as others do is slow; less is chance. Guess."""
READERS_REMEMBERED = 32
"""Above `readers_max`: whoever reads now is among them."""
TRY_TIMES = 4
"""A slow reader is tried again where the rest takes the others so many times as long as one piece
takes it: to read it, to pass it on, and as long again for what it is worse than it was. Guess."""
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
        _took(kept, entry.zone, now - lease.granted_at)
    since = max(lease.made_at, entry.made_at)
    pace_s = max(0.0, now - since) / bits.bit_count()
    share = kept.config.pace_weight
    if entry.pace_s is not None:
        pace_s = share * pace_s + (1 - share) * entry.pace_s
    entry.pace_s = pace_s
    lease.made_at = entry.made_at = now
    entry.read |= bits
    kept.width.made(bits.bit_count(), now, wanted=_more_would_read(kept))
    kept.readers.pop(entry.peer, None)
    kept.readers[entry.peer] = now
    while len(kept.readers) > READERS_REMEMBERED:
        del kept.readers[next(iter(kept.readers))]


def _more_would_read(kept: Kept) -> bool:
    """Whether it is the number of readers that holds members back."""
    if len(kept.book.by_holder) < kept.width.readers or kept.book.drained:
        return False
    return bool(kept.roster.waiting or kept.roster.waiting_seeds)


def _took(kept: Kept, zone: str, for_s: float) -> None:
    kept.took_s.setdefault(zone, deque(maxlen=TOOK_KEPT)).append(for_s)
    while len(kept.took_s) > ZONES_REMEMBERED:
        del kept.took_s[next(iter(kept.took_s))]


def measured(kept: Kept, zone: str) -> bool:
    """Whether it is known what readers of that zone need."""
    return len(kept.took_s.get(zone, ())) >= TOOK_ENOUGH


def overdue_s(kept: Kept, zone: str) -> float:
    """What a lease may take without a piece, by what its zone's readers took for one; inf: not
    known yet."""
    times, known = 1, list(kept.took_s.get(zone, ()))
    if len(known) < TOOK_ENOUGH:
        times, known = FAR_TIMES, [x for of_zone in kept.took_s.values() for x in of_zone]
    if len(known) < TOOK_ENOUGH:
        return inf
    return times * max(kept.config.overdue_min_s, kept.config.lease_margin * median(known))


def others_read(kept: Kept, peer: PeerId, since: float, zone: str | None = None) -> bool:
    """Whether somebody else, who still asks for leases, read a piece at that time or later; with
    `zone`, somebody of it."""
    for other, at in reversed(kept.readers.items()):
        if at < since:
            return False
        if other == peer or other not in kept.roster.askers:
            continue
        entry = kept.roster.entries[other]
        if not entry.failures and zone in (None, entry.zone):
            return True
    return False


def slow(kept: Kept, entry: Entry) -> bool:
    """Whether others read far faster, those of the fastest zone: then it is granted less at once,
    so that it holds up little."""
    pace_s = entry.pace_s
    if pace_s is None or pace_s < kept.config.overdue_check_s:
        return False
    paces: dict[str, list[float]] = {}
    for peer in kept.readers:
        other = kept.roster.entries.get(peer)
        if other is None or other is entry or other.pace_s is None:
            continue
        if peer in kept.roster.askers:
            paces.setdefault(other.zone, []).append(other.pace_s)
    return bool(paces) and pace_s > SLOW_TIMES * min(median(x) for x in paces.values())


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
    """Whether one that is slow or failed lately is worth a lease, while others read: one at a
    time, and not of the last extents, for which all would wait."""
    if not entry.failures and not slow(kept, entry):
        return True
    if not others_read(kept, entry.peer, now - kept.config.failure_forget_s):
        return True
    if entry.peer in kept.book.by_holder:
        return False
    return _left_s(kept, entry) >= TRY_TIMES * (entry.pace_s or 0.0) and (
        kept.book.extents_waiting > kept.config.readers_first
    )


def _left_s(kept: Kept, but: Entry) -> float:
    """How long the others need for what is not read yet, as fast as they read lately."""
    rate = 0.0
    for peer in kept.readers:
        entry = kept.roster.entries.get(peer)
        if entry is not None and entry is not but and peer in kept.roster.askers:
            rate += 1.0 / max(entry.pace_s or inf, 1e-3)
    lacking = ((kept.roster.full or 0) & ~kept.roster.covered).bit_count()
    return lacking / rate if rate else inf


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
    """Take back what a reader is far slower with than its like, where another can take it."""
    reads = [x for x in kept.book.leases.values() if x.kind is LeaseKind.READ]
    if not reads:
        return
    kept.wake(Timer.OVERDUE, now + kept.config.overdue_check_s)
    for lease in reads:
        if lease.lease not in kept.book.leases:
            continue
        entry = kept.roster.entries.get(lease.holder)
        zone = "" if entry is None else entry.zone
        patience_s = overdue_s(kept, zone)
        if not _behind(kept, lease, entry, patience_s, now):
            continue
        if not _another_can(kept, lease.holder, now):
            continue
        words = f"{lease.kind.name} {lease.first}+{lease.count} of {lease.holder}"
        kept.say(now, f"{words} is overdue: it had {patience_s:.2f} s")
        _take_back(kept, lease, "overdue", now)


def _behind(kept: Kept, lease: Lease, entry: Entry | None, patience_s: float, now: float) -> bool:
    """Its reader's like read on while that did not; or it had twice the time, and anybody read.

    Leases of one are read one after the other: a piece of one is time for the rest.
    """
    if lease.said_done:
        return False
    since, like = lease.made_at, None
    if entry is not None:
        since = max(since, entry.made_at)
        like = entry.zone if measured(kept, entry.zone) else None
    ahead = len(kept.book.by_holder[lease.holder])
    if now - since < patience_s and now - lease.made_at < (1 + ahead) * patience_s:
        return False
    if others_read(kept, lease.holder, now - patience_s / 2, like):
        return True
    return now - since >= 2 * patience_s and others_read(kept, lease.holder, since)


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
