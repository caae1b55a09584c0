"""How one keeper follows another: what it learns, how long it waits, what it passes on.

Always: a new keeper's term is above every term it heard of; leases that it learnt of are in its
book before it grants, so that no piece is read twice because a keeper died.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from peerd.cells import split
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.messages import Enrol, KeeperState, LeaseInfo, Probe
from peerd.manifest import VersionInfo
from peerd.scheduler.keeper_audits import Audits
from peerd.scheduler.keeper_events import KeeperConfig, Order, Rng, Timer
from peerd.scheduler.keeper_members import adopt
from peerd.scheduler.keeper_seat import Copy, Seat
from peerd.scheduler.keeper_state import VALIDATED_NEVER_S, Doubt, Kept, fits
from peerd.scheduler.keeper_width import Width
from peerd.scheduler.leases import LeaseBook, run_bits
from peerd.scheduler.ports import Member
from peerd.scheduler.roster import Roster, parse_bitmap

AWAITED_ASKED_MAX = 64
"""So many members of a former keeper are asked whether they are there. Guess."""
UNTOLD_GRANTS = 16
"""Extents that a keeper may have granted and not told of when it died: its copies go every 20 ms,
and wait on a busy link for some tenths of a second. As many as few readers hold together."""
HEARD_S = 2.0
"""Who said nothing for so long may have gone to another keeper. Guess: members that read or get
pieces say so twice a second."""
LATE_MIN = 2
"""Of one other it cannot be told whose link is slow."""
TERM_MAX = 1 << 52
"""Below what a message carries, so that the next term always fits."""


def start(
    seat: Seat,
    own: PeerId,
    waiting: Mapping[PeerId, Enrol],
    answers: Mapping[PeerId, Copy],
    live: Mapping[PeerId, Member],
    dead: Collection[PeerId],
    rng: Rng,
    config: KeeperConfig,
    out: list[Order],
    now: float,
) -> Kept:
    """Begin to keep a task with all that is known of it."""
    prior = max(asked.prior_term for asked in waiting.values())
    seat.heard_term(prior, config.term_jump_max)
    copies = [*answers.values(), *([seat.copy] if seat.copy is not None else [])]
    for copy in copies:
        seat.heard_term(copy.state.term, config.term_jump_max)
    seat.term_heard = min(seat.term_heard + 1, TERM_MAX)
    spec = next((asked.spec for asked in waiting.values() if asked.spec is not None), None)
    zone, cell = split(seat.scope)
    if cell:
        config = replace(config, told_first=config.told_outside, told_enough=config.told_outside)
    kept = Kept(
        own=own, task=seat.task, term=seat.term_heard, config=config, rng=rng, members=live,
        out=out, story=seat.story, roster=Roster(config, rng),
        book=LeaseBook(rng.getrandbits(32) << 20 | 1), audits=Audits(config, rng),
        width=Width(config), spec=spec, scope=seat.scope, zone=zone, cell=cell, wide=seat.wide,
    )  # fmt: skip
    kept.say(now, f"keeps it, term {kept.term}")
    copies.sort(key=lambda copy: -copy.state.term)
    _learn_version(seat, kept, copies, now)
    leases = _learn_leases(kept, copies, now)
    _learn_holders(seat, kept, copies)
    if not cell and (leases or prior or any(copy.state.handover for copy in copies)):
        _pause(kept, copies, leases, dead, now)
    kept.copy_soon(now)
    return kept


def _learn_version(seat: Seat, kept: Kept, copies: list[Copy], now: float) -> None:
    for copy in copies:
        version, age_s = copy.state.version, copy.age_s(now)
        if version is not None and _usable(kept, version):
            kept.set_version(version, now)
            if age_s < VALIDATED_NEVER_S:
                kept.validated_at = now - age_s
            kept.confirmed = bool(
                kept.zone or version.digest is not None or age_s < VALIDATED_NEVER_S
            )
            break
    else:
        for listed in sorted(seat.listed.values(), key=lambda listed: -len(listed.holders)):
            if _usable(kept, listed.info):
                kept.set_version(listed.info, now)
                kept.confirmed = listed.info.digest is not None
                break
            del seat.listed[listed.info.version]
    if kept.version is not None and not kept.confirmed:
        kept.doubt = Doubt.AGE


def _usable(kept: Kept, version: VersionInfo) -> bool:
    try:
        kept.check_version(version)
    except RemoteProtocolError:
        return False
    return True


def _learn_leases(kept: Kept, copies: list[Copy], now: float) -> list[LeaseInfo]:
    """Take over those that are still running; the newest keeper's word first. Who talks to this
    keeper said itself what it reads, and a keeper's word may be old: over a slow link a handover
    took 6 s, and nobody read while leases that had ended long before ran out here, 5 s more."""
    found: dict[int, tuple[LeaseInfo, VersionInfo | None]] = {}
    for copy in copies:
        for info in copy.leases(now):
            entry = kept.roster.entries.get(info.holder)
            if entry is None or now - entry.heard_at > HEARD_S:
                found.setdefault(info.lease, (info, copy.state.version))
    return [info for info, version in found.values() if adopt(kept, info, version, now)]


def _learn_holders(seat: Seat, kept: Kept, copies: list[Copy]) -> None:
    if kept.version is None:
        return
    version = kept.version.version
    for copy in copies:
        if copy.state.version is not None and copy.state.version.version == version:
            kept.unchecked.update(dict.fromkeys(copy.state.holders))
    listed = seat.listed.get(version)
    if listed is not None:
        kept.unchecked.update(listed.holders)


def _pause(
    kept: Kept,
    copies: list[Copy],
    leases: list[LeaseInfo],
    dead: Collection[PeerId],
    now: float,
) -> None:
    """Grant nothing until the former keeper's members registered, or its leases ran out."""
    config = kept.config
    known = {peer for copy in copies for peer in copy.state.members}
    known |= {info.holder for info in leases}
    # Those not in view, too: a peer that just started sees few, and they hold and read.
    kept.awaiting = {peer for peer in known if peer not in dead and peer != kept.own}
    if not known and not kept.scope:
        kept.awaiting = set(kept.members) - {kept.own, *dead}
    for peer in sorted(kept.awaiting & kept.members.keys())[:AWAITED_ASKED_MAX]:
        kept.send(peer, Probe(kept.task))  # Who does not answer a dial is not waited for.
    slack_s = config.lease_slack_s
    wait_s = max((info.expires_in_s for info in leases), default=0.0)
    if not leases:
        wait_s = config.reregister_s if known else config.lease_default_s
    kept.timers[Timer.PAUSE] = now + max(min(wait_s, config.lease_max_s), 0.0) + slack_s
    kept.say(now, f"grants nothing yet: {len(kept.awaiting)} members are to register again")


