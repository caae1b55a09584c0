"""Holders that registered but are not members: asked whether they are there, when it is wanted.

Always: who answers counts as holding all of the version that is current, in the group's view or
not: a keeper that just started sees few, and those who hold it may be among the others; who answers
late counts from then on; each is asked once.
"""

from __future__ import annotations

from collections.abc import Iterable

from peerd.ids import PeerId
from peerd.link.messages import Access, Probe
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.ports import Member
from peerd.scheduler.roster import Entry


def check(kept: Kept, now: float) -> None:
    """Somebody wants what only the directory says is held: ask holders whether they are there."""
    if kept.checking or not kept.unchecked or kept.finished or not kept.roster.wanting():
        return
    if kept.check_rounds >= kept.config.holder_rounds_max:
        kept.unchecked.clear()
        return
    kept.check_rounds += 1
    for peer in list(kept.unchecked)[: kept.config.holders_checked]:
        del kept.unchecked[peer]
        kept.checking[peer] = None
        kept.send(peer, Probe(kept.task))
    kept.wake(Timer.CHECK, now + kept.config.probe_wait_s)


def answered(kept: Kept, peer: PeerId, now: float, *, there: bool) -> None:
    """It is there, and a member from now on; or it is not."""
    late = peer in kept.unanswered and peer not in kept.roster.entries
    if there and (late or peer in kept.checking):
        add(kept, peer, now)
    kept.unanswered.pop(peer, None)
    if peer not in kept.checking:
        return
    del kept.checking[peer]
    if not kept.checking:
        kept.timers.pop(Timer.CHECK, None)
        check(kept, now)


def check_over(kept: Kept, now: float) -> None:
    """Who has not answered by now is waited for no more; it counts once it answers."""
    kept.unanswered.update(kept.checking)
    kept.checking.clear()
    check(kept, now)


def add(kept: Kept, peer: PeerId, now: float) -> None:
    """It holds all of the current version, and is there."""
    if kept.version is None or kept.roster.full is None:
        return
    entry = kept.roster.entries.get(peer)
    if entry is None:
        if len(kept.roster.entries) >= kept.config.roster_max:
            return
        member = kept.members.get(peer)
        seed = member is not None and member.seed
        entry = Entry(peer, (), "", seed, False, Access.UNKNOWN, enrolled_at=now, heard_at=now)
        if member is not None:
            _seen(entry, member)
        kept.roster.add(entry)
    kept.roster.has(entry, kept.roster.full, now)
    kept.wake(Timer.TELL, now + kept.config.tell_interval_s)


def in_view(kept: Kept, joined: Iterable[PeerId], now: float) -> None:
    """The group's view has these now: those on the roster without an address can be dialled."""
    for peer in joined:
        entry = kept.roster.entries.get(peer)
        if entry is not None and not entry.addresses:
            _seen(entry, kept.members[peer])
            kept.roster.untell(peer)
            kept.wake(Timer.TELL, now + kept.config.tell_interval_s)


def _seen(entry: Entry, member: Member) -> None:
    entry.addresses, entry.zone = member.link_addresses[:8], member.zone
