"""Who may begin a handshake now: what strangers can cost before they are proven.

Always: at most `at_once_max` handshakes go on and `waiting_max` connections wait for one; each
waits and goes on for `handshake_max_s` at most; the next to begin is of the address that has the
fewest going on, and the first to lose its place is of the one that has most waiting; an address
begins no more than its bucket allows; the table of buckets is bounded.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NewType

from msgspec import Struct

Ticket = NewType("Ticket", int)


class GateLimits(Struct, frozen=True):
    at_once_max: int = 16  # docs/design.md, 5
    handshake_max_s: float = 2.0  # docs/design.md, 5
    waiting_max: int = 64  # Guess: a flash crowd from behind one address
    yield_after_s: float = 1.0  # Guess: so long none must yield to those who wait
    burst: float = 64.0  # Guess: connections of one address at once ...
    per_s: float = 32.0  # ... and in the long run: 5 % of a core at 1.6 ms each
    addresses_max: int = 4096  # 1 MiB


class Begin(Struct, frozen=True):
    """Start the handshake of this connection."""

    ticket: Ticket


class Drop(Struct, frozen=True):
    """Close this connection, whether its handshake goes on or not."""

    ticket: Ticket
    why: str


Order = Begin | Drop


class _Caller(Struct):
    address: str
    since: float


class _Bucket(Struct):
    level: float
    filled_at: float


class Gate:
    def __init__(self, limits: GateLimits | None = None) -> None:
        self.limits = limits or GateLimits()
        self._going: dict[Ticket, _Caller] = {}
        self._waiting: dict[Ticket, _Caller] = {}
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._by_address: Counter[str] = Counter()
        self._tickets = 0
        self.begun = 0
        self.dropped = 0

    def issue(self) -> Ticket:
        """A name for one connection."""
        self._tickets += 1
        return Ticket(self._tickets)

    def arrived(self, ticket: Ticket, address: str, now: float) -> list[Order]:
        if not self._allowance(address, now):
            return [self._drop(ticket, "its address connects too often")]
        orders: list[Order] = []
        if len(self._waiting) >= self.limits.waiting_max:
            last = self._last_of_most(address)
            if last is None:
                return [self._drop(ticket, "too many connections wait")]
            self._forget(last)
            orders.append(self._drop(last, "too many connections of its address wait"))
        self._waiting[ticket] = _Caller(address, now)
        return orders + self.expire(now)

    def finished(self, ticket: Ticket, now: float) -> list[Order]:
        """The connection of this ticket is proven, or closed."""
        self._forget(ticket)
        return self.expire(now)

    def expire(self, now: float) -> list[Order]:
        limits = self.limits
        orders: list[Order] = [
            self._expired(ticket)
            for table in (self._going, self._waiting)
            for ticket, caller in list(table.items())
            if now >= caller.since + limits.handshake_max_s
        ]
        while self._waiting:
            if len(self._going) >= limits.at_once_max:
                oldest = self._oldest()
                if now < self._going[oldest].since + limits.yield_after_s:
                    break
                self._forget(oldest)
                orders.append(self._drop(oldest, "it was slow, and others wait"))
            orders.append(self._begin(now))
        return orders

    def deadline(self) -> float:
        """When `expire` wants to be called next; inf for never."""
        limits = self.limits
        times = [c.since + limits.handshake_max_s for c in self._waiting.values()]
        going_max_s = limits.yield_after_s if self._waiting else limits.handshake_max_s
        times += [c.since + going_max_s for c in self._going.values()]
        return min(times, default=float("inf"))

    @property
    def going(self) -> int:
        return len(self._going)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def validate(self) -> None:
        assert len(self._going) <= self.limits.at_once_max
        assert len(self._waiting) <= self.limits.waiting_max
        assert len(self._buckets) <= self.limits.addresses_max
        assert not self._waiting or len(self._going) == self.limits.at_once_max
        assert self._by_address == Counter(c.address for c in self._going.values())
        assert not self._going.keys() & self._waiting.keys()

    def _begin(self, now: float) -> Begin:
        ticket = min(self._waiting, key=lambda each: self._by_address[self._waiting[each].address])
        caller = self._waiting.pop(ticket)
        self._by_address[caller.address] += 1
        self._going[ticket] = _Caller(caller.address, now)
        self.begun += 1
        return Begin(ticket)

    def _last_of_most(self, address: str) -> Ticket | None:
        """The last to come of the address that has most waiting, if it has more than `address`."""
        waiting = Counter(caller.address for caller in self._waiting.values())
        most, count = waiting.most_common(1)[0]
        if count <= waiting[address] + 1:
            return None
        return next(t for t in reversed(self._waiting) if self._waiting[t].address == most)

    def _oldest(self) -> Ticket:
        return next(iter(self._going))

    def _expired(self, ticket: Ticket) -> Drop:
        self._forget(ticket)
        return self._drop(ticket, "it took too long")

    def _forget(self, ticket: Ticket) -> None:
        self._waiting.pop(ticket, None)
        caller = self._going.pop(ticket, None)
        if caller is not None:
            self._by_address[caller.address] -= 1
            if not self._by_address[caller.address]:
                del self._by_address[caller.address]

    def _drop(self, ticket: Ticket, why: str) -> Drop:
        self.dropped += 1
        return Drop(ticket, why)

    def _allowance(self, address: str, now: float) -> bool:
        limits = self.limits
        bucket = self._buckets.pop(address, None) or _Bucket(limits.burst, now)
        self._buckets[address] = bucket
        if len(self._buckets) > limits.addresses_max:
            self._buckets.popitem(last=False)
        gained = max(0.0, now - bucket.filled_at) * limits.per_s
        bucket.level = min(limits.burst, bucket.level + gained)
        bucket.filled_at = now
        if bucket.level < 1.0:
            return False
        bucket.level -= 1.0
        return True
