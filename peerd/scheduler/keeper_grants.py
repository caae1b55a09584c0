"""Who is granted what next: resolving first, then extents or the one stream, then audits.

Always: before members of a former keeper had their time to register nothing is granted but what
they cannot hold or read (`Kept.withheld`); nor is ever a piece that a member holds or reads; only
who asked, is not refused, blocked, lost or cooling off is granted anything.
"""

from __future__ import annotations

from enum import Enum
from itertools import islice

from peerd.ids import PeerId
from peerd.link.messages import Access, LeaseKind, Unreadable, Verdict
from peerd.scheduler import keeper_advice as advice
from peerd.scheduler import keeper_borders as borders
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler import keeper_pace as pace
from peerd.scheduler import keeper_spread as spread
from peerd.scheduler.keeper_audits import Check
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Doubt, Kept
from peerd.scheduler.keeper_voices import unheard
from peerd.scheduler.leases import lowest, run_bits
from peerd.scheduler.roster import Entry

LINE_SCANNED_MAX = 64
"""So many of a waiting line are looked at for one grant. Guess."""
AUDITORS_TRIED_MAX = 16
CHECKS_IDLE_MAX = 4
"""So many checks that nobody can carry out now are looked at for one event. Guess."""


def plan(kept: Kept, now: float) -> None:
    """Grant what can be granted now. Cheap where there is nothing to grant."""
    if kept.cell:
        kept.roster.settle()
        cells.plan(kept, now)
        return
    if kept.halted() or (kept.paused() and kept.withheld is None):
        return
    uncovered = kept.roster.settle()
    if uncovered:
        kept.book.unread(uncovered, "lost", last=True)
    if kept.zone:
        borders.plan(kept, now)
        return
    if kept.paused():
        if kept.resolved and kept.parallel:
            _read(kept, now)
        return
    if Timer.OVERDUE not in kept.timers:
        spread.look(kept, now)
        pace.reclaim(kept, now)
    if kept.failures:
        judge(kept, now)
        if _enough_failed(kept):
            return  # Those who still read will say whether it is the origin.
    if kept.version is None or kept.doubt is not Doubt.NONE:
        _resolve(kept, now)
    if kept.resolved and not kept.checking:
        if kept.parallel:
            _read(kept, now)
        else:
            _stream(kept, now)
    if kept.audits.pending or kept.audits.disputers:
        _audit(kept, now)


def _resolve(kept: Kept, now: float) -> None:
    if kept.book.only(LeaseKind.RESOLVE, LeaseKind.STREAM) is not None:
        return
    if kept.version is None and kept.checking:
        return
    entry = pick(kept, now, fresh_voice=kept.doubt is Doubt.CHANGED and unheard(kept))
    if entry is not None:
        kept.grant(LeaseKind.RESOLVE, entry, 0, 0, now)


def _read(kept: Kept, now: float) -> None:
    while not kept.book.drained and pace.may_begin(kept, now):
        entry = pick(kept, now)
        held = kept.roster.covered & ~kept.rescued | (kept.withheld or 0)
        run = kept.book.next_run(held, entry.reader_at) if entry is not None else None
        if entry is None or run is None:
            return
        kept.rescued &= ~run_bits(*run)
        kept.grant(LeaseKind.READ, entry, *run, now)


def _stream(kept: Kept, now: float) -> None:
    """One reader, one response; another goes on where the version is pinned."""
    if kept.finished or kept.book.reading():
        return
    entry = pick(kept, now)
    if entry is None:
        return
    if not kept.pinned:
        if restart(kept, now, "its only reader is gone", "origin-cut"):
            _resolve(kept, now)
        return
    first = lowest(~kept.roster.covered)
    count = 0 if kept.count is None else kept.count - first
    kept.grant(LeaseKind.STREAM, entry, first, count, now)


def restart(kept: Kept, now: float, words: str, code: str) -> bool:
    """A new version is to be resolved; False where that happened too often."""
    if too_many_changes(kept, now):
        unreadable(kept, code, f"the content cannot be read to its end: {words}", now)
        return False
    kept.forget_version(now, words)
    return True


def too_many_changes(kept: Kept, now: float) -> bool:
    """Count one more; whether there were too many within a while."""
    while kept.changes and kept.changes[0] <= now - kept.config.failure_forget_s:
        kept.changes.popleft()
    kept.changes.append(now)
    if len(kept.changes) <= kept.config.changes_max:
        return False
    kept.changes.clear()
    return True


