"""The keeper of a cell: who stands for it at the wider keeper, and what comes back from there.

Always: no leases are granted here, and a version that comes from the wider keeper replaces what
members said; a delegate is given up when it left, is done or is refused by the origin; who is
named to members or passed on is in the group as this peer sees it, at the addresses seen there.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from peerd import cells
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, TaskId
from peerd.link.messages import (
    Access,
    CellHolds,
    Delegate,
    Enrol,
    Enrolled,
    RosterPeer,
    Sample,
)
from peerd.scheduler.keeper_events import Timer
from peerd.scheduler.keeper_state import Doubt, Kept
from peerd.scheduler.roster import Entry, parse_bitmap

STUCK_S = 5.0
"""Nothing came into the cell for so long: one more stands for it. Guess: some leases' time."""
SPEAKERS_MAX = 2
"""Members with a dispute or a doubt that are let speak for themselves. Guess: two are believed."""
SAMPLE_S = 0.5
SAMPLE_MAX_S = 30.0
"""Samples are exchanged so often; twice as seldom each time, until the cell grows: who is sampled
first hears of few."""
HELD_EVERY_S = 0.05
"""What came into a zone's cell is gathered so long before the wider keeper hears of it: less than a
piece takes to come into sight of other cells. Guess."""
SAMPLE_MAX = 16
"""Members of one cell in a sample."""
BACK_MAX = 48
"""Members of other cells in the answer: a few for each who will be told of some."""


def above(wide: TaskId, cell: str) -> TaskId:
    """The seat of the wider cell, or of the group, in which this one has delegates."""
    return cells.cell_seat(wide, cell[: cells.wider_bits(len(cell))])


def scope_above(scope: str) -> str:
    """The scope of that seat."""
    zone, cell = cells.split(scope)
    return cells.scope_of(zone, cell[: cells.wider_bits(len(cell))])


def check(peer: PeerId, message: Enrol) -> tuple[str, str, TaskId]:
    """Zone, cell and wide seat that an Enrol names; RemoteProtocolError if they do not fit."""
    try:
        zone, cell = cells.split(message.scope)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from error
    wide = message.wide if cell else message.task
    if wide is None or cells.cell_seat(wide, cell) != message.task:
        raise RemoteProtocolError(f"that is not the seat of {message.scope}")
    if cell and not cells.lies_in(peer, message.zone, message.scope):
        raise RemoteProtocolError(f"{peer} does not lie in {message.scope}")
    return zone, cell, wide


# --- the keeper of a cell


def enrolled(kept: Kept, entry: Entry, message: Enrol, now: float) -> None:
    """It may stand for the cell already: with another keeper of it, before this one."""
    if message.delegate and entry.peer in kept.roster.entries:
        kept.cells.delegates.setdefault(entry.peer, now)


def let_speak(kept: Kept, entry: Entry) -> None:
    """What it disputes or doubts it has to say to the wider keeper itself."""
    speakers = kept.cells.speakers
    if entry.peer not in speakers and len(speakers) < SPEAKERS_MAX:
        speakers[entry.peer] = None
        kept.send(entry.peer, Delegate(kept.task, kept.term))


def plan(kept: Kept, now: float) -> None:
    """Enough delegates, more where nothing comes, and a word with the wider keeper."""
    state, entries = kept.cells, kept.roster.entries
    for peer in [
        x for x in state.delegates if x not in entries or not _may_stand(kept, entries[x])
    ]:
        del state.delegates[peer]
    for peer in [x for x in state.speakers if x not in entries]:
        del state.speakers[peer]
    if not kept.roster.wanting():
        return
    kept.wake(Timer.NAME, now + kept.config.name_interval_s)
    _sample(kept, now)
    _say_held(kept, now)
    if kept.finished and kept.confirmed and kept.doubt is Doubt.NONE:
        return
    enough = cells.delegates(kept.cell)
    enough += _stuck(kept, enough, now)
    standing = sum(1 for peer in state.delegates if not entries[peer].seed)
    for entry in _next(kept):
        if not entry.seed:
            if standing >= enough:
                continue
            standing += 1
        state.delegates[entry.peer] = now
        kept.say(now, f"{entry.peer} stands for the cell")
        kept.send(entry.peer, Delegate(kept.task, kept.term))


def _may_stand(kept: Kept, entry: Entry) -> bool:
    refused = entry.access is Access.REFUSED
    return entry.wants and not entry.complete and not refused and kept.roster.trusted(entry.peer)


def _next(kept: Kept) -> list[Entry]:
    """Seed peers first, then who has something to show at the origin, then who came first."""
    fit = [
        entry
        for entry in kept.roster.entries.values()
        if entry.peer not in kept.cells.delegates
        and entry.lost_at is None
        and _may_stand(kept, entry)
    ]
    fit.sort(key=lambda entry: (not entry.seed, entry.access is Access.UNKNOWN))
    return fit


def _stuck(kept: Kept, most: int, now: float) -> int:
    """How many more are to stand, as nothing came into the cell for so long."""
    state = kept.cells
    held = kept.roster.covered.bit_count() if kept.confirmed and kept.version else -1
    if held > state.moved or state.moved_at == -inf:
        state.moved, state.moved_at = held, now
    more = 0
    while more < most and now >= state.moved_at + (more + 1) * STUCK_S:
        more += 1
    if more < most:
        kept.wake(Timer.JUDGE, state.moved_at + (more + 1) * STUCK_S)
    return more


