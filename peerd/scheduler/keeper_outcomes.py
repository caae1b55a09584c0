"""What holders of leases say came of them, and what follows.

Always: a report counts only from the lease's holder, an attestation only if its maker sent and
signed it and the lease covers it; what a lease did not bring is to be read again, with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable

from peerd.errors import RemoteProtocolError
from peerd.ids import LeaseId
from peerd.link.messages import (
    Access,
    Complaint,
    Dispute,
    Doubted,
    Ended,
    LeaseKind,
    LeaseReport,
    Outcome,
    Resolved,
    RosterUpdate,
    Verdict,
)
from peerd.manifest import Attestation, VersionInfo
from peerd.scheduler import keeper_borders as borders
from peerd.scheduler import keeper_grants as grants
from peerd.scheduler import keeper_members as members
from peerd.scheduler import keeper_pace as pace
from peerd.scheduler.keeper_state import RENEWED_PIECES, Doubt, Kept
from peerd.scheduler.keeper_voices import Ruling, alone, outvoted, rule
from peerd.scheduler.leases import Lease
from peerd.scheduler.ports import NOT_REACHED
from peerd.scheduler.roster import Entry

CANNOT_WRITE = ("no-space", "store-damaged")
"""What a reader fails with whose own disk is the trouble (errors.py)."""


def report(kept: Kept, entry: Entry, message: LeaseReport, now: float) -> None:
    """How a lease stands. A lease that is over, or another's, changes nothing."""
    lease = _lease(kept, entry, message.lease)
    if lease is None:
        return
    if lease.kind is LeaseKind.BRING:
        borders.report(kept, entry, lease, message, now)
        return
    made = _checked(kept, lease, entry, message.made)
    if lease.kind is LeaseKind.AUDIT:
        _audited(kept, entry, lease, message, made, now)
        return
    if made and entry.peer not in kept.roster.liars:
        _take(kept, entry, lease, made, now)
    match message.outcome:
        case Outcome.PROGRESS:
            kept.renew(entry, lease, now)
        case Outcome.DONE if lease.kind is LeaseKind.RESOLVE and not lease.count:
            pass  # It has yet to say what it resolved.
        case Outcome.DONE:
            _done(kept, entry, lease, now)
        case Outcome.RETURNED:
            kept.end_lease(lease, "returned", now, unread=True)
        case Outcome.REFUSED:
            _refused(kept, entry, lease, message.words, now)
        case Outcome.FAILED:
            _failed(kept, entry, lease, message.code, message.words, now)


def _lease(kept: Kept, entry: Entry, lease_id: int) -> Lease | None:
    lease = kept.book.leases.get(LeaseId(lease_id))
    return lease if lease is not None and lease.holder == entry.peer else None


def _done(kept: Kept, entry: Entry, lease: Lease, now: float) -> None:
    """Over, but where it says nothing of a piece: it holds that, and its Progress is on its way.

    Granted again at once, such a lease would come back as fast as it went, to be granted again.
    """
    silent = lease.bits & ~(lease.attested | kept.roster.covered)
    if silent and lease.kind is not LeaseKind.STREAM and kept.roster.trusted(entry.peer):
        lease.said_done = True
        lease.expires_at = now + kept.config.unattested_s - kept.config.lease_slack_s
    else:
        kept.end_lease(lease, "unattested", now, unread=False)


def _checked(
    kept: Kept, lease: Lease, entry: Entry, made: Iterable[Attestation]
) -> list[Attestation]:
    """Those not known yet; RemoteProtocolError if one is not the holder's to make."""
    version = kept.version.version if kept.version is not None else None
    count = kept.count
    new = []
    for attestation in made:
        index = attestation.index
        if attestation.attester != entry.peer:
            raise RemoteProtocolError(f"an attestation by {attestation.attester}, not the sender")
        if attestation.version != version:
            continue  # Of a version that was given up meanwhile.
        if not lease.covers(index):
            raise RemoteProtocolError(f"piece {index} of {attestation.version[:12]}: not leased")
        if count is not None and index >= count:
            raise RemoteProtocolError(f"piece {index} of {count}")
        if not lease.attested >> index & 1:
            new.append(attestation.verified())
    return new


def _take(kept: Kept, entry: Entry, lease: Lease, made: list[Attestation], now: float) -> None:
    """Pieces that `entry` read: it holds them, and its pace is known better."""
    bits = 0
    for attestation in made:
        bits |= 1 << attestation.index
        kept.audits.made(attestation)
    pace.read(kept, entry, lease, bits, now)
    kept.roster.attested(entry, bits, now)
    if entry.access is not Access.REFUSED:
        entry.access = Access.PROVEN
    _worked(kept, entry)