def ask_rivals(kept: Kept, rivals: Collection[PeerId], now: float) -> None:
    """Grant nothing until these had the time to say that they keep it meanwhile; what members have
    to say of their leases may lie in the sockets since, so that none runs out before."""
    kept.rivals.update(rivals)
    until = kept.timers[Timer.RIVALS] = now + kept.config.probe_wait_s
    for lease in kept.book.leases.values():
        lease.expires_at = max(lease.expires_at, until)
    for peer in rivals:
        kept.send(peer, Probe(kept.task))


def yielded(kept: Kept, rival: PeerId, now: float) -> None:
    """It does not keep it, or cannot be reached."""
    if rival in kept.rivals:
        kept.rivals.discard(rival)
        if not kept.rivals:
            kept.timers[Timer.RIVALS] = now


def withhold(seat: Seat, kept: Kept) -> None:
    """The former keeper died just now, or left it to this peer, and told what it granted: that
    waits for those who are to register, and what it granted next and could not tell; the rest does
    not."""
    if seat.copy is None or seat.keeper is None or not kept.paused():
        return
    bits = _granted(kept, seat.copy.state)
    if bits is None or kept.count is None:
        return
    ahead = LeaseBook(1)
    ahead.cut(kept.count, f"{seat.keeper}/{seat.task}")
    for _ in range(UNTOLD_GRANTS):
        run = ahead.next_run(bits)
        bits |= run_bits(*run) if run is not None else 0
    kept.withheld = bits


