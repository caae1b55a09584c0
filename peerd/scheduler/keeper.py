"""The keepers of this peer: for each task, whether it keeps it, and everything that follows.

Always: nothing changes but through `handle` and `expire`; a task is kept only after better-ranked
members and the standbys had their chance to say that they keep it; a term is higher than all that
were heard before; a peer's mistake is RemoteProtocolError, and changes nothing that matters.

A task is idle, probing or kept:
    idle     an Enrol, nobody better alive    → probing (kept at once, if nobody is to be asked)
    probing  all answered, or 0.75 s are over → kept; idle, if one that may stay keeps it
    kept     another is to go on with it      → idle, after the roster was handed over
Who keeps a task stays while it is the first in order or a standby, whoever joins (`Seat.left_to`);
of two that keep it, or where its links are late, keeper_rivals says who goes on;
roster and grants: keeper_members, keeper_grants, keeper_outcomes (ADR 0005).
"""

from __future__ import annotations

import heapq
from math import inf

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.messages import CellHolds, Enrol, KeeperState, Probe, Register, Sample, Withdraw
from peerd.rendezvous import ranked
from peerd.scheduler import keeper_advice as advice
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler import keeper_holders as holders
from peerd.scheduler import keeper_members as members
from peerd.scheduler import keeper_news as news
from peerd.scheduler import keeper_pace as pace
from peerd.scheduler import keeper_terms as terms
from peerd.scheduler.keeper_door import OfMember
from peerd.scheduler.keeper_events import (
    Event,
    Hinted,
    KeeperAdvised,
    KeeperLate,
    LinkLost,
    LinksLate,
    MembersChanged,
    MessageFrom,
    NewsFrom,
    Order,
    Timer,
    Undelivered,
)
from peerd.scheduler.keeper_rivals import OtherKeepers
from peerd.scheduler.keeper_seat import Copy, Probing, Seat
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.keeper_table import remember
from peerd.scheduler.ports import Member

WAITING_MAX = 4096
"""Askers that wait for the probes (0.75 s); the others ask again. Guess."""
PROBED_MAX = 64
"""Better-ranked peers, unknown to us, that askers named for one kept task. Guess."""