def _worked(kept: Kept, entry: Entry) -> None:
    """The origin can be read: former failures say nothing any more."""
    kept.failures.clear()
    entry.failures = 0


# --- it did not work


def _refused(kept: Kept, entry: Entry, lease: Lease, words: str, now: float) -> None:
    entry.access = Access.REFUSED
    kept.failures[entry.peer] = ("origin-refused", words, now)
    kept.say(now, f"{entry.peer} is refused by the origin: {words}")
    kept.end_lease(lease, "returned", now, unread=True)


def _failed(kept: Kept, entry: Entry, lease: Lease, code: str, words: str, now: float) -> None:
    kept.say(now, f"{entry.peer} failed to read: {code}: {words}")
    if code == "origin-refused":
        _refused(kept, entry, lease, words, now)
        return
    resolving = lease.kind is LeaseKind.RESOLVE
    kept.end_lease(lease, "returned", now, unread=True)
    if code == "origin-unreachable":
        pace.give_up_on(kept, entry, lease, now)
    if code == "origin-changed" and not resolving:
        _said_changed(kept, entry, words, now)
        return
    pace.back_off(kept, entry, now)
    if code in CANNOT_WRITE:
        # What it reads is thrown away: it is granted nothing until it asks anew.
        entry.room = 0
        kept.line_up(entry, now)
    if not code.startswith("origin-"):
        return  # Its own trouble: no space, cancelled.
    kept.failures.pop(entry.peer, None)
    kept.failures[entry.peer] = (code, words, now)
    if resolving and kept.doubt is Doubt.AGE and code != "origin-not-found":
        _last_known(kept, now)


def _said_changed(kept: Kept, entry: Entry, words: str, now: float) -> None:
    """Somebody found another version: have it resolved before anybody starts again."""
    kept.claims[entry.peer] = words
    kept.doubt = Doubt.CHANGED


def _refuted(kept: Kept, now: float) -> None:
    """The version is what it was: those who said otherwise failed to read, no more."""
    for peer, words in kept.claims.items():
        entry = kept.roster.entries.get(peer)
        if entry is not None:
            kept.failures[peer] = ("origin-changed", words, now)
            pace.back_off(kept, entry, now)


def _last_known(kept: Kept, now: float) -> None:
    """The origin cannot be asked: what members hold is good enough, its age is said."""
    kept.roster.settle()
    if not kept.finished and not kept.checking and not kept.unchecked:
        return
    kept.say(now, "the origin is down: the last known version it is")
    kept.doubt, kept.confirmed = Doubt.NONE, True
    kept.failures.clear()
    kept.revalidate_at = now + kept.config.failure_backoff_max_s
    for entry in kept.roster.wanting():
        if entry.told_version != kept.version:
            members.greet(kept, entry, kept.version, now)


# --- resolving


def resolved(kept: Kept, entry: Entry, message: Resolved, now: float) -> None:
    """The version is known: everybody is told, and the resolver goes on with what it reads."""
    lease = _lease(kept, entry, message.lease)
    if lease is None or lease.kind is not LeaseKind.RESOLVE or lease.count:
        return
    known = kept.version
    if message.unchanged:
        if known is None or message.version.version != known.version:
            raise RemoteProtocolError("an unchanged version that nobody knew")
    else:
        if message.version.attester != entry.peer:
            raise RemoteProtocolError(f"resolved by {message.version.attester}, not the sender")
        kept.check_version(message.version)
    if entry.access is not Access.REFUSED:
        entry.access = Access.PROVEN
    changed = known is not None and message.version.version != known.version
    ruling = rule(kept, entry, message.version)
    for liar in outvoted(kept):
        grants.convict(kept, liar, "two others found another length at the origin", now)
    if known is not None and ruling is not Ruling.BELIEVED:
        _not_believed(kept, entry, lease, known, ruling, now)
        return
    _worked(kept, entry)
    if changed and grants.too_many_changes(kept, now):
        grants.unreadable(kept, "origin-changed", "the content changes again and again", now)
    if known is not None and not changed and known.ranged == message.version.ranged:
        _refuted(kept, now)
    kept.claims.clear()
    kept.doubt, kept.confirmed, kept.validated_at = Doubt.NONE, True, now
    if message.unchanged:
        kept.end_lease(lease, "returned", now, unread=True)
    else:
        kept.set_version(message.version, now, keep=lease)
        _go_on(kept, entry, lease, message.version, now)
    kept.push_version(now)
    kept.copy_soon(now)


