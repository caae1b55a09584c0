"""How members come, say what they hold, are told of each other, and go.

Always: whoever is answered is on the roster, unless it is full; a member counts as holding only
pieces of the version that is current; a lost member counts until its grace is over.
"""

from __future__ import annotations

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.messages import (
    Access,
    Enlist,
    Enrol,
    Enrolled,
    LeaseInfo,
    LeaseKind,
    LeaseRevoked,
    Probe,
    Progress,
    RosterUpdate,
    Verdict,
)
from peerd.manifest import VersionInfo
from peerd.pieces import extent_pieces
from peerd.rendezvous import ranked
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler import keeper_holders as holders
from peerd.scheduler import keeper_pace as pace
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Doubt, Kept, fits
from peerd.scheduler.leases import Lease
from peerd.scheduler.roster import Entry, parse_bitmap

GRANTED_JUST_NOW_S = 1.0
"""A grant that young may cross an Enrol on its way, which then does not list it."""


def enrol(kept: Kept, peer: PeerId, message: Enrol, now: float) -> None:
    """Put `peer` on the roster, or bring what is known of it up to date, and answer."""
    if message.version is not None:
        kept.check_version(message.version)
        held = parse_bitmap(message.have, message.version.piece_count)
    elif message.have.strip(b"\0"):
        raise RemoteProtocolError("pieces of no version")
    else:
        held = 0
    entry = _entry(kept, peer, message, now)
    if message.version is not None:
        _learn(kept, peer, message.version, message.prior_term, now)
        entry.spare = (message.version.version, held)
        if kept.version is None or not fits(message.version, kept.version):
            held = 0
    if peer in kept.roster.entries:
        kept.roster.has(entry, held, now)
    if message.access is Access.REFUSED and message.wants:
        kept.failures[peer] = ("origin-refused", "the origin refuses this caller", now)
    _register_leases(kept, entry, message, now)
    _doubt_age(kept, message, now)
    entry.cell_keeper = message.cell_keeper if message.cell_keeper in kept.members else None
    if kept.cell:
        cells.enrolled(kept, entry, message, now)
    _answer(kept, entry, message, now)
    holders.check(kept, now)
    kept.awaiting.discard(peer)
    if kept.paused() and not kept.awaiting:
        kept.timers[Timer.PAUSE] = min(now, kept.timers[Timer.PAUSE])
    if message.wants and kept.members.get(peer) is not None:
        kept.wake(Timer.TELL, now + kept.config.tell_interval_s)


def _entry(kept: Kept, peer: PeerId, message: Enrol, now: float) -> Entry:
    entry = kept.roster.entries.get(peer)
    member = kept.members.get(peer)
    addresses = member.link_addresses[:8] if member is not None else ()
    if entry is None:
        entry = Entry(peer, addresses, message.zone, message.seed, message.wants, message.access,
                      enrolled_at=now, heard_at=now)  # fmt: skip
        if len(kept.roster.entries) < kept.config.roster_max:
            kept.roster.add(entry)
            kept.say(now, f"{peer} enrolled")
    else:
        came_back(kept, entry)
        entry.addresses, entry.zone, entry.seed = addresses, message.zone, message.seed
        entry.wants, entry.access = message.wants, message.access
        entry.heard_at = now
        entry.told.clear()
        entry.outside.clear()
        if message.prior_term == 0:
            entry.fresh = 0
            kept.failures.pop(peer, None)
            entry.enrolled_at, entry.failures = now, 0
        if peer in kept.roster.entries:
            kept.line_up(entry, now)
    kept.timers.pop(Timer.IDLE, None)
    return entry


def _learn(kept: Kept, peer: PeerId, version: VersionInfo, prior_term: int, now: float) -> None:
    """A keeper that starts learns the version from those who have it, or just resolved it."""
    known, resolving = kept.version, kept.book.only(LeaseKind.RESOLVE)
    if known is None and (resolving is None or resolving.holder == peer):
        kept.set_version(version, now, keep=resolving)
        kept.confirmed = bool(kept.zone or version.digest is not None or prior_term > 0)
        if not kept.confirmed:
            kept.doubt = Doubt.AGE
        kept.push_version(now)
    elif known is not None and _ends(known, version):
        kept.set_version(version, now)
        kept.push_version(now)


def _ends(known: VersionInfo, version: VersionInfo) -> bool:
    """Whether `version` is the known one with its length, from the same attester."""
    if known.length_bytes is not None or version.length_bytes is None:
        return False
    return fits(known, version) and version.attester == known.attester