def _granted(kept: Kept, state: KeeperState) -> int | None:
    """What another keeper granted or knew to be held; None: it does not say."""
    if not state.granted or state.version is None or kept.version is None or not kept.parallel:
        return None
    if not fits(state.version, kept.version):
        return None
    try:
        return parse_bitmap(state.granted, kept.count)
    except RemoteProtocolError:
        return None


def resume(kept: Kept, now: float) -> None:
    """Members had their time to register: what none of them holds or reads is to be read."""
    kept.say(now, f"grants again; {len(kept.awaiting)} members did not register")
    kept.awaiting.clear()
    if kept.withheld is not None:
        withheld, kept.withheld = kept.withheld, None
        _release(kept, withheld)


def _release(kept: Kept, withheld: int) -> None:
    """It was passed over and is in line no more: what nobody holds or reads of it is read last."""
    left = withheld & ~kept.roster.covered & ~kept.book.leased
    kept.book.unread(left, "views", last=True)


def awaited(kept: Kept, gone: Collection[PeerId], now: float) -> None:
    """These will not register any more."""
    if kept.paused() and kept.awaiting and kept.awaiting.intersection(gone):
        kept.awaiting.difference_update(gone)
        if not kept.awaiting:
            kept.timers[Timer.PAUSE] = now


def heard(kept: Kept, term: int, now: float) -> None:
    """An asker heard a higher term: another kept this task meanwhile. Go above it."""
    if term > kept.term:
        kept.term = min(kept.term + kept.config.term_jump_max, term + 1, TERM_MAX)
        # Members hear of it with the next message; a hostile term shall not cost one to each.
        kept.wake(Timer.NAME, now + kept.config.copy_members_s)


def merge(seat: Seat, kept: Kept, state: KeeperState, dead: Collection[PeerId], now: float) -> None:
    """Another keeper hands its roster over: its readers go on, its members come here."""
    heard(kept, state.term, now)
    copy = Copy(state, now)
    if kept.version is None:
        _learn_version(seat, kept, [copy], now)
        kept.push_version(now)
    leases = _learn_leases(kept, [copy], now)
    _learn_holders(seat, kept, [copy])
    absent = {
        peer
        for peer in state.members
        if peer not in kept.roster.entries and peer not in dead and peer in kept.members
    }
    kept.say(now, f"took over {len(leases)} leases and {len(state.members)} members")
    seat.merges = [at for at in seat.merges if now - at < kept.config.handover_pause_s]
    if absent and len(seat.merges) < kept.config.merges_max:
        seat.merges.append(now)
        before, told = kept.withheld if kept.paused() else 0, _granted(kept, state)
        if before is not None and told is None:
            _release(kept, before)
        kept.withheld = None if before is None or told is None else before | told
        kept.awaiting |= absent
        kept.timers[Timer.PAUSE] = now + kept.config.reregister_s
    kept.copy_soon(now)


def successor(
    seat: Seat, kept: Kept, late: Collection[PeerId], config: KeeperConfig, now: float
) -> PeerId | None:
    """Who is to keep the task instead: answers take seconds over most of this peer's links, so that
    it is its own link that is slow, and all wait for it. Not to and fro: once in a while."""
    seat.yields = [at for at in seat.yields if now - at <= config.handover_pause_s]
    if seat.yields or seat.given(config, now) or kept.finished:
        return None
    entries = kept.roster.entries.values()
    others = [each for each in entries if each.peer != kept.own and each.lost_at is None]
    slow = sum(1 for each in others if each.peer in late)
    if len(others) < LATE_MIN or 2 * slow <= len(others) or not any(x.wants for x in others):
        return None
    there = {each.peer for each in others}
    fit = [peer for peer in seat.order[: 1 + config.standbys] if peer in there]
    return min(fit, key=lambda peer: peer in late, default=None)


def copy(kept: Kept, standbys: list[PeerId], now: float) -> None:
    """Tell the standbys how the task stands; the member list not every time."""
    config = kept.config
    few = len(kept.roster.entries) <= config.copy_members_free
    due = now - kept.members_copied_at >= config.copy_members_s
    state = kept.state(now, handover=False, members=few or due)
    if few or due:
        kept.members_copied_at = now
    kept.copied_at = now
    for peer in standbys:
        kept.send(peer, state)