# --- the next reader


class Choice(Enum):
    """Who is looked at for a lease."""

    BEST = "who spreads what it reads, and is not advised to come last"
    BEHIND = "who does not spread it, too"
    ANY = "all"


def able(kept: Kept, entry: Entry, now: float, fresh_voice: bool = False) -> bool:
    """Whether it may be granted a lease, its room aside; `fresh_voice`: keeper_voices."""
    if fresh_voice and entry.peer in kept.voices:
        return False
    return (
        entry.access is not Access.REFUSED
        and entry.lost_at is None
        and entry.cool_until <= now
        and kept.roster.trusted(entry.peer)
    )


def pick(kept: Kept, now: float, fresh_voice: bool = False) -> Entry | None:
    """Seeds first; then who has none, while there are few readers; then who has the least.

    Those whose pieces do not spread come later: not before all others are behind, too; after them
    those that are advised to.
    """
    entry, others = _pick(kept, now, fresh_voice, Choice.BEST)
    if entry is None and not others:
        entry, others = _pick(kept, now, fresh_voice, Choice.BEHIND)
    if entry is None and not others and advice.orders(kept, now):
        entry, _ = _pick(kept, now, fresh_voice, Choice.ANY)
    return entry


def _pick(kept: Kept, now: float, fresh_voice: bool, among: Choice) -> tuple[Entry | None, bool]:
    """With whether anybody fits, be it that all of them have enough for now."""
    roster, held = kept.roster, kept.book.by_holder
    config = kept.config
    each = config.leases_all_wanted // max(1, len(roster.askers) + len(kept.awaiting))
    each = max(config.leases_each_min, min(config.leases_each_max, each))
    best: Entry | None = None
    others = False
    most = advice.readers(kept, now)
    for peer, leases in islice(held.items(), most):
        entry = roster.entries.get(peer)
        if entry is None or not _fits(kept, entry, now, fresh_voice, among):
            continue
        others = others or peer in roster.askers
        full = len(leases) >= min(each, entry.room)
        if full and not fresh_voice:  # A doubt does not wait for reads.
            continue
        if best is None or (not entry.seed, len(leases)) < (not best.seed, len(held[best.peer])):
            best = entry
    if len(held) >= most:
        return best, others
    fresh = _first(kept, roster.waiting_seeds, now, fresh_voice, among)
    if fresh is None and (best is None or not best.seed):
        fresh = _first(kept, roster.waiting, now, fresh_voice, among)
    return fresh or best, others or fresh is not None


def _first(
    kept: Kept, line: dict[PeerId, None], now: float, fresh_voice: bool, among: Choice
) -> Entry | None:
    for scanned, peer in enumerate(line):
        if scanned >= LINE_SCANNED_MAX:
            break
        entry = kept.roster.entries[peer]
        if _fits(kept, entry, now, fresh_voice, among):
            return entry
    return None


def _fits(kept: Kept, entry: Entry, now: float, fresh_voice: bool, among: Choice) -> bool:
    if not able(kept, entry, now, fresh_voice) or not pace.may_try(kept, entry, now):
        return False
    if among is not Choice.ANY and advice.comes_last(kept, entry, now):
        return False
    return among is not Choice.BEST or not spread.behind(kept, entry)


# --- audits


def _audit(kept: Kept, now: float) -> None:
    idle = 0
    for check in list(kept.audits.pending):
        if idle >= CHECKS_IDLE_MAX or len(kept.audits.running) >= kept.width.readers:
            break
        if check.dispute and not check.genuine():
            kept.audits.pending.remove(check)
            continue
        entry = _auditor(kept, check, now)
        if entry is not None:
            lease = kept.grant(LeaseKind.AUDIT, entry, check.first, check.count, now)
            kept.audits.start(check, lease.lease)
        elif check.dispute and not _may_check_later(kept, check):
            liar = kept.audits.undecidable(check)
            if liar is not None:
                convict(kept, liar, "the whole digest failed, and it was read otherwise", now)
                return
        else:
            idle += 1
    if idle:
        kept.audits.pending.rotate(-idle)
    if kept.audits.widen():
        _audit(kept, now)
    else:
        _disputes_over(kept, now)