def _sample(kept: Kept, now: float) -> None:
    """Some of the cell to the wider keeper, while that has others to tell in return."""
    state, entries = kept.cells, kept.roster.entries
    if state.above is None:
        return
    if len(entries) > state.sampled:
        state.sample_s = SAMPLE_S
    if now < state.sampled_at + state.sample_s:
        kept.wake(Timer.TELL, state.sampled_at + state.sample_s)
        return
    state.sampled_at, state.sampled = now, len(entries)
    state.sample_s = min(SAMPLE_MAX_S, 2 * state.sample_s)
    kept.wake(Timer.TELL, now + state.sample_s)
    own = [entry.named() for entry in entries.values() if entry.wants]
    others = [peer for sample in state.samples.values() for peer in sample]
    some = _some(kept, [*own, *others], SAMPLE_MAX)
    kept.send(state.above, Sample(above(kept.wide, kept.cell), some, False))


def _say_held(kept: Kept, now: float) -> None:
    """What the cell of a zone holds, to the wider keeper: most members do not stand there, and what
    they read from the origin is not to be brought over the border once more."""
    state = kept.cells
    if not kept.zone or state.above is None or kept.version is None:
        return
    held = kept.roster.covered | held_below(kept)
    if not held & ~state.said:
        return
    if now < state.said_at + HELD_EVERY_S:
        kept.wake(Timer.TELL, state.said_at + HELD_EVERY_S)
        return
    state.said, state.said_at = held, now
    count = held.bit_length() if kept.count is None else kept.count
    have = held.to_bytes(-(-count // 8), "little")
    wider = above(kept.wide, kept.cell)
    kept.send(state.above, CellHolds(wider, kept.version.version, have))


def outsiders(kept: Kept, entry: Entry) -> tuple[RosterPeer, ...]:
    """Members of other cells to name to `entry`: a swarm is one, whatever the cells are."""
    room = kept.config.told_outside - len(entry.outside)
    if room <= 0:
        return ()
    known = kept.cells.outside.values()
    some = _some(kept, [each for each in known if each.peer not in entry.outside], room)
    entry.outside.update(each.peer for each in some)
    return some


def heard(kept: Kept, peer: PeerId, term: int) -> bool:
    """Whether news of the wider keeper count: a plausible one, and of no older term."""
    state = kept.cells
    if term < state.above_term:
        return False
    if peer != state.above:
        state.above, state.said = peer, 0
    state.above_term = min(term, state.above_term + kept.config.term_jump_max)
    return True


def sampled_back(kept: Kept, message: Sample, now: float) -> None:
    """Members of other cells, from the wider keeper."""
    state = kept.cells
    known = [peer for peer in _seen(kept, message.peers) if peer.peer not in kept.roster.entries]
    state.outside = {peer.peer: peer for peer in known}
    kept.wake(Timer.TELL, now + kept.config.tell_interval_s)


# --- the wider keeper


def stands(kept: Kept, entry: Entry, answer: Enrolled) -> None:
    """A delegate enrolled: its cell's keeper hears the same."""
    keeper = entry.cell_keeper
    if keeper is not None:
        kept.cells.told[keeper] = answer.version
        kept.send(keeper, answer)


def sampled(kept: Kept, peer: PeerId, message: Sample) -> None:
    """Some of a cell; its keeper hears of some of the others."""
    state = kept.cells
    keepers = {x.cell_keeper for x in kept.roster.entries.values()}
    if peer not in keepers:
        return
    for gone in [x for x in state.samples if x not in keepers]:
        del state.samples[gone]
    state.samples[peer] = _seen(kept, message.peers)[:SAMPLE_MAX]
    own = {each.peer for each in state.samples[peer]}
    others = [x.named() for x in kept.roster.entries.values() if x.cell_keeper != peer]
    others += [x for cell, sample in state.samples.items() if cell != peer for x in sample]
    others += state.outside.values()
    unique = {each.peer: each for each in others if each.peer not in own}
    if unique:
        kept.send(peer, Sample(kept.task, _some(kept, list(unique.values()), BACK_MAX), True))


def hear_held(kept: Kept, peer: PeerId, message: CellHolds) -> None:
    """From the keeper of a cell that has delegates here."""
    state = kept.cells
    keepers = {x.cell_keeper for x in kept.roster.entries.values()}
    for gone in [x for x in state.held if x not in keepers]:
        del state.held[gone]
    version = kept.version
    if peer in keepers and version is not None and version.version == message.version:
        state.held[peer] = parse_bitmap(message.have, kept.count)


def held_below(kept: Kept) -> int:
    """What members of narrower cells hold, as far as their keepers said that are trusted."""
    held = 0
    for peer, bits in kept.cells.held.items():
        if kept.roster.trusted(peer):
            held |= bits
    return held


# --- both


def _seen(kept: Kept, peers: Iterable[RosterPeer]) -> tuple[RosterPeer, ...]:
    """Those that are in the group as seen here, at the addresses that are known here."""
    found = []
    for each in peers:
        member = kept.members.get(each.peer)
        if member is not None and each.peer != kept.own and kept.roster.trusted(each.peer):
            found.append(RosterPeer(
                each.peer, member.link_addresses[:8], member.zone, 0, False, member.seed
            ))  # fmt: skip
    return tuple(found)


def _some(kept: Kept, peers: list[RosterPeer], most: int) -> tuple[RosterPeer, ...]:
    return tuple(kept.rng.sample(peers, min(most, len(peers))))