def _register_leases(kept: Kept, entry: Entry, message: Enrol, now: float) -> None:
    """What it says it reads: kept, adopted, or revoked where another reads it already."""
    listed = {info.lease for info in message.leases}
    for lease in kept.book.of(entry.peer):
        if lease.lease not in listed and lease.granted_at < now - GRANTED_JUST_NOW_S:
            kept.end_lease(lease, "returned", now, unread=True)
    for info in message.leases:
        known = kept.book.leases.get(info.lease)  # type: ignore[call-overload]
        if known is not None and known.holder == entry.peer:
            left_s = min(info.expires_in_s, kept.config.lease_max_s)
            known.expires_at = max(known.expires_at, now + left_s)
            if known.kind is LeaseKind.RESOLVE and info.kind is not LeaseKind.RESOLVE:
                read_on(kept, known)
        elif info.holder != entry.peer or not adopt(kept, info, message.version, now):
            kept.send(entry.peer, LeaseRevoked(kept.task, kept.term, info.lease))
    if entry.peer in kept.roster.entries:
        kept.line_up(entry, now)


def read_on(kept: Kept, lease: Lease) -> bool:
    """A resolver reads its response on: piece 0, or all where it is the only response.

    False where others hold or read that already.
    """
    count = kept.count
    if kept.version is None or lease.count:
        return bool(lease.count)
    if not kept.parallel and not (kept.finished or kept.book.leased):
        kept.book.reshape(lease, LeaseKind.STREAM, 0, count or 0)
    elif kept.parallel and count and not (kept.roster.covered | kept.book.leased) & 1:
        kept.book.reshape(lease, LeaseKind.RESOLVE, 0, 1)
    else:
        return False
    return True


