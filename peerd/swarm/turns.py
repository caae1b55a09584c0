"""Whose piece is sent next, and how many are in hand at once.

Always: children take turns, a piece each; what was sent to nobody yet goes first, of it what was
read from the origin here, then second copies, to who lacks most; but no child is passed over by
more than half of the others in a row; of several contents three pieces of four are of the one whose
place is first, if one is; no child waits for another's slow link: what is in hand for
too long counts no more, once something begun later is sent; so few are in hand that each is whole
soon, for a child passes on only what it has whole.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from math import inf
from typing import Final

from peerd.ids import PeerId, VersionId

Item = tuple[VersionId, int]

REQUESTS_MAX: Final = 256
"""Pieces a child may have waiting: four full windows (parents.WINDOW_MAX)."""
SENDS_AT_ONCE: Final = 4
"""Pieces to one child that are read and sealed at a time: with one, each waits for the end of the
one before, which halves the rate at 256 KiB pieces (`python -m tools.bench link`)."""
HANDS_START: Final = 4
HANDS_MAX: Final = 8
"""Pieces in hand for all children. More, and none is whole soon: one flow for each of 15 children
(simulated) made the first whole after the time of 15. Fewer, and one whose connection waits for a
retransmission leaves the uplink idle: 8 peers in the lab, 20 Mbit/s, 1 or 2 in hand used 0.58 of
the uplinks and took 1.6 × the bound, 8 used 0.9 and took 1.14."""
SOON_S: Final = 0.5
LATE_S: Final = 2.0
"""One more in hand where a piece is sent within SOON_S, one fewer where it takes LATE_S. Guess."""
HELD_MIN_S: Final = 0.5
HELD_FACTOR: Final = 4.0
"""In hand for so many times as long as pieces took lately, it is the child that is slow; if later
ones are sent meanwhile, or no byte leaves at all, for else it is this uplink (simulated at 1 % of
the rate: 15 pieces in hand, none of them whole for half a minute, on which all waited). Guess."""
SPREAD_MAX: Final = 8192
"""Pieces of which it is remembered that they went to somebody: eight usual contents. Guess."""
FAIR_EVERY: Final = 4
"""Each so many-th piece is of whichever content its child asked for first: none starves, however
many come before it. Guess."""
FED_FIRST_MAX: Final = 64
"""Contents of which it is remembered who is fed first. Guess."""
LOOK_MAX: Final = 16
"""Of a child's pieces so many are looked at for one that went to nobody: usual windows have fewer,
and each piece that is sent costs a look at those of all children. Guess."""


class Rank(IntEnum):
    """What a copy of a piece is worth to all."""

    FRESH = 0  # Read from the origin here: nobody else has it.
    FIRST = 1  # Sent to nobody from here; another may have it, too.
    SECOND = 2


@dataclass
class ServedChild:
    """What one peer waits for, and what is in hand for it, with the time since when.

    `passed`: how many others were served since its turn had come; `lacking`: pieces that it lacked
    when it last asked.
    """

    waiting: deque[Item] = field(default_factory=deque)
    in_hand: dict[Item, float] = field(default_factory=dict)
    passed: int = 0
    lacking: int = 0


class Turns:
    """One peer's uploads. Times in seconds; `took_s` is smoothed.

    `spread`: the pieces that were sent to anybody, or are in hand, the last of them; `read_here`:
    whether a piece was read from the origin by this peer.
    """

    def __init__(self, read_here: Callable[[Item], bool] = lambda _: False) -> None:
        self._read_here = read_here
        self._places: dict[VersionId, int] = {}
        self._places_until = -inf
        self._fed_first: dict[VersionId, tuple[frozenset[PeerId], float]] = {}
        self._taken = 0
        self._busy_s, self._looked_at, self._was_busy = 0.0, -inf, False
        self.children: OrderedDict[PeerId, ServedChild] = OrderedDict()
        self._served: dict[PeerId, ServedChild] = {}  # Those for whom something is in hand.
        self.spread: OrderedDict[Item, None] = OrderedDict()
        self.hands = HANDS_START
        self.took_s = SOON_S
        self._newest_sent = -inf  # When that was begun which was begun last, of what was sent.
        self._sent_at = -inf
        self._left_at, self._left_bytes = -inf, 0.0

    def order(self, places: dict[VersionId, int], until: float) -> None:
        """Of contents that are asked for at once those with a lower place go first, until then."""
        self._places, self._places_until = places, until

    def feed_first(self, version: VersionId, children: Iterable[PeerId], until: float) -> None:
        """Until then these are sent what was read here before others: they pass it on fastest."""
        self._fed_first.pop(version, None)
        children = frozenset(children)
        if children:
            self._fed_first[version] = children, until
            while len(self._fed_first) > FED_FIRST_MAX:
                del self._fed_first[next(iter(self._fed_first))]

    def _others_first(self, peer: PeerId, version: VersionId, now: float) -> bool:
        """Whether others are to be sent that before it, if they ask for any."""
        children, until = self._fed_first.get(version, (frozenset(), -inf))
        return now < until and peer not in children

    def busy_s(self, now: float) -> float:
        """For how long, from the start, several children were served at once: then it is this
        uplink that bounds what is sent, not one child's downlink."""
        self._look(now)
        return self._busy_s

    def _look(self, now: float) -> None:
        if self._was_busy:
            self._busy_s += now - self._looked_at
        self._looked_at, self._was_busy = now, len(self._served) > 1

    def asked(self, peer: PeerId, items: Iterable[Item], lacking: int) -> list[Item]:
        """A child asks, which lacks so many pieces in all; returns what is too much."""
        child = self.children.setdefault(peer, ServedChild())
        child.lacking = lacking
        wanted = list(items)
        room = REQUESTS_MAX - len(child.waiting)
        child.waiting.extend(wanted[:room])
        return wanted[room:]

    def cancelled(self, peer: PeerId, items: set[Item]) -> list[Item]:
        """It wants these no more; returns those in hand, which can be broken off."""
        child = self.children.get(peer)
        if child is None:
            return []
        child.waiting = deque(item for item in child.waiting if item not in items)
        return [item for item in child.in_hand if item in items]

    def gone(self, peer: PeerId) -> None:
        self.children.pop(peer, None)
        self._served.pop(peer, None)

    def went(self, left_bytes: float, now: float) -> None:
        """So many bytes of all pieces have left by now."""
        if left_bytes != self._left_bytes:
            self._left_at, self._left_bytes = now, left_bytes

    def next(self, now: float) -> tuple[PeerId, Item] | None:
        """What to take in hand now; None while there are enough, or nothing waits."""
        stuck = self._added(now)
        if self._counted(now) >= self.hands + stuck:
            return None
        others = any(each.waiting and not each.in_hand for each in self.children.values())
        most = 1 if stuck and others else SENDS_AT_ONCE
        first, behind = self._first(now)
        if first is None:
            return self._turn(most, now, None)
        room = behind < max(1, self.hands // FAIR_EVERY)
        if not room or self._taken % FAIR_EVERY != FAIR_EVERY - 1:
            turn = self._turn(most, now, first)
            if turn is not None or not room:
                return turn
        return self._turn(most, now, None)

    def _first(self, now: float) -> tuple[VersionId | None, int]:
        """The content that comes first, where it makes a difference, and how many pieces of others
        are in hand: all in hand share the uplink."""
        if now >= self._places_until:
            return None, 0
        hands = Counter(item[0] for item in self._hands(now))
        asked = {
            item[0] for child in self.children.values() for item in islice(child.waiting, LOOK_MAX)
        }
        asked.update(hands)
        if len(asked) < 2:
            return None, 0
        last = len(self._places)
        first = min(asked, key=lambda version: (self._places.get(version, last), version))
        return first, hands.total() - hands[first]

    def _turn(self, most: int, now: float, only: VersionId | None) -> tuple[PeerId, Item] | None:
        """Whose piece it is, of all or of one content `only`."""
        passed: list[tuple[PeerId, ServedChild, Item, Rank]] = []
        for peer, child in self.children.items():
            if not child.waiting or len(child.in_hand) >= most:
                continue
            item, rank = self._best(child, only)
            if item is None:
                continue
            passed.append((peer, child, item, rank))
            fresh = rank is Rank.FRESH and not self._others_first(peer, item[0], now)
            if fresh or child.passed >= len(self.children) // 2:
                return self._take(passed, len(passed) - 1, now)
        if not passed:
            return None
        ranks = [rank for *_, rank in passed]
        for rank in (Rank.FRESH, Rank.FIRST):
            if rank in ranks:
                return self._take(passed, ranks.index(rank), now)
        return self._take(passed, self._furthest_behind([child for _, child, *_ in passed]), now)

    def _furthest_behind(self, children: list[ServedChild]) -> int:
        """Which of them lacks most, of those that wait for nothing in hand; of equals the first.

        All end when the last one does, and who fell behind once is else served like the others
        until then. What is in hand for one that has a slow downlink is there for long.
        """

        def behind(place: int) -> int:
            child = children[place]
            return 0 if child.in_hand else child.lacking

        return max(range(len(children)), key=behind)

    def _best(self, child: ServedChild, only: VersionId | None) -> tuple[Item | None, Rank]:
        """Of what it waits for what is worth most: sent to one, it can be passed on while the rest
        of the children get theirs from there."""
        best, rank = None, Rank.SECOND
        for item in islice(child.waiting, LOOK_MAX):
            if item in child.in_hand:
                continue  # Broken off and asked for again, or asked for twice.
            if only is not None and item[0] != only:
                continue
            if item in self.spread:
                best = best or item
            elif self._read_here(item):
                return item, Rank.FRESH
            elif rank is Rank.SECOND:
                best, rank = item, Rank.FIRST
        return best, rank

    def _take(
        self, among: list[tuple[PeerId, ServedChild, Item, Rank]], place: int, now: float
    ) -> tuple[PeerId, Item]:
        """That one is served; those before it are passed over."""
        for _, each, *_ in among[:place]:
            each.passed += 1
        peer, child, item, _ = among[place]
        child.waiting.remove(item)
        child.in_hand[item] = now
        self._taken += 1
        self._served[peer] = child
        self._look(now)
        child.passed = 0
        self.children.move_to_end(peer)
        self.spread[item] = None
        self.spread.move_to_end(item)
        if len(self.spread) > SPREAD_MAX:
            self.spread.popitem(last=False)
        return peer, item

    def sent(self, peer: PeerId, item: Item, now: float, *, whole: bool) -> None:
        """No more in hand. `whole`: it was sent to its end, and its time tells something."""
        child = self.children.get(peer)
        since = child.in_hand.pop(item, None) if child is not None else None
        if child is not None and not child.in_hand:
            self._served.pop(peer, None)
            self._look(now)
            if not child.waiting:
                del self.children[peer]
        if not whole:
            self.spread.pop(item, None)
        if since is None:
            return
        if not whole:
            if now - since >= LATE_S:
                self.hands = max(1, self.hands - 1)
            return
        took_s, overtaken = now - since, since < self._newest_sent
        self._newest_sent, self._sent_at = max(since, self._newest_sent), now
        if overtaken and took_s > self._held_s():
            return  # The child was slow, not this peer.
        self.took_s += (took_s - self.took_s) / 4
        if took_s <= SOON_S:
            self.hands = min(HANDS_MAX, self.hands + 1)
        elif took_s >= LATE_S:
            self.hands = max(1, self.hands - 1)

    def deadline(self, now: float) -> float:
        """When something in hand stops to count; inf if nothing is."""
        held_s, due = self._held_s(), inf
        for child in self._served.values():
            for at in child.in_hand.values():
                if at < self._newest_sent and now < at + held_s < due:
                    due = at + held_s
        if self._served:
            due = min(due, self._idle_since() + held_s * 2.0 ** self._added(now))
        return due

    def _counted(self, now: float) -> int:
        return sum(1 for _ in self._hands(now))

    def _hands(self, now: float) -> Iterator[Item]:
        """In hand, without what its child does not take: what was begun later is sent already."""
        held_s = self._held_s()
        for child in self._served.values():
            for item, at in child.in_hand.items():
                if at >= self._newest_sent or now - at < held_s:
                    yield item

    def _added(self, now: float) -> int:
        """While no byte leaves at all, one more from time to time, after twice as long each time:
        those children stand still."""
        if not self._served:
            return 0
        waited = (now - self._idle_since()) / self._held_s()
        return int(waited + 1e-6).bit_length()  # At its `deadline` it is due, whatever floats lose.

    def _idle_since(self) -> float:
        oldest = min(at for child in self._served.values() for at in child.in_hand.values())
        return max(oldest, self._sent_at, self._left_at)

    def _held_s(self) -> float:
        return max(HELD_MIN_S, HELD_FACTOR * self.took_s)