class KeeperCore(OtherKeepers):
    """All tasks of one peer. Runs on events; see the module's head."""

    # --- the door

    def handle(self, event: Event, now: float) -> list[Order]:
        self._notice_standstill(now)
        match event:
            case MessageFrom(peer=peer, message=message):
                self._dead.pop(peer, None)
                match message:
                    case Enrol():
                        self._enrol(peer, message, now)
                    case Probe():
                        self._probed(peer, message, now)
                    case KeeperState():
                        self._told(peer, message, now)
                    case Register():
                        self._registered(peer, message, now)
                    case Sample() | CellHolds():
                        self._from_cell(peer, message, now)
                    case Withdraw():
                        self._withdrawn(peer, message, now)
                    case _ if isinstance(message, OfMember):
                        self._from_member(peer, message, now)
                    case _:
                        raise RemoteProtocolError(f"{type(message).__name__} is not for a keeper")
            case LinkLost(peer=peer):
                self._link_lost(peer, now)
            case LinksLate(peers=late):
                self._give_way(late, now)
            case KeeperLate(peer=peer):
                self._keeper_late(peer, now)
            case Undelivered(peer=peer):
                self._undelivered(peer, now)
            case MembersChanged(members=live, synced=synced):
                self._members_changed(live, synced, now)
            case NewsFrom(peer=peer, message=message):
                for seat in self._cells_of(message.task, peer):
                    assert seat.kept is not None
                    news.news(seat.kept, peer, message, now)
                    self._after(seat, now)
            case Hinted(task=task, peers=peers):
                self._seat(task).hints = peers[: self.config.holders_checked]
            case KeeperAdvised(task=task):
                if advice.taken(self._seats.get(task), event, now):
                    self._after(self._seats[task], now)
        return self._taken()

    def expire(self, now: float) -> list[Order]:
        """Whatever was due by now, once: what makes itself due again waits for the next call."""
        self._notice_standstill(now)
        due = []
        while self._due and self._due[0][0] <= now:
            due.append(heapq.heappop(self._due))
        for at, task in due:
            seat = self._seats.get(task)
            if seat is None or seat.due != at:
                continue
            seat.due = inf
            if seat.probing is not None and seat.probing.until <= now:
                self._decide(seat, now)
            elif seat.kept is not None:
                self._tick(seat, seat.kept, now)
            self._schedule(seat)
        return self._taken()

    # --- an Enrol, and becoming the keeper

    def _enrol(self, peer: PeerId, message: Enrol, now: float) -> None:
        seat = self._seat_asked(peer, message)
        left_to = self._left_to(seat, peer, message, now)
        if left_to is not None:
            self._redirect(peer, message.task, left_to)
            return
        if seat.kept is not None:
            self._enrol_kept(seat, seat.kept, peer, message, now)
            return
        target = self._keeper_for(seat, peer, message, now)
        if target is not None:
            self._redirect(peer, message.task, target)
            return
        if len(seat.waiting) >= WAITING_MAX:
            return
        seat.waiting[peer] = message
        self._active[seat.task] = seat
        if self._synced and seat.probing is None:
            self._start_probing(seat, now)

    def _enrol_kept(self, seat: Seat, kept: Kept, peer: PeerId, message: Enrol, now: float) -> None:
        terms.heard(kept, message.prior_term, now)
        if kept.spec is None:
            kept.spec = message.spec
        members.enrol(kept, peer, message, now)
        kept.wake(Timer.BETTER, now + self.config.better_interval_s)
        for better in seat.better(message.candidates):
            if better in seat.probed or better in seat.order or self._is_dead(better, now):
                continue
            if len(seat.probed) < PROBED_MAX:
                seat.probed.add(better)
                self._send(better, Probe(seat.task))
        self._after(seat, now)

    def _keeper_for(self, seat: Seat, peer: PeerId, message: Enrol, now: float) -> PeerId | None:
        """Who is to be asked instead of this peer; None if nobody is."""
        barred = {*message.unreachable, self.own}
        if not self._synced:
            others = [each for each in message.candidates if each not in barred]
            return others[0] if others and peer != self.own else None
        self._rank(seat)
        if seat.given(self.config, now):
            return None
        if seat.keeper is not None and self._keeps(seat, now):
            if seat.keeper not in barred:
                return seat.keeper
            return None  # This peer asks it: it may have died, and be gone for us a moment later.
        for better in seat.better(message.candidates):
            if better not in barred and not self._is_dead(better, now):
                return better
        return None

    def _start_probing(self, seat: Seat, now: float) -> None:
        self._rank(seat)
        named = dict.fromkeys(peer for asked in seat.waiting.values() for peer in asked.candidates)
        better = [x for x in seat.better(named) if not self._is_dead(x, now)]
        follows = self._follows(seat, now)
        others = [] if follows else [
            *seat.standbys(self.config.standbys), *seat.hints,
            *(() if seat.keeper is None else (seat.keeper,)),
        ]  # fmt: skip
        targets = dict.fromkeys(
            [*better[: self.config.probes_max], *(x for x in others if not self._is_dead(x, now))]
        )
        targets.pop(self.own, None)
        if seat.keeper is not None and (follows or seat.given(self.config, now)):
            targets.pop(seat.keeper, None)
        seat.probing = Probing(set(targets), now + self.config.probe_wait_s)
        seat.say(now, f"asking {len(targets)} members whether they keep it")
        for peer in targets:
            self._send(peer, Probe(seat.task))
        if targets:
            self._schedule(seat)
        else:
            self._decide(seat, now)

    def _decide(self, seat: Seat, now: float) -> None:
        """All that could be heard was heard: keep the task, or send the askers on."""
        assert seat.probing is not None
        answers, seat.probing = seat.probing.answers, None
        standbys = self.config.standbys
        keepers = [
            x for x, copy in answers.items() if copy.state.keeping and seat.left_to(x, standbys)
        ]
        if keepers:
            best = ranked(keepers, seat.task)[0]
            seat.keeper, seat.keeper_at = best, now
            for peer, asked in list(seat.waiting.items()):
                # Who cannot reach it is sent there once more, and then kept for here.
                if best not in asked.unreachable or seat.redirected.get(peer) != best:
                    del seat.waiting[peer]
                    seat.redirected[peer] = best
                    self._redirect(peer, seat.task, best)
        if not seat.waiting:
            self._active.pop(seat.task, None)
            return
        waiting, seat.waiting, seat.redirected = seat.waiting, {}, {}
        seat.probed.clear()
        seat.kept = terms.start(
            seat, self.own, waiting, answers, self._members, self._dead, self._rng, self.config,
            self._out, now,
        )  # fmt: skip
        self.begun += 1
        if self._follows(seat, now):
            terms.withhold(seat, seat.kept)
        for peer, asked in waiting.items():
            try:
                members.enrol(seat.kept, peer, asked, now)
            except RemoteProtocolError as error:
                seat.say(now, f"{peer} sent what does not fit: {error}")
        if seat.kept.cell:
            self._above.setdefault(cells.above(seat.wide, seat.kept.cell), {})[seat.task] = None
        else:
            members.enlist(seat.kept)
        seat.kept.wake(Timer.BETTER, now + self.config.better_interval_s)
        for peer in [x for x, y in answers.items() if y.state.keeping and not seat.outranked_by(x)]:
            self._claim(seat, seat.kept, peer, now)
        self._after(seat, now)

    # --- other keepers

    def _probed(self, peer: PeerId, message: Probe, now: float) -> None:
        seat = self._seats.get(message.task)
        if seat is None:
            none = KeeperState(message.task, 0, False, False, None, 0.0, (), (), ())
            self._send(peer, none)
        elif seat.kept is None:
            self._send(peer, seat.answer(now))
        else:
            self._send(peer, seat.kept.state(now, handover=False))

    def _told(self, peer: PeerId, state: KeeperState, now: float) -> None:
        """An answer to a Probe, a copy for a standby, or a roster handed over."""
        seat = self._seats.get(state.task)
        if seat is None:
            if not state.keeping and not state.handover:
                return
            seat = self._seat(state.task)
        seat.heard_term(state.term, self.config.term_jump_max)
        if seat.kept is not None:
            members.answered(seat.kept, peer, now, there=True)
            if not state.keeping:
                terms.yielded(seat.kept, peer, now)
            if state.handover:
                seat.left_at = -inf
                terms.merge(seat, seat.kept, state, self._dead, now)
            elif state.keeping and not self._leaves_it_to(seat, seat.kept, peer, state, now):
                self._claim(seat, seat.kept, peer, now)
            elif state.keeping and seat.may_yield(self.config, now):
                self._yield(seat, seat.kept, peer, now)
            self._after(seat, now)
        elif seat.probing is not None and peer in seat.probing.waiting_for:
            seat.probing.answers[peer] = Copy(state, now)
            self._probe_named(seat, seat.probing, state.keeper, now)
            self._answered(seat, peer, now)
        elif state.handover or state.keeping:
            self._copied(seat, peer, state, now)

    def _answered(self, seat: Seat, peer: PeerId, now: float) -> None:
        assert seat.probing is not None
        seat.probing.waiting_for.discard(peer)
        if not seat.probing.waiting_for:
            self._decide(seat, now)

    # --- the group

    def _members_changed(self, live: tuple[Member, ...], synced: bool, now: float) -> None:
        before = self._members if self._active else {}
        self._live, self._by_peer = live, None
        self._synced, self._revision = synced, self._revision + 1
        if not self._active:
            return
        joined = [peer for peer in self._members if peer not in before]
        left = {peer for peer in before if peer not in self._members}
        for seat in list(self._active.values()):
            if seat.kept is not None:
                kept = seat.kept
                kept.members = self._members
                terms.awaited(kept, left, now)
                holders.in_view(kept, joined, now)
                newcomers = self._joins(seat, joined)
                for peer in newcomers:
                    if seat.outranked_by(peer):
                        self._send(peer, Probe(seat.task))
                if any(seat.concerns(peer, self.config.standbys) for peer in newcomers):
                    kept.copy_soon(now)
                self._after(seat, now)
            elif seat.waiting and seat.probing is None and synced:
                self._start_probing(seat, now)

    def _probe_better(self, seat: Seat, kept: Kept, now: float) -> None:
        """Whoever ranks better may keep it meanwhile: views differed, or a partition healed."""
        self._rank(seat)
        for better in seat.better(())[: self.config.probes_max]:
            if not self._is_dead(better, now):
                self._send(better, Probe(seat.task))
        if kept.roster.wanting():
            kept.wake(Timer.BETTER, now + self.config.better_interval_s)

    def _link_lost(self, peer: PeerId, now: float) -> None:
        remember(self._lost_at, peer, now)
        for seat in list(self._active.values()):
            if seat.waiting.pop(peer, None) and not seat.waiting and seat.probing is None:
                del self._active[seat.task]
            if seat.kept is not None and peer in seat.kept.roster.entries:
                members.lost(seat.kept, seat.kept.roster.entries[peer], now)
                self._schedule(seat)

    def _keeper_late(self, peer: PeerId, now: float) -> None:
        """Its answers take seconds: it is not waited for."""
        remember(self._late_at, peer, now)
        for seat in list(self._active.values()):
            if seat.probing is not None and peer in seat.probing.waiting_for:
                self._answered(seat, peer, now)

    def _undelivered(self, peer: PeerId, now: float) -> None:
        remember(self._dead, peer, now + self.config.dead_s)
        for seat in list(self._active.values()):
            if seat.probing is not None and peer in seat.probing.waiting_for:
                self._answered(seat, peer, now)
            elif seat.kept is not None:
                members.answered(seat.kept, peer, now, there=False)
                terms.awaited(seat.kept, {peer}, now)
                terms.yielded(seat.kept, peer, now)
                members.gone(seat.kept, peer, now)
                seat.unlist_holder(peer)
                self._after(seat, now)

    # --- time, and the small print

    def _tick(self, seat: Seat, kept: Kept, now: float) -> None:
        pace.expire_leases(kept, now)
        for timer in [timer for timer, at in kept.timers.items() if at <= now]:
            kept.timers.pop(timer, None)
            match timer:
                case Timer.PAUSE:
                    terms.resume(kept, now)
                case Timer.RIVALS:
                    kept.rivals.clear()
                case Timer.BEAT if kept.book.leases:
                    kept.wake(Timer.BEAT, now + self.config.beat_s)
                case Timer.CHECK:
                    holders.check_over(kept, now)
                case Timer.LOST:
                    members.sweep_lost(kept, now)
                case Timer.COOL:
                    pace.warm_up(kept, now)
                case Timer.TELL:
                    members.tell(kept)
                case Timer.NAME:
                    members.name_readers(kept, now)
                case Timer.COPY:
                    self._rank(seat)
                    terms.copy(kept, seat.to_be_told(self.config.standbys), now)
                case Timer.BETTER:
                    self._probe_better(seat, kept, now)
                case Timer.IDLE:
                    self._let_go(seat)
                    return
                case Timer.JUDGE | Timer.OVERDUE | Timer.BEAT:
                    pass  # `plan` looks again.
        self._after(seat, now)