def adopt(kept: Kept, info: LeaseInfo, version: VersionInfo | None, now: float) -> bool:
    """Take over a lease that another keeper granted, if nobody else reads the same."""
    current = kept.version
    if info.lease in kept.book.leases:
        return False
    if len(kept.book.of(info.holder)) >= kept.config.leases_each_max:
        return False
    if info.holder in kept.roster.liars or info.kind is LeaseKind.AUDIT:
        return False
    if info.kind is LeaseKind.RESOLVE:
        if info.count > 1 or kept.book.only(LeaseKind.RESOLVE) or (current and info.count):
            return False
    elif current is None or not _of_this_seat(kept, info, version):
        return False
    elif info.kind is LeaseKind.BRING:
        if not 0 < info.count <= extent_pieces(kept.count or 1):
            return False
    elif info.kind is LeaseKind.STREAM:
        if kept.parallel or kept.book.reading():
            return False
    elif not kept.parallel or not 0 < info.count <= max(1, (kept.count or 0) // 100):
        return False
    if kept.count is not None and info.first + info.count > kept.count:
        return False
    left_s = min(info.expires_in_s, kept.config.lease_max_s)
    lease: Lease | None = kept.book.adopt(info, now, now + left_s)
    if lease is None:
        kept.book.count_again("views", info.count)
        return False
    if info.holder in kept.roster.entries:
        kept.line_up(kept.roster.entries[info.holder], now)
    kept.say(now, f"adopted {info.kind.name} {info.first}+{info.count} of {info.holder}")
    return True


def _of_this_seat(kept: Kept, info: LeaseInfo, version: VersionInfo | None) -> bool:
    """Leases to bring are a scope's, all others the task's; and of the version that is current."""
    if kept.cell or (info.kind is LeaseKind.BRING) != bool(kept.zone):
        return False
    return version is None or kept.version is None or fits(version, kept.version)


def _doubt_age(kept: Kept, message: Enrol, now: float) -> None:
    """Content without a digest is confirmed again when somebody new wants it (design.md, 4.4)."""
    version = kept.version
    if version is None or version.digest is not None or not message.wants or message.prior_term:
        return
    if kept.zone:
        return  # Its members know the version; the task's keeper has it confirmed.
    if kept.doubt is not Doubt.NONE or kept.book.only(LeaseKind.RESOLVE, LeaseKind.STREAM):
        return
    if kept.age_s(now) > kept.config.fresh_s and now >= kept.revalidate_at:
        kept.doubt = Doubt.AGE
        kept.say(now, "the version is old: it is to be confirmed")


def _answer(kept: Kept, entry: Entry, message: Enrol, now: float) -> None:
    version = kept.version if kept.confirmed else None
    going_on = message.prior_term > 0 and message.version is not None
    if kept.doubt is Doubt.AGE and not going_on and message.wants:
        version = None
    greet(kept, entry, version, now)
    for liar, words in kept.roster.liars.items():
        if kept.version is not None:
            verdict = Verdict(kept.task, kept.term, kept.version.version, liar, words)
            kept.send(entry.peer, verdict)


def greet(kept: Kept, entry: Entry, version: VersionInfo | None, now: float) -> None:
    """Enrolled, with the members it is to know first."""
    others = kept.roster.choose(entry, kept.config.told_first)
    if entry.peer in kept.roster.entries:
        kept.roster.tell(entry, others)
    entry.told_version = version
    named = tuple(other.named() for other in others) + cells.outsiders(kept, entry)
    age_s = 0.0 if version is None else kept.age_s(now)
    answer = Enrolled(kept.task, kept.term, version, age_s, named)
    kept.send(entry.peer, answer)
    cells.stands(kept, entry, answer)


def progress(kept: Kept, entry: Entry, message: Progress, now: float) -> None:
    """What `entry` holds now, if it is of this version."""
    came_back(kept, entry)
    if kept.version is None or message.version != kept.version.version:
        return
    kept.roster.has(entry, parse_bitmap(message.have, kept.count), now)
    for lease in kept.book.of(entry.peer):
        if lease.said_done:
            kept.end_lease(lease, "unattested", now, unread=False)


def enlist(kept: Kept) -> None:
    """Seed peers read for all, and keep what they read."""
    if kept.spec is None:
        return
    seeds = [member.peer for member in kept.members.values() if member.seed]
    absent = [peer for peer in ranked(seeds, kept.task) if peer not in kept.roster.entries]
    for seed in absent[: kept.config.seeds_enlisted_max]:
        kept.send(seed, Enlist(kept.task, kept.spec))


# --- going, and coming back


def withdraw(kept: Kept, peer: PeerId, now: float) -> None:
    """It left of its own will."""
    for lease in kept.book.of(peer):
        kept.end_lease(lease, "returned", now, unread=True)
    gone(kept, peer, now)


def lost(kept: Kept, entry: Entry, now: float) -> None:
    """Its link closed: ask whether it is still there. A link that was idle also closes."""
    if entry.lost_at is None and entry.peer != kept.own:
        entry.lost_at = now
        kept.lost[entry.peer] = now + kept.config.lost_grace_s
        kept.wake(Timer.LOST, kept.lost[entry.peer])
        kept.send(entry.peer, Probe(kept.task))


def came_back(kept: Kept, entry: Entry) -> None:
    if entry.lost_at is not None:
        entry.lost_at = None
        kept.lost.pop(entry.peer, None)


def gone(kept: Kept, peer: PeerId, now: float) -> None:
    """Off the roster. What it was to read is anybody's; a stream is not to be had twice at once."""
    kept.lost.pop(peer, None)
    kept.awaiting.discard(peer)
    entry = kept.roster.remove(peer)
    if entry is None:
        return
    kept.say(now, f"{peer} left with {entry.bits.bit_count()} pieces")
    pace.hand_out_again(kept, peer, "lost", now, tell=False)
    for other in kept.roster.untell(peer):
        if other.wants and not other.complete:
            _name(kept, other, gone=(peer,))
    if not kept.roster.entries:
        kept.wake(Timer.IDLE, now + kept.config.idle_s)


def sweep_lost(kept: Kept, now: float) -> None:
    for peer, until in list(kept.lost.items()):
        if until <= now:
            gone(kept, peer, now)
    if kept.lost:
        kept.wake(Timer.LOST, min(kept.lost.values()))


def answered(kept: Kept, peer: PeerId, now: float, *, there: bool) -> None:
    """A Probe was, or never will be."""
    entry = kept.roster.entries.get(peer)
    if there and entry is not None:
        came_back(kept, entry)
    holders.answered(kept, peer, now, there=there)


# --- telling


def tell(kept: Kept) -> None:
    """Those who know few members hear of others."""
    for peer in list(kept.roster.short_of_peers):
        entry = kept.roster.entries[peer]
        if entry.wants and not entry.complete:
            _name(kept, entry)
    for entry in kept.roster.wanting() if kept.cell else ():
        outside = cells.outsiders(kept, entry)
        if outside:
            kept.send(entry.peer, RosterUpdate(kept.task, kept.term, None, outside, ()))


def _name(kept: Kept, entry: Entry, gone: tuple[PeerId, ...] = ()) -> None:
    room = kept.config.told_first - len(entry.told)
    others = kept.roster.choose(entry, room) if room > 0 else []
    kept.roster.tell(entry, others)
    if others or gone:
        named = tuple(other.named() for other in others)
        kept.send(entry.peer, RosterUpdate(kept.task, kept.term, None, named, gone))


def name_readers(kept: Kept, now: float) -> None:
    """Proof to those who wait that somebody reads for them."""
    waiting = kept.roster.wanting()
    named = kept.readers_named()
    if waiting and (named or kept.paused()):
        update = RosterUpdate(kept.task, kept.term, None, named, ())
        again = RosterUpdate(kept.task, kept.term, kept.version, named, ())
        for entry in waiting:
            # Who holds nothing may have missed the version, between two keepers.
            missed = not entry.bits and entry.told_version is not None
            kept.send(entry.peer, again if missed else update)
    if waiting:
        kept.wake(Timer.NAME, now + kept.config.name_interval_s)
