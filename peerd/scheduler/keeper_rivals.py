"""What two keepers of one task are to each other: who yields, who is left the task, what is copied.

Always: of two that keep a task both tell alike which one stays (`_stays`); who hands over sends its
members along; a keeper gives way to a standby only where most of its links are late, and not to and
fro.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from peerd.ids import PeerId
from peerd.link.messages import Enrol, KeeperState, Probe
from peerd.rendezvous import weight
from peerd.scheduler import keeper_terms as terms
from peerd.scheduler.keeper_door import MembersDoor
from peerd.scheduler.keeper_seat import Copy, Probing, Seat
from peerd.scheduler.keeper_state import Kept

TIMES_MORE = 2
"""So many times as many members are no chance. Guess."""


class Rival(NamedTuple):
    """A keeper, beside another one. `enrolled`: members that came to it, besides itself."""

    peer: PeerId
    enrolled: int
    term: int


class OtherKeepers(MembersDoor):
    """The part of a KeeperCore that deals with other keepers of what is kept here."""

    def _copied(self, seat: Seat, peer: PeerId, state: KeeperState, now: float) -> None:
        """What another keeps, or did until now."""
        if state.keeping and seat.probing is not None and not seat.outranked_by(peer):
            self._probe_named(seat, seat.probing, peer, now)
        self._rank(seat)
        if state.keeping and not seat.left_to(peer, self.config.standbys):
            seat.hints = tuple(dict.fromkeys([peer, *seat.hints]))[: self.config.holders_checked]
            return
        if state.keeping:
            known = seat.keeper if seat.keeper is not None and self._keeps(seat, now) else peer
            if known != peer and self._is_outdone(seat, known, peer, state):
                return  # Two keep it: this one will yield.
            seat.keeper, seat.keeper_at = peer, now
        elif seat.left_to(peer, self.config.standbys):
            seat.keeper, seat.keeper_at, seat.given_at = peer, now, now
            seat.left_at = -inf
        seat.store_copy(state, now)

    def _is_outdone(self, seat: Seat, known: PeerId, peer: PeerId, state: KeeperState) -> bool:
        before = seat.copy.state if seat.copy is not None else state
        one = Rival(known, before.enrolled, before.term)
        return self._stays(seat, one, Rival(peer, state.enrolled, state.term))

    def _probe_named(self, seat: Seat, probing: Probing, keeper: PeerId | None, now: float) -> None:
        """A standby names the keeper that it has its copy from: that one is asked, too."""
        if keeper in (None, self.own) or keeper in probing.waiting_for | probing.answers.keys():
            return
        assert keeper is not None
        if self._is_dead(keeper, now) or probing.named >= self.config.probes_max:
            return
        probing.named += 1
        probing.waiting_for.add(keeper)
        probing.until = now + self.config.probe_wait_s
        self._send(keeper, Probe(seat.task))
        self._schedule(seat)

    def _leaves_it_to(
        self, seat: Seat, kept: Kept, peer: PeerId, state: KeeperState, now: float
    ) -> bool:
        """Whether `peer`, that keeps it too, is to go on with it instead of this one."""
        if now - self._late_at.get(peer, -inf) <= self.config.handover_pause_s:
            return False  # It was left for that, and what it says is old.
        self._rank(seat)
        here = Rival(self.own, kept.roster.others(self.own), kept.term)
        return self._stays(seat, Rival(peer, state.enrolled, state.term), here)

    def _stays(self, seat: Seat, one: Rival, other: Rival) -> bool:
        """Whether `one` is to go on. Of those who may stay: to whom twice as many came, for who is
        alone with it may be one that is not reached in time; then who began later, for members left
        the other; else who ranks better."""
        first = seat.order[: 1 + self.config.standbys]
        if one.peer in first and other.peer in first:
            fewer, more = sorted((one.enrolled, other.enrolled))
            if fewer < more >= TIMES_MORE * fewer:
                return one.enrolled > other.enrolled
            if one.term != other.term:
                return one.term > other.term
        return weight(one.peer, seat.task) > weight(other.peer, seat.task)

    def _claim(self, seat: Seat, kept: Kept, peer: PeerId, now: float) -> None:
        """Another keeps what is to be kept here: once it hears so, it hands over."""
        if peer != self.own and now - seat.claimed_at >= self.config.copy_members_s:
            seat.claimed_at = now
            self._send(peer, kept.state(now, handover=False))

    def _give_way(self, late: frozenset[PeerId], now: float) -> None:
        """Another is to keep what waits for this peer's slow link."""
        for seat in [seat for seat in self._active.values() if seat.kept is not None]:
            self._rank(seat)
            assert seat.kept is not None
            to = terms.successor(seat, seat.kept, late, self.config, now)
            if to is not None:
                seat.say(now, f"answers take seconds over {len(late)} links of this peer")
                seat.left_at = now
                self._yield(seat, seat.kept, to, now)

    def _notice_standstill(self, now: float) -> None:
        """Called that late, this process stood still (SIGSTOP, swap), and its members may have left
        for a standby: nothing is granted until those could say so."""
        since, self._called_at = max(self._next_due(), self._called_at), now
        if now - since <= self.config.still_s:
            return
        for seat in self._active.values():
            if seat.probing is not None:  # Answers may lie in the sockets.
                seat.probing.until = now + self.config.probe_wait_s
            elif seat.kept is not None and not seat.kept.cell:
                self._rank(seat)
                told = seat.to_be_told(self.config.standbys)
                asked = [peer for peer in told if not self._is_dead(peer, now)]
                if asked:
                    seat.say(now, f"stood still: asking {len(asked)} members whether they keep it")
                    terms.ask_rivals(seat.kept, asked, now)
            self._schedule(seat)

    def _left_to(self, seat: Seat, peer: PeerId, asked: Enrol, now: float) -> PeerId | None:
        """Who left it to another has that one's members go there, also where it keeps it again for
        itself, and what they said before is late. None: it is for this peer to say."""
        if peer == self.own or now - seat.left_at > self.config.handover_pause_s:
            return None
        if seat.keeper is None or seat.keeper in (peer, *asked.unreachable):
            return None
        return None if self._is_dead(seat.keeper, now) else seat.keeper

    def _yield(self, seat: Seat, kept: Kept, to: PeerId, now: float) -> None:
        """Hand the roster to another keeper, and send its members there."""
        state = kept.state(now, handover=True)
        seat.say(now, f"handed over to {to}")
        seat.yields.append(now)
        seat.keeper, seat.keeper_at = to, now
        seat.copy = Copy(state, now)
        seat.term_heard = max(seat.term_heard, kept.term)
        self._let_go(seat)
        self._send(to, state)
        for peer in kept.roster.entries:
            self._redirect(peer, seat.task, to)
