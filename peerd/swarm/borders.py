"""Which pieces may be fetched from beyond which border of our zone, and what to ask for (ADR 0013).

Always: a piece is fetched from a peer beyond a border only under a lease to bring it over that
border, before its deadline; a piece that a nearer peer has is not asked for; demands are said at
most each ASK_EVERY_S.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from peerd.link.messages import LeaseInfo, Outcome
from peerd.pieces import PieceSet, extent_pieces
from peerd.swarm import events as ev
from peerd.swarm.parents import Parent, Parents
from peerd.zones import scopes

ASK_EVERY_S: Final = 0.02
"""What came into sight is gathered so long: a few round trips in a zone. Guess."""
NEARER_FIRST_S: Final = 1.0
"""So long after the version is known, those on this side who are being connected to are waited for:
what they hold need not be brought. Guess: several dials."""
ROOM_MIN: Final = 2
ROOM_MAX: Final = 16
"""Leases to bring at once: rights held by one who is slow keep others from bringing. Guess."""
AHEAD: Final = 1.5
"""Rights for so many times what is in flight, so that no parent waits for the next. Guess."""


@dataclass
class Bring:
    """One lease. `left` are its pieces that are not held yet."""

    info: LeaseInfo
    left: set[int]
    expires_at: float
    renew_at: float
    count: int


@dataclass
class Border:
    """The way into one scope. `allowed` is the union of what is left of its leases."""

    scope: str
    leases: dict[int, Bring] = field(default_factory=dict)
    allowed: PieceSet = field(default_factory=lambda: PieceSet(0))
    asked: tuple[int, PieceSet] | None = None
    ask_at: float = -inf


class Borders:
    """All borders of one download, the widest scope first; none where the peer has no zone."""

    def __init__(self, zone: str) -> None:
        self._borders = {scope: Border(scope) for scope in scopes(zone)}
        self._opened_at = -inf

    def __iter__(self) -> Iterator[Border]:
        return iter(self._borders.values())

    def __bool__(self) -> bool:
        return bool(self._borders)

    def begin(self, now: float) -> None:
        """Another version: what was leased for the former counts no more."""
        self._opened_at = now
        for border in self:
            border.leases.clear()
            border.allowed = PieceSet(0)
            border.asked = None

    def may_fetch(self, parent: Parent) -> PieceSet:
        """Those of a parent's pieces that may be asked of it."""
        if parent.border is None:
            return parent.have
        border = self._borders.get(parent.border)
        return parent.have & border.allowed if border is not None else PieceSet(0)

    # --- leases

    def granted(self, scope: str, info: LeaseInfo, unheld: Iterable[int], now: float) -> None:
        """A new lease, or more time for one. `unheld` are those of its pieces that we lack."""
        border = self._borders[scope]
        bring = border.leases.get(info.lease)
        if bring is None:
            bring = Bring(info, set(unheld), now, now, info.count)
            border.leases[info.lease] = bring
            border.allowed.grow(info.first + info.count)
            for index in bring.left:
                border.allowed.add(index)
        bring.expires_at = now + info.expires_in_s
        bring.renew_at = now + info.expires_in_s / 3

    def held(self, index: int) -> list[ev.Order]:
        """The piece is here: leases that are used up are said to be done."""
        orders: list[ev.Order] = []
        for border in self:
            if index not in border.allowed:
                continue
            border.allowed.discard(index)
            for bring in list(border.leases.values()):
                bring.left.discard(index)
                if not bring.left:
                    orders.append(self._over(border, bring, Outcome.DONE))
        return orders

    def revoked(self, scope: str, lease: int) -> set[int]:
        """The keeper wants it back: these pieces may not be fetched under it any more."""
        border = self._borders[scope]
        bring = border.leases.pop(lease, None)
        if bring is None:
            return set()
        for index in bring.left:
            border.allowed.discard(index)
        return bring.left

    def _over(self, border: Border, bring: Bring, outcome: Outcome) -> ev.Order:
        self.revoked(border.scope, bring.info.lease)
        return ev.ReportBring(border.scope, bring.info.lease, outcome)

    def standing(self, scope: str, now: float) -> tuple[LeaseInfo, ...]:
        """The leases with the time that is left, as a new keeper has to hear of them."""
        return tuple(
            LeaseInfo(
                bring.info.lease, bring.info.kind, bring.info.holder, bring.info.first,
                bring.info.count, max(0.0, bring.expires_at - now),
            )
            for bring in self._borders[scope].leases.values()
        )  # fmt: skip

    def expire(self, parents: Parents, now: float) -> tuple[list[ev.Order], list[tuple[str, int]]]:
        """Reports of leases that go on or cannot be used, and (scope, piece) that must not be
        fetched any more."""
        orders: list[ev.Order] = []
        lost: list[tuple[str, int]] = []
        for border in self:
            for bring in list(border.leases.values()):
                unused = not self._in_sight(border, bring, parents)
                if bring.expires_at <= now or (unused and bring.renew_at <= now):
                    lost += [(border.scope, index) for index in bring.left]
                    orders.append(self._over(border, bring, Outcome.RETURNED))
                elif bring.renew_at <= now:
                    bring.renew_at = now + max(0.1, bring.expires_at - now) / 2
                    orders.append(ev.ReportBring(border.scope, bring.info.lease, Outcome.PROGRESS))
        return orders, lost

    @staticmethod
    def _in_sight(border: Border, bring: Bring, parents: Parents) -> bool:
        beyond = [parent for parent in parents if parent.border == border.scope]
        return any(index in parent.have for parent in beyond for index in bring.left)

    def deadline(self) -> float:
        """When a lease is to be renewed or ends; inf if there is none."""
        times = [min(b.renew_at, b.expires_at) for border in self for b in border.leases.values()]
        return min(times, default=inf)

    # --- demands

    def demands(
        self, wanted: PieceSet, parents: Parents, length_bytes: int, now: float
    ) -> list[ev.Order]:
        """What to ask the scopes' keepers for now, if that is not what they know."""
        if not self._borders or (now < self._opened_at + NEARER_FIRST_S and parents.nearing()):
            return []
        if all(now < border.ask_at for border in self):
            return []
        nearer = 0
        for parent in parents:
            if parent.border is None:
                nearer |= parent.have.bits
        orders: list[ev.Order] = []
        for border in reversed(self._borders.values()):
            beyond = [parent for parent in parents if parent.border == border.scope]
            seen = 0
            for parent in beyond:
                seen |= parent.have.bits
            unseen_nearer = PieceSet.of(seen & wanted.bits & ~nearer, wanted.count)
            orders += self._ask(border, unseen_nearer, beyond, length_bytes, now)
            nearer |= seen
        return orders

    def _ask(
        self, border: Border, seen: PieceSet, beyond: list[Parent], length_bytes: int, now: float
    ) -> list[ev.Order]:
        seen = seen - border.allowed
        before = border.asked
        if now < border.ask_at or (before is None and not seen):
            return []
        flight = AHEAD * sum(parent.window(length_bytes) for parent in beyond)
        wanted = int(flight / extent_pieces(max(1, seen.count))) + 1
        room = max(ROOM_MIN, min(ROOM_MAX, wanted)) if seen else 0
        if before is not None and (room, seen) == before:
            return []
        if before is not None and not (seen - before[1]) and room <= before[0] and seen:
            return []  # Less of the same: the keeper knows what it granted.
        border.asked, border.ask_at = (room, seen), now + ASK_EVERY_S
        return [ev.AskBring(border.scope, room, seen)]

    def asks_at(self, now: float) -> float:
        """When a demand that is held back may be said; inf if none is."""
        return min((border.ask_at for border in self if border.ask_at > now), default=inf)

    def unmet(self, scope: str) -> bool:
        """Whether something is asked for there, and nothing granted."""
        border = self._borders[scope]
        return border.asked is not None and border.asked[0] > 0 and not border.leases

    def ask_again(self, scope: str) -> None:
        """Another keeper was found: it has to be told."""
        self._borders[scope].asked = None
        self._borders[scope].ask_at = -inf
