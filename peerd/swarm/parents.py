"""The peers a download can get pieces from: what each has, owes us, and how fast it is.

Always: a parent's `in_flight` are pieces requested from it and not yet answered; a peer that lied
stays blocked for the download, one that stalled until its time is up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId
from peerd.link.messages import RosterPeer
from peerd.pieces import PieceSet
from peerd.zones import border, within

if TYPE_CHECKING:
    from random import Random

PARENTS_WANTED: Final = 16
"""Links that are dialled for."""
PARENTS_MAX: Final = 18
"""Links a swarm (design.md, section 4.5: 20 at most). Little above what is dialled for, so that all
have about as many: an uplink is shared by its children, and who had 12 where others had 20 ended
last. 64 simulated peers, 256 MiB, 12 dialled for of 20 at most: max 1.39 × the bound; 16 of 24
1.35, 16 of 20 1.15, 18 of 20 1.08, 16 of 17 1.06."""
PARENTS_FEW: Final = 12
"""Who has fewer is let in by those who have enough, and asks whom it has for others. Guess."""
FULL_S: Final = 5.0
"""Who had links enough is asked again after so long. Guess."""
FAR_PARENTS_MAX: Final = 4
"""… of which so many lead over a border of our zone, where near ones are enough: one slow link is
filled by few, and four still find most of what the others have. Guess."""
NEAR_PARENTS_ENOUGH: Final = 8
"""With fewer near ones than this, as many more far ones. Guess."""
WINDOW_S: Final = 0.1
"""Requests in flight cover at least this long at the parent's rate: the group commit of 20 ms on
both sides and what busy event loops add. Guess."""
WINDOW_GAIN: Final = 2.0
"""Times bandwidth × delay: below 1 the window would bound the rate that it is derived from; at 2 it
doubles each round trip until the link is full (as BBR's startup does). The delay is the link's
least round trip, not that of requests: those wait behind each other, and the window would grow by
what it causes itself."""
WINDOW_START: Final = 2
SPARE_FEW: Final = 2
"""Pieces more, of few parents: one waits its turn there while another is on its way to the journal
here. Of 8 peers in the lab at 50 Mbit/s (medians of three, a busy machine) one took 1.18 × the
bound, two 1.14, three 1.18. Of PARENTS_FEW or more one is enough: somebody always sends (64
simulated peers: one 1.07, two 1.12)."""
WINDOW_MAX: Final = 64
SAMPLE_S: Final = 0.2
"""A sample of a parent's rate covers this long: pieces arrive in bursts, as commits are grouped."""
STALL_S: Final = 3.0
"""Nothing for so long, although asked: robbed and set aside. Guess; ADR-0001."""
STALL_OVER_BORDER_S: Final = 6.0
"""… from beyond a border: what was brought of the piece is brought again, and many flows over a
slow link are silent for seconds (in the lab 16 over 20 Mbit/s: four timeouts in a row take 3 s)."""
STALL_FACTOR: Final = 4.0
"""… or for so many times as long as its window should take, if that is longer."""
STALL_MAX_S: Final = 30.0
"""… but no longer than this, however slow it was before. Guess."""
STALLED_S: Final = 15.0
"""A stalled parent is set aside for so long, doubling each time."""
RATE_WEIGHT: Final = 0.5
"""Weight of the newest sample in a parent's rate."""
FAILURES_MAX: Final = 2
"""Links in a row that failed while they owed us something, before the keeper hears of it. Guess."""
KNOWN_MAX: Final = 512
"""Members of the swarm remembered to connect to."""


@dataclass
class Parent:
    """One joined peer. Rates in bytes per second, None before the first piece.

    `round_trip_s`: the least that its link has seen; `in_flight`: when each was asked, the oldest
    first. `border`: the widest scope of ours that its bytes enter; None: it is on our side of all.
    """

    peer: PeerId
    have: PieceSet
    border: str | None = None
    in_flight: dict[int, float] = field(default_factory=dict)
    rate_bytes_s: float | None = None
    round_trip_s: float = 0.0
    active_at: float = 0.0
    heard_at: float = 0.0
    paused_until: float = 0.0
    spare: int = SPARE_FEW
    _since: float = 0.0
    _sample_bytes: int = 0
    _sample_s: float = 0.0

    def window(self, piece_length_bytes: int) -> int:
        """Pieces to have in flight: bandwidth × delay, and those to spare."""
        if self.rate_bytes_s is None:
            return WINDOW_START
        flight_bytes = WINDOW_GAIN * self.rate_bytes_s * (WINDOW_S + self.round_trip_s)
        return min(WINDOW_MAX, int(flight_bytes / piece_length_bytes) + self.spare)

    def room(self, piece_length_bytes: int, now: float) -> int:
        """Pieces to ask it for now; 0 until a quarter of its window is free: one message then
        does for several pieces, and the choice among all pieces is made less often."""
        if now < self.paused_until:
            return 0
        window = self.window(piece_length_bytes)
        free = window - len(self.in_flight)
        return free if free >= max(1, window // 4) else 0

    def next_s(self, piece_length_bytes: int) -> float:
        """How long one more piece should take, after those that it owes."""
        if self.rate_bytes_s is None:
            return self.round_trip_s + WINDOW_S * (1 + len(self.in_flight))
        owed_bytes = (len(self.in_flight) + 1) * piece_length_bytes
        return self.round_trip_s + owed_bytes / self.rate_bytes_s

    def left_s(self, piece_length_bytes: int, now: float) -> Iterator[tuple[int, float]]:
        """How much longer each piece in flight should take; of one that is overdue, as long again
        as it is late."""
        rate, ahead, before_at = self.rate_bytes_s, 0, None
        for place, (index, asked_at) in enumerate(self.in_flight.items()):
            if rate is None:
                yield index, now - asked_at
                continue
            if asked_at != before_at:
                ahead, before_at = place, asked_at
            owed_s = (ahead + 1) * piece_length_bytes / rate
            yield index, abs(owed_s - (now - max(self._since, asked_at if not ahead else 0.0)))

    def silent_s(self, now: float) -> float:
        """For how long it has owed a piece and sent none whole."""
        return now - self._since if self.in_flight else 0.0

    def ask(self, index: int, now: float) -> None:
        """A piece is asked of it."""
        if not self.in_flight:
            self._since = now
        self.in_flight[index] = now

    def taken(self, index: int, piece_length_bytes: int, now: float) -> None:
        """A piece is asked of another instead: so it is no faster than that."""
        asked_at = self.in_flight.pop(index, None)
        if asked_at is not None:
            most = piece_length_bytes / max(1e-3, now - asked_at)
            self.rate_bytes_s = min(most, self.rate_bytes_s or most)

    def arrived(self, index: int, size_bytes: int, now: float) -> None:
        """A piece came: its rate is measured over the time in which it owed something.

        What was no longer asked of it says nothing.
        """
        asked_at = self.in_flight.pop(index, None)
        if asked_at is None:
            return
        self._sample_bytes += size_bytes
        self._sample_s += max(1e-4, now - self._since)
        self._since = self.active_at = now
        if self.rate_bytes_s is None or self._sample_s >= SAMPLE_S:
            sample, old = self._sample_bytes / self._sample_s, self.rate_bytes_s
            self.rate_bytes_s = sample if old is None else old + RATE_WEIGHT * (sample - old)
            self._sample_bytes, self._sample_s = 0, 0.0

    def stalls_at(self, piece_length_bytes: int) -> float:
        """When patience ends, inf if nothing is owed."""
        if not self.in_flight:
            return float("inf")
        patience = STALL_S if self.border is None else STALL_OVER_BORDER_S
        if self.rate_bytes_s:
            owed = len(self.in_flight) * piece_length_bytes
            patience = max(patience, STALL_FACTOR * owed / self.rate_bytes_s)
        patience = min(patience, STALL_MAX_S)
        since = max(self.active_at, next(iter(self.in_flight.values())))
        # Who says HAVE lives, and may have others to serve before us.
        return min(max(since + patience, self.heard_at + STALL_S), since + STALL_MAX_S)


class Parents:
    """Joined parents, those being connected to, those known, and those blocked, with why."""

    def __init__(self, own: PeerId, rng: Random, zone: str = "") -> None:
        self._own, self._rng, self._zone = own, rng, zone
        self.joined: dict[PeerId, Parent] = {}
        self.connecting: set[PeerId] = set()
        self.known: dict[PeerId, RosterPeer] = {}
        self.blocked: dict[PeerId, str] = {}
        self._stalled: dict[PeerId, tuple[int, float]] = {}
        self.failures: dict[PeerId, int] = {}
        self._unreachable: dict[PeerId, tuple[int, float]] = {}
        self._full: dict[PeerId, float] = {}
        self._advised: dict[PeerId, int] = {}
        self._advised_until = 0.0

    def __iter__(self) -> Iterator[Parent]:
        return iter(self.joined.values())

    def name(self, peers: tuple[RosterPeer, ...]) -> None:
        for entry in peers:
            if entry.peer != self._own and (
                entry.peer in self.known or len(self.known) < KNOWN_MAX
            ):
                self.known[entry.peer] = entry

    def advise(self, peers: tuple[RosterPeer, ...], until: float) -> None:
        """Whom to try first, the best first; what they hold we know better than who advises."""
        self.name(tuple(entry for entry in peers if entry.peer not in self.known))
        ordered = dict.fromkeys(entry.peer for entry in peers)
        self._advised = {peer: place for place, peer in enumerate(ordered)}
        self._advised_until = until

    def to_connect(self, now: float) -> list[RosterPeer]:
        """Whom to dial now: our zone first, of it who was advised, then who holds anything.

        Few links lead over a border as long as our side of it can fill the others.
        """
        room = PARENTS_WANTED - len(self.joined) - len(self.connecting)
        if room <= 0:
            return []
        idle = [
            entry
            for peer, entry in self.known.items()
            if peer not in self.joined
            and peer not in self.connecting
            and peer not in self.blocked
            and now >= self._unreachable.get(peer, (0, 0.0))[1]
            and now >= self._full.get(peer, 0.0)
        ]
        # By chance, for all who dial now know the same few as those who hold most.
        self._rng.shuffle(idle)
        idle.sort(key=lambda entry: not entry.held)
        if self._advised and now < self._advised_until:
            idle.sort(key=lambda entry: self._advised.get(entry.peer, len(self._advised)))
        near = [entry for entry in idle if self.border(entry.zone) is None]
        far = [entry for entry in idle if self.border(entry.zone) is not None]
        if self._zone:
            far.sort(key=lambda entry: -len(self.border(entry.zone) or ""))  # The nearest border.
        reserved = max(0, min(FAR_PARENTS_MAX - self._far(), len(far)))
        chosen = near[: max(0, room - reserved)]
        chosen += far[: max(0, min(room - len(chosen), self._far_room(len(chosen))))]
        self.connecting.update(entry.peer for entry in chosen)
        return chosen

    def border(self, zone: str) -> str | None:
        """The widest scope of ours that bytes from that zone enter."""
        return border(self._zone, zone) if self._zone else None

    def _far_room(self, near_chosen: int) -> int:
        """Links over borders that may be added: a few, and what our side leaves free."""
        if not self._zone:
            return 0
        far = self._far()
        near = len(self.joined) + len(self.connecting) - far + near_chosen
        return max(FAR_PARENTS_MAX, PARENTS_WANTED - max(near, NEAR_PARENTS_ENOUGH)) - far

    def _far(self) -> int:
        known = self.known
        dialled = sum(1 for x in self.connecting if x in known and self.border(known[x].zone))
        return dialled + sum(1 for parent in self if parent.border is not None)

    def nearing(self) -> bool:
        """Whether somebody on our side of all borders is being connected to."""
        known = self.known
        return any(x in known and self.border(known[x].zone) is None for x in self.connecting)

    def nearer_has(self, index: int, scope: str) -> bool:
        """Whether a parent on our side of that scope's border has the piece."""
        return any(
            index in parent.have
            for parent in self
            if parent.border is None or (parent.border != scope and within(parent.border, scope))
        )

    def join(self, peer: PeerId, have: PieceSet, now: float, zone: str = "") -> Parent | None:
        """None if it is blocked, or there are enough. `zone` is what it says of itself."""
        self.connecting.discard(peer)
        if peer in self.blocked:
            return None
        self._unreachable.pop(peer, None)
        self._full.pop(peer, None)
        parent = self.joined.get(peer)
        if parent is None:
            parent = self.joined[peer] = Parent(peer, have.copy(), self.border(zone), active_at=now)
            parent.paused_until = self._stalled.get(peer, (0, 0.0))[1]
            self._share()
        else:
            parent.have = have.copy()
        return parent

    @property
    def few(self) -> bool:
        return len(self.joined) < PARENTS_FEW

    def refuses(self, peer: PeerId, few: bool, zone: str) -> bool:
        """Whether there are links enough without this one; not where it has `few` itself, nor where
        it is near and others lead over borders that need not."""
        if peer in self.joined or peer in self.connecting:
            return False  # Whom we dialled answers.
        if self.border(zone) is not None and self._far_room(0) <= 0:
            return True
        crowded = len(self.joined) >= PARENTS_MAX and not few
        return crowded and (self.border(zone) is not None or self._far() <= FAR_PARENTS_MAX)

    def least_missed(self, zone: str) -> Parent | None:
        """Who goes for one in that zone, where there are links enough: the slowest that owes
        nothing, for a near one of those over borders if they are more than a few."""
        if len(self.joined) < PARENTS_MAX:
            return None
        among = list(self.joined.values())
        if self.border(zone) is None and self._far() > FAR_PARENTS_MAX:
            among = [parent for parent in among if parent.border is not None] or among
        idle = [parent for parent in among if not parent.in_flight]
        return min(idle or among, key=lambda each: each.rate_bytes_s or 0.0)

    def full(self, peer: PeerId, now: float) -> Parent | None:
        """It has links enough without ours: tried again later."""
        self.connecting.discard(peer)
        self._unreachable.pop(peer, None)
        self._full[peer] = now + FULL_S
        return self._leave(peer)

    def gone(self, peer: PeerId, now: float) -> Parent | None:
        """Its link is down or could not be opened: tried again later, after longer each time."""
        self.connecting.discard(peer)
        times = self._unreachable.get(peer, (0, 0.0))[0] + 1
        self._unreachable[peer] = (times, now + min(30.0, 0.25 * 2.0 ** min(times, 7)))
        return self._leave(peer)

    def failed(self, peer: PeerId) -> bool:
        """It owed us pieces, or a link, and failed: whether that was once too often."""
        times = self.failures[peer] = self.failures.get(peer, 0) + 1
        return times == FAILURES_MAX

    def times_unreached(self, peer: PeerId) -> int:
        """How often in a row no link could be had to it."""
        return self._unreachable.get(peer, (0, 0.0))[0]

    def stalled(self, parent: Parent, now: float) -> float:
        """Set aside; returns for how many seconds."""
        times = self._stalled.get(parent.peer, (0, 0.0))[0] + 1
        pause_s = STALLED_S * 2.0 ** (min(times, 6) - 1)
        self._stalled[parent.peer] = (times, now + pause_s)
        parent.paused_until = now + pause_s
        parent.rate_bytes_s = None
        return pause_s

    def stall_counts(self) -> dict[PeerId, int]:
        return {peer: times for peer, (times, _) in self._stalled.items()}

    def block(self, peer: PeerId, words: str) -> Parent | None:
        self.blocked[peer] = words
        self.connecting.discard(peer)
        return self._leave(peer)

    def _leave(self, peer: PeerId) -> Parent | None:
        parent = self.joined.pop(peer, None)
        if parent is not None:
            self._share()
        return parent

    def _share(self) -> None:
        """Each has as much in flight as their number asks for."""
        spare = SPARE_FEW if self.few else 1
        for parent in self:
            parent.spare = spare

    def next_change(self, now: float) -> float:
        """When somebody set aside or unreachable may be tried again; inf if nobody is."""
        times = [parent.paused_until for parent in self]
        times += [at for peer, (_, at) in self._unreachable.items() if peer in self.known]
        times += [at for peer, at in self._full.items() if peer in self.known]
        return min((at for at in times if at > now), default=float("inf"))