def _auditor(kept: Kept, check: Check, now: float) -> Entry | None:
    """Somebody who asks for leases and vouched for none of it."""
    askers = list(kept.roster.askers)
    for peer in kept.rng.sample(askers, min(AUDITORS_TRIED_MAX, len(askers))):
        entry = kept.roster.entries[peer]
        if check.vouched(peer) or not able(kept, entry, now):
            continue
        if not check.dispute and not pace.may_try(kept, entry, now):
            continue
        if len(kept.book.by_holder.get(peer, ())) < min(entry.room, kept.config.leases_each_max):
            return entry
    return None


def _may_check_later(kept: Kept, check: Check) -> bool:
    """Whether anybody on the roster could still carry it out."""
    return any(
        (entry.wants or entry.room > 0)
        and entry.access is not Access.REFUSED
        and kept.roster.trusted(entry.peer)
        and not check.vouched(entry.peer)
        for entry in kept.roster.entries.values()
    )


def _disputes_over(kept: Kept, now: float) -> None:
    """All that was in dispute was read twice alike: the content itself is not what was asked."""
    if kept.version is None:
        return
    words = "the origin's content does not have the digest that was asked for: check URL and digest"
    for peer in kept.audits.disputes_over():
        kept.say(now, f"{peer} disputed pieces that are right")
        kept.send(peer, Unreadable(kept.task, kept.term, "digest-mismatch", words))


def convict(kept: Kept, liar: PeerId, words: str, now: float) -> None:
    """Block it, name it to all, and have its pieces read again."""
    assert kept.version is not None
    if liar in kept.roster.liars:
        return
    bits = kept.audits.convict(liar)
    kept.say(now, f"{liar} lied about {bits.bit_count()} pieces: {words}")
    for lease in kept.book.of(liar):
        kept.revoke(lease, "lied", now)
    kept.roster.settle()
    kept.roster.convict(liar, bits, words, now)
    kept.roster.settle()
    kept.book.unread(bits & ~kept.roster.covered, "lied")
    verdict = Verdict(kept.task, kept.term, kept.version.version, liar, words)
    for peer in [*kept.roster.entries, *kept.listeners()]:
        kept.send(peer, verdict)


# --- when nobody can


def judge(kept: Kept, now: float) -> None:
    """Tell those who wait when nobody can read what nobody holds (design.md, section 4.4)."""
    if kept.book.reading() or kept.checking or kept.paused() or kept.halted():
        return
    if kept.finished and kept.doubt is Doubt.NONE:
        kept.failures.clear()
        return
    config = kept.config
    for peer, (_, _, at) in list(kept.failures.items()):
        if at <= now - config.failure_forget_s:
            del kept.failures[peer]
    if not kept.failures:
        return
    if not _enough_failed(kept):
        for entry in kept.roster.entries.values():
            if entry.peer in kept.failures or not _could_read(kept, entry):
                continue
            if entry.room > 0:
                return
            if entry.enrolled_at + config.asks_within_s > now:
                kept.wake(Timer.JUDGE, entry.enrolled_at + config.asks_within_s)
                return
    code, words, _ = list(kept.failures.values())[-1]
    kept.failures.clear()
    unreadable(kept, code, words, now)


def _enough_failed(kept: Kept) -> bool:
    """So many different peers failed in a row that more of them would tell nothing new.

    Those that are refused do not count: others may have credentials.
    """
    failed = [code for code, _, _ in kept.failures.values() if code != "origin-refused"]
    return len(failed) >= kept.config.failures_enough


def _could_read(kept: Kept, entry: Entry) -> bool:
    return (
        entry.access is not Access.REFUSED
        and entry.lost_at is None
        and kept.roster.trusted(entry.peer)
        and (entry.wants or entry.room > 0)
    )


def unreadable(kept: Kept, code: str, words: str, now: float) -> None:
    """Everybody who still wants it hears why it cannot be had; who tries again enrols again."""
    kept.say(now, f"unreadable: {code}: {words}")
    for peer in kept.listeners():
        kept.send(peer, Unreadable(kept.task, kept.term, code, words[:512]))
    for entry in kept.roster.wanting():
        if kept.finished and entry.told_version == kept.version:
            continue  # It gets what it began from the others.
        kept.send(entry.peer, Unreadable(kept.task, kept.term, code, words[:512]))
        entry.wants, entry.room = False, 0
        kept.line_up(entry, now)