def _not_believed(
    kept: Kept, entry: Entry, lease: Lease, known: VersionInfo, ruling: Ruling, now: float
) -> None:
    """The version stays as it was, if only until others were asked; `entry` goes back to it."""
    kept.say(now, f"{entry.peer} resolved another version: {ruling.value}")
    if ruling is Ruling.OVERRULED:
        kept.claims[entry.peer] = (
            "this peer finds another length at its URL than others do; check URL and digest"
        )
        _refuted(kept, now)
        kept.claims.clear()
        kept.doubt, kept.confirmed = Doubt.NONE, True
    if lease.lease in kept.book.leases:
        kept.revoke(lease, "returned", now)
    entry.told_version = known
    kept.send(entry.peer, RosterUpdate(kept.task, kept.term, known, (), ()))
    kept.copy_soon(now)


def _go_on(kept: Kept, entry: Entry, lease: Lease, version: VersionInfo, now: float) -> None:
    """The resolving response is read on: piece 0, or all where it is the only one."""
    if not members.read_on(kept, lease):
        kept.book.count_again("revalidated", 1 if version.piece_count else 0)
        kept.end_lease(lease, "returned", now, unread=True)
        return
    lease.expires_at = max(lease.expires_at, now + kept.lease_s(entry, RENEWED_PIECES))
    kept.tell_lease(lease, now)


def ended(kept: Kept, entry: Entry, message: Ended, now: float) -> None:
    """The stream's reader saw the end: the length is known."""
    lease = kept.book.only(LeaseKind.STREAM)
    known, version = kept.version, message.version
    if lease is None or lease.holder != entry.peer or known is None:
        return
    if known.length_bytes is not None or version.version != known.version:
        return
    count = version.piece_count
    if version.attester != entry.peer or count is None:
        raise RemoteProtocolError("an end that its sender does not vouch for")
    if version.piece_length_bytes != known.piece_length_bytes or lease.attested >> count:
        raise RemoteProtocolError("an end that does not fit what was read before it")
    kept.check_version(version)
    kept.set_version(version, now)
    kept.book.reshape(lease, LeaseKind.STREAM, min(lease.first, count), max(0, count - lease.first))
    kept.push_version(now)
    kept.copy_soon(now)


# --- audits and disputes


def _audited(
    kept: Kept,
    entry: Entry,
    lease: Lease,
    message: LeaseReport,
    made: list[Attestation],
    now: float,
) -> None:
    kept.audits.heard(lease.lease, made)
    for attestation in made:
        lease.attested |= 1 << attestation.index
    if message.outcome is Outcome.PROGRESS:
        kept.renew(entry, lease, now)
    elif message.outcome is Outcome.DONE:
        finding = kept.audits.finish(lease.lease)
        kept.end_lease(lease, "audit", now, unread=False)
        for liar in finding.liars:
            grants.convict(kept, liar, "two others read something else", now)
    else:
        kept.end_lease(lease, "audit", now, unread=True)
        if message.code == "origin-changed":
            _said_changed(kept, entry, message.words, now)
        elif message.outcome is not Outcome.RETURNED:
            pace.back_off(kept, entry, now)


def complaint(kept: Kept, entry: Entry, message: Complaint, now: float) -> None:
    """A holder of whom others get nothing right counts as no holder: what only it has is read,
    and what it was about to read."""
    if message.peer == kept.own and message.words == NOT_REACHED:
        return  # They came over such a link.
    if kept.roster.complain(entry, message.peer, message.words, now):
        kept.say(now, f"{message.peer} counts no more: {message.words}")
        pace.hand_out_again(kept, message.peer, "shunned", now, tell=True)


def doubted(kept: Kept, entry: Entry, message: Doubted, now: float) -> None:
    """A version that only one vouches for and another cannot use: somebody else resolves it."""
    version = kept.version
    if version is None or version.version != message.version or not kept.resolved:
        return
    if version.digest is not None and alone(kept, version):
        kept.say(now, f"{entry.peer} doubts the version: {message.words}")
        kept.doubt = Doubt.CHANGED


def dispute(kept: Kept, entry: Entry, message: Dispute, now: float) -> None:
    """The whole digest failed for `entry`: have others read what it was made of."""
    version = kept.version
    if version is None or version.version != message.version or version.digest is None:
        return
    if entry.peer in kept.audits.disputers:
        return
    known = next((x.attester for x in message.made if x.attester in kept.roster.liars), None)
    if known is not None:
        # Said before it heard the verdict: that is why its digest failed, not what others read.
        words = kept.roster.liars[known]
        kept.send(entry.peer, Verdict(kept.task, kept.term, version.version, known, words))
        return
    count = kept.count or 0
    for attestation in message.made:
        if attestation.version != version.version or attestation.index >= count:
            raise RemoteProtocolError(f"a dispute over piece {attestation.index} of {count}")
    kept.say(now, f"{entry.peer}: the whole digest failed, {len(message.made)} pieces in dispute")
    kept.audits.dispute(entry.peer, message.made, kept.parallel)
