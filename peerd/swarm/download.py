"""The core of one download on one peer: what to ask whom, and when. No IO, no clock.

Invariant: every piece is in one state (picker.py); what is in flight at a parent is REQUESTED; a
blocked peer is asked nothing; requests.py and borders.py say what else holds of requests. `handle`
and `expire` are the only doors; both return the orders to carry out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peerd.link.messages import LeaseKind, Outcome
from peerd.scheduler.ports import NOT_REACHED
from peerd.swarm import events as ev
from peerd.swarm.consequences import Consequences
from peerd.swarm.parents import FAILURES_MAX, STALL_S, Parent
from peerd.swarm.picker import Picker, PieceState
from peerd.swarm.requests import RESCUE_EVERY_S
from peerd.swarm.watchdog import Watchdog


class Download(Consequences):
    """One version's pieces, from the moment the version is known until all are held."""

    def handle(self, event: ev.Event, now: float) -> list[ev.Order]:
        """Carry the event into the state; returns what to do about it."""
        if isinstance(event, ev.ParentHas):  # Far more than all others together.
            told = self._tell_all(self._first_copies.has(event.peer, event.indices, now))
            return told + self._go_on(now) if self._has(event, now) else told
        if isinstance(event, ev.ParentActive):
            return self._go_on(now) if self._active(event, now) else []
        return _HANDLERS[type(event)](self, event, now) + self._go_on(now)

    def expire(self, now: float) -> list[ev.Order]:
        """Time has passed: rob the stalled, try the unreachable again."""
        orders: list[ev.Order] = []
        if self.version is not None:
            length = self.version.piece_length_bytes
            for parent in [p for p in self.parents if p.in_flight and p.stalls_at(length) <= now]:
                orders += self._rob(parent, now)
            reports, lost = self.borders.expire(self.parents, now)
            orders += reports
            for scope, index in lost:
                orders += self._not_over(scope, index)
            self._all_may_go_on(dial=True)
            orders += self._go_on(now)
            orders += self._requests.rescue(self._picker, length, now)
            orders += self._join_again(now)
            if self._watchdog is not None and not self._open_ended():
                reading = bool(self._reading)
                orders += self._watchdog.look(
                    self._picker, self.parents, length, now, reading=reading
                )
            orders += self._ask_mates(now)
            orders += self._tell_all(self._first_copies.due(now))
        return orders

    def deadline(self, now: float) -> float:
        """When `expire` is due; inf if only events can change anything."""
        if self.version is None or self._all_held():
            return float("inf")
        length = self.version.piece_length_bytes
        due = self._first_copies.deadline()
        if self._requests.behind:
            due = min(due, self._behind_until)
        if self._requests.may_rescue(self._picker, length, now):
            due = now + RESCUE_EVERY_S
        for parent in self.parents:
            if parent.in_flight and parent.active_at + STALL_S < due:
                due = min(due, parent.stalls_at(length))
        if self._watchdog is not None and not self._open_ended():
            due = min(due, self._watchdog.due(self._picker, reading=bool(self._reading)))
        if self.borders:
            due = min(due, self.borders.deadline(), self.borders.asks_at(now))
        return min(due, self.parents.next_change(now))

    # --- events

    def _opened(self, event: ev.VersionOpened, now: float) -> list[ev.Order]:
        """A version, or another one: what came of an earlier version is forgotten."""
        self.version = event.version
        count = event.version.piece_count
        known = event.held.count if count is None else count
        self.picker = Picker(known, event.held, self._rng, borders=bool(self.borders))
        self._watchdog = Watchdog(event.version.version, len(self.picker.wanted), now)
        self._told_all_held = False
        self._room = -1
        self.leases.clear()
        self._own_reads = 0
        self._first_copies.begin()
        self._reading.clear()
        self.parents.joined.clear()
        self.parents.connecting.clear()
        self.borders.begin(now)
        self._all_may_go_on(dial=True)
        early, self._early = self._early, []
        return [order for grant in early for order in self._granted(grant, now)]

    def _length_known(self, event: ev.LengthKnown, now: float) -> list[ev.Order]:
        picker = self._picker
        self.version = event.version
        count = event.version.piece_count
        assert count is not None, "an END without a length"
        picker.grow(count)
        picker.cut(count)
        for parent in self.parents:
            parent.have.grow(count)
            parent.have.cut(count)
            for index in [index for index in parent.in_flight if index >= count]:
                del parent.in_flight[index]
        self._all_may_go_on()
        return []

    def _named(self, event: ev.PeersNamed, now: float) -> list[ev.Order]:
        self.parents.name(event.peers)
        self._may_dial = True
        return []

    def _advised(self, event: ev.Advised, now: float) -> list[ev.Order]:
        self.parents.advise((*event.peers, *event.first), event.until)
        self._first_copies.advise([child.peer for child in event.first], event.until)
        self._may_dial = True
        return []

    def _comes_behind(self, event: ev.ComesBehind, now: float) -> list[ev.Order]:
        if event.until != self._behind_until:
            self._behind_until = event.until
            self._all_may_go_on()
        return []

    def _joined(self, event: ev.ParentJoined, now: float) -> list[ev.Order]:
        picker = self._picker
        orders: list[ev.Order] = []
        if self._open_ended():
            self._grow(event.have.end())
        known = self.parents.joined.get(event.peer)
        if known is not None:
            picker.take_parent(known.have.bits, known.border)
        else:
            orders += self._make_room(event.zone, now)
        parent = self.parents.join(event.peer, event.have, now, event.zone)
        if parent is None:
            return [*orders, ev.Drop(event.peer, self.parents.blocked[event.peer])]
        parent.round_trip_s = event.round_trip_s
        parent.have.grow(picker.count)
        parent.have.cut(picker.count)
        picker.add_parent(parent.have.bits, parent.border)
        self._may_go_on(event.peer)
        return orders

    def _has(self, event: ev.ParentHas, now: float) -> bool:
        """Whether anything may follow. Mostly not: others have what is here already, or there is
        no room to ask for it."""
        parent = self.parents.joined.get(event.peer)
        if parent is None:
            return bool(self.borders)
        picker, have, version = self._picker, parent.have, self.version
        assert version is not None, "a parent of no version"
        if version.length_bytes is None:
            self._grow(max(event.indices, default=-1) + 1)
        count = picker.count
        if have.count < count:
            have.grow(count)
        named = 0
        for index in event.indices:
            if index < count:
                named |= 1 << index
        fresh = have.add_all(named)
        parent.heard_at = now
        if not fresh:
            return False
        picker.add_parent(fresh, parent.border)
        length = version.piece_length_bytes
        if fresh & picker.wanted.bits and self._may_ask_now(parent, length, now):
            self._may_go_on(event.peer)
            return True
        return bool(fresh & self._own_reads)

    def _may_ask_now(self, parent: Parent, length: int, now: float) -> bool:
        """Whether what it has could change a request, or a demand for leases."""
        return (
            parent.room(length, now) > 0
            or bool(self.borders)
            or self._requests.capped
            or parent.have.complete()
        )

    def _active(self, event: ev.ParentActive, now: float) -> bool:
        """Whether anything may follow: only what borders held back for a time."""
        parent = self.parents.joined.get(event.peer)
        if parent is not None:
            parent.active_at = now
            parent.round_trip_s = event.round_trip_s
        return bool(self.borders)

    def _gone(self, event: ev.ParentGone, now: float) -> list[ev.Order]:
        """Who owed us something, or could not be reached at all, has failed us."""
        dialled = event.peer in self.parents.connecting
        parent = self.parents.gone(event.peer, now)
        self._may_dial = True
        if parent is not None:
            owed = bool(parent.in_flight)
            told = self._forget(parent, "its link is gone")
            if owed and self.parents.failed(event.peer):
                return [*told, ev.Complain(event.peer, "its links fail")]
            return told
        elif dialled and self.parents.times_unreached(event.peer) == FAILURES_MAX:
            return [ev.Complain(event.peer, NOT_REACHED)]
        return []

    def _full(self, event: ev.ParentFull, now: float) -> list[ev.Order]:
        parent = self.parents.full(event.peer, now)
        self._may_dial = True
        return self._part_from(parent, "it has links enough") if parent is not None else []

    def _arrived(self, event: ev.PieceArrived, now: float) -> list[ev.Order]:
        parent = self.parents.joined.get(event.peer)
        if parent is not None:
            parent.arrived(event.index, event.size_bytes, now)
            self._may_go_on(event.peer)
            self.parents.failures.pop(event.peer, None)
        if event.index in self._picker.held:
            self.wasted_bytes += event.size_bytes
            return []
        return self._hold(event.index, f"from {event.peer}", event.peer)

    def _bad(self, event: ev.PieceBad, now: float) -> list[ev.Order]:
        return [ev.Complain(event.peer, event.words), *self._condemn(event.peer, event.words)]

    def _rejected(self, event: ev.PieceRejected, now: float) -> list[ev.Order]:
        parent = self.parents.joined.get(event.peer)
        if parent is None:
            return []
        for index in event.indices:
            if parent.in_flight.pop(index, None) is not None:
                self._picker.release(index, event.peer, "rejected")
                if index in parent.have:
                    parent.have.discard(index)
                    self._picker.take_parent(1 << index, parent.border)
        self._all_may_go_on()
        return []

    def _lost(self, event: ev.PieceLost, now: float) -> list[ev.Order]:
        self._picker.lose(event.index, "damaged or disputed")
        self._first_copies.held_back.pop(event.index, None)
        self._told_all_held = False
        self._all_may_go_on()
        return []

    def _granted(self, event: ev.LeaseGranted, now: float) -> list[ev.Order]:
        if self.picker is None:
            self._early.append(event)
            return []
        info, picker = event.info, self._picker
        if info.lease in self.leases:
            return []
        self.leases[info.lease] = info
        if info.kind is not LeaseKind.READ:
            return [ev.StartRead(info, ())]
        last = min(info.first + info.count, picker.count)
        extent = range(info.first, last)
        orders = [order for index in extent for order in self._ask_no_more(index)]
        wanted = tuple(i for i in extent if picker.state(i) is PieceState.WANTED)
        for index in wanted:
            picker.read(index)
        if self._watchdog is not None:
            self._watchdog.begun(now)
        self._reading[info.lease] = wanted
        return [*orders, ev.StartRead(info, wanted)]

    def _lease_over(self, event: ev.LeaseOver, now: float) -> list[ev.Order]:
        self.leases.pop(event.lease, None)
        for index in self._reading.pop(event.lease, ()):
            self._picker.unread(index)
        self._all_may_go_on()
        return []

    def _read(self, event: ev.PieceRead, now: float) -> list[ev.Order]:
        self._picker.grow(event.index + 1)
        if self._watchdog is not None:
            self._watchdog.read(now)
        return self._read_here(event.index, now)

    def _reader_at(self, event: ev.ReaderAt, now: float) -> list[ev.Order]:
        if self.picker is not None:
            self.picker.wait_for(event.reader, event.first, event.count)
        return []

    def _condemned(self, event: ev.PeerCondemned, now: float) -> list[ev.Order]:
        return self._condemn(event.peer, event.words)

    # --- borders of our zone

    def _bring_granted(self, event: ev.BringGranted, now: float) -> list[ev.Order]:
        info = event.info
        if self.picker is None:
            return []
        extent = range(info.first, min(info.first + info.count, self.picker.count))
        unheld = [index for index in extent if index not in self.picker.held]
        if not unheld:
            return [ev.ReportBring(event.scope, info.lease, Outcome.DONE)]
        unheld = [index for index in unheld if not self.parents.nearer_has(index, event.scope)]
        if not unheld:  # It turned up on this side meanwhile.
            return [ev.ReportBring(event.scope, info.lease, Outcome.RETURNED)]
        self.borders.granted(event.scope, info, unheld, now)
        for parent in self.parents:
            if parent.border == event.scope:
                self._may_go_on(parent.peer)
        return []

    def _bring_revoked(self, event: ev.BringRevoked, now: float) -> list[ev.Order]:
        orders: list[ev.Order] = []
        for index in self.borders.revoked(event.scope, event.lease):
            orders += self._not_over(event.scope, index)
        return orders

    def _scope_kept(self, event: ev.ScopeKept, now: float) -> list[ev.Order]:
        self.borders.ask_again(event.scope)
        return []

    def untold(self) -> list[int]:
        """Pieces of which not all were told yet: the last words of a download that ends."""
        return self._first_copies.all()

    def validate(self) -> None:
        """The invariants, for tests."""
        if self.picker is None:
            return
        self.picker.validate()
        asked = {(i, p.peer) for p in self.parents for i in p.in_flight}
        noted = {(i, peer) for i, peers in self.picker.requested.items() for peer in peers}
        assert asked == noted, f"in flight {asked ^ noted}"
        assert not set(self.parents.joined) & set(self.parents.blocked)

    def story(self) -> list[str]:
        """What happened, piece by piece (bounded)."""
        return self.picker.story() if self.picker else []


_HANDLERS: dict[type, Callable[[Download, Any, float], list[ev.Order]]] = {
    ev.VersionOpened: Download._opened,
    ev.LengthKnown: Download._length_known,
    ev.PeersNamed: Download._named,
    ev.Advised: Download._advised,
    ev.ComesBehind: Download._comes_behind,
    ev.ParentJoined: Download._joined,
    ev.ParentGone: Download._gone,
    ev.ParentFull: Download._full,
    ev.PieceArrived: Download._arrived,
    ev.PieceBad: Download._bad,
    ev.PieceRejected: Download._rejected,
    ev.PieceLost: Download._lost,
    ev.LeaseGranted: Download._granted,
    ev.LeaseOver: Download._lease_over,
    ev.PieceRead: Download._read,
    ev.ReaderAt: Download._reader_at,
    ev.PeerCondemned: Download._condemned,
    ev.BringGranted: Download._bring_granted,
    ev.BringRevoked: Download._bring_revoked,
    ev.ScopeKept: Download._scope_kept,
}
