"""The keeper of a scope: who brings which pieces over its border (ADR 0013).

Always: no two members bring the same piece at once; a piece that a member holds is not brought
again, unless one who cannot find it asks for long; leases to read the origin are not given here.
"""

from __future__ import annotations

from peerd.errors import RemoteProtocolError
from peerd.ids import TaskId
from peerd.link.messages import BringAsk, Enrol, LeaseKind, LeaseReport, Outcome
from peerd.pieces import extent_pieces
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.leases import Lease, lowest, run_bits
from peerd.scheduler.roster import Entry, parse_bitmap
from peerd.zones import seat_id, within

SOON_S = 2.0
LATE_S = 4.0
"""A member brings one extent more at once where one came within SOON_S of its grant, one fewer
where it took LATE_S: more would wait behind each other on the border's link, and be taken for
stalled. Guess: below that patience (6 s). Simulated, 8 peers that bring over a link of a fifth of
their own rate: 1.57 copies where each had its room at once."""
FIRST = 4
"""Extents at once at first. Guess: with two, 4 peers over 80 ms and 1 % loss took 1.75 × the bound
for 32 MiB, with four 1.43, without any bound 1.48 (simulated)."""
BRINGERS_SCANNED_MAX = 64
"""So many who ask are looked at for one event; they take turns. Guess."""


def check_scope(message: Enrol, zone: str, seat: TaskId) -> None:
    """RemoteProtocolError unless this is the version's seat in a scope that the asker lies in."""
    if message.version is None or message.spec is not None:
        raise RemoteProtocolError("the keeper of a scope is asked with a version, and no spec")
    if seat_id(message.version.version, zone) != seat:
        raise RemoteProtocolError(f"that is not the seat of scope {message.scope}")
    if not within(message.zone, zone):
        raise RemoteProtocolError(f"zone {message.zone} does not lie in {message.scope}")


def ask(kept: Kept, entry: Entry, message: BringAsk, now: float) -> None:
    """A member's standing demand, and what it sees beyond the border."""
    if not kept.scope or message.term > kept.term:
        return
    entry.seen = parse_bitmap(message.seen, kept.count) if message.room else 0
    entry.room = message.room
    kept.line_up(entry, now)
    kept.bringers.pop(entry.peer, None)
    if message.room and entry.seen:
        kept.bringers[entry.peer] = None
    else:
        entry.unmet_since = None


def plan(kept: Kept, now: float) -> None:
    """Grant extents to those who ask, who brings least first; each in turn."""
    count, held = kept.count, kept.book.by_holder
    if count is None and kept.version is None:
        return
    scanned = list(kept.bringers)[:BRINGERS_SCANNED_MAX]
    scanned.sort(key=lambda peer: len(held.get(peer, ())))
    for peer in scanned:
        entry = kept.roster.entries.get(peer)
        if entry is None or not _wants_more(kept, entry, now):
            if entry is None:
                del kept.bringers[peer]
            continue
        _grant(kept, entry, now)
        kept.bringers.pop(peer)
        kept.bringers[peer] = None  # The others come first next time.


def _wants_more(kept: Kept, entry: Entry, now: float) -> bool:
    held = kept.book.by_holder
    if entry.peer not in held and len(held) >= kept.config.bringers_max:
        return False
    return entry.lost_at is None and entry.cool_until <= now and kept.roster.trusted(entry.peer)


def _grant(kept: Kept, entry: Entry, now: float) -> None:
    """Up to its room, in runs from a random place on, so that two bring different ones."""
    extent = extent_pieces(kept.count or 1)
    below = cells.held_below(kept)
    while _may_bring(kept, entry):
        asked = entry.seen & ~(entry.bits | kept.book.leased)
        free = asked & ~(kept.roster.covered | below)
        if _in_vain(kept, entry, now):
            free |= asked & entry.unmet
        if not free:
            if asked:
                # Somebody is said to hold it on this side: it will turn up, or be asked for again.
                if entry.unmet_since is None or not asked & entry.unmet:
                    entry.unmet_since, entry.unmet = now, asked
                kept.wake(Timer.JUDGE, _in_vain_at(kept, entry, now))
            return
        start = int(kept.rng.random() * free.bit_length())
        first = lowest(free >> start) + start
        size = min(extent, lowest(~(free >> first)))
        entry.seen &= ~run_bits(first, size)
        entry.unmet_since = None
        kept.grant(LeaseKind.BRING, entry, first, size, now)


def _may_bring(kept: Kept, entry: Entry) -> bool:
    """Few at first, then more as long as each comes soon."""
    most = min(entry.room, FIRST + entry.brings_more)
    return len(kept.book.by_holder.get(entry.peer, ())) < most


def _in_vain(kept: Kept, entry: Entry, now: float) -> bool:
    """Whether it has asked for long enough for what others are said to hold."""
    return entry.unmet_since is not None and now >= _in_vain_at(kept, entry, now)


def _in_vain_at(kept: Kept, entry: Entry, now: float) -> float:
    """From when on it is believed that it cannot find it: later while it gets other pieces, for
    what a large zone has takes its time to get round."""
    config = kept.config
    since = now if entry.unmet_since is None else entry.unmet_since
    fed_until = max(since, entry.grew_at) + config.bring_trust_s
    return min(fed_until, since + config.bring_trust_max_s)


def report(kept: Kept, entry: Entry, lease: Lease, message: LeaseReport, now: float) -> None:
    """How a lease to bring stands: done, it is held in the scope from now on."""
    match message.outcome:
        case Outcome.PROGRESS:
            kept.renew(entry, lease, now)
        case Outcome.DONE:
            pace_s = (now - max(lease.made_at, entry.made_at)) / max(1, lease.count)
            share = kept.config.pace_weight
            known = entry.pace_s
            entry.pace_s = pace_s if known is None else share * pace_s + (1 - share) * known
            entry.made_at = now
            _came(entry, now - lease.granted_at)
            kept.roster.attested(entry, lease.bits, now)
            kept.end_lease(lease, "returned", now, unread=False)
        case _:
            kept.end_lease(lease, "returned", now, unread=True)


def _came(entry: Entry, took_s: float) -> None:
    """A lease of this one was done so long after it was granted."""
    if took_s <= SOON_S:
        entry.brings_more = min(entry.brings_more + 1, entry.room)
    elif took_s >= LATE_S:
        entry.brings_more = max(entry.brings_more - 1, 1 - FIRST)
