"""Whom to dial, when: bootstrap addresses, peers known from earlier runs, and members.

Always: at most 8 dials at once, one for each peer; an address that failed is left alone for a time
that doubles, with jitter, to a maximum; with no neighbour at all every address is tried for ever,
each after 4 s or sooner; with enough neighbours only a scout goes out now and then, to an address
that failed, so that the end of a partition is found. docs/adr/0009.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct

from peerd.gossip.membership import Rng
from peerd.gossip.records import PeerRecord
from peerd.ids import PeerId

NEIGHBOURS_LOW: Final = 6
NEIGHBOURS_HIGH: Final = 12
"""Degree 6–12: gossipsub's own numbers (libp2p specs, gossipsub v1.0, «Parameters»)."""
DIALS_MAX: Final = 8
BACKOFF_FIRST_S: Final = 0.5  # Guess.
RECONNECT_MIN_S: Final = 2.0
"""Guess: a connection that is closed again as soon as it stands must not be dialled in a loop."""
BACKOFF_ALONE_MAX_S: Final = 4.0
"""The end of a partition must be found within 10 s, dial, sync and spreading included."""
BACKOFF_MAX_S: Final = 60.0  # Guess. Scouts find sooner what comes back.
SCOUT_MIN_S: Final = 4.0
SCOUT_PER_MEMBER_S: Final = 0.5
"""So some 2.7 scouts a second go out in all, whatever the size of the group."""
REFUSED_S: Final = 60.0  # Guess: who sent garbage, or parted from us, is left alone so long.
KNOWN_MAX: Final = 64
"""Addresses of peers that are no members now: of earlier runs, and expired ones."""
ALONE_TRIES: Final = 3
"""A bootstrap peer that starts at the same moment as we do is listening by the third try (1.5 s);
taking ourselves for alone sooner would cost the group a second copy from the origin."""


class Address(Struct):
    """What is known of one address. `peer` is who answered or should answer there, if known."""

    peer: PeerId | None
    bootstrap: bool
    failures: int = 0
    tries: int = 0
    failed_at: float = float("-inf")
    not_before: float = 0.0
    dialling: bool = False

    def ready_at(self, limit_s: float) -> float:
        return min(self.not_before, self.failed_at + limit_s)


class Dialling:
    def __init__(
        self,
        own: PeerId,
        bootstrap: Iterable[str],
        known: Iterable[str],
        *,
        rng: Rng,
        now: float,
    ) -> None:
        self._own = own
        self._rng = rng
        self._addresses: dict[str, Address] = {}
        self._of: dict[PeerId, tuple[str, ...]] = {}
        for address in bootstrap:
            self._addresses[address] = Address(_peer_in(address), True)
        for address in list(known)[:KNOWN_MAX]:
            self._addresses.setdefault(address, Address(_peer_in(address), False))
        for address in [text for text, entry in self._addresses.items() if entry.peer == own]:
            del self._addresses[address]
        self._given = tuple(self._addresses)
        self._scout_at = now + SCOUT_MIN_S
        self._deadline = now

    # --- what became of dials

    def connected(self, address: str, peer: PeerId, now: float) -> None:
        entry = self._addresses.get(address)
        if entry is None:
            return
        if entry.peer != peer and address in self._of.get(entry.peer or peer, ()):
            self.failed(address, now)  # A member's address is good for that member alone.
            return
        entry.dialling = False
        entry.tries += 1
        entry.failures = 0
        entry.failed_at = now
        entry.not_before = now + RECONNECT_MIN_S
        entry.peer = peer
        if peer == self._own:
            del self._addresses[address]

    def failed(self, address: str, now: float) -> PeerId | None:
        """Whose last address this was to fail, if it is a member's."""
        entry = self._addresses.get(address)
        if entry is None:
            return None
        entry.dialling = False
        entry.tries += 1
        entry.failures += 1
        entry.failed_at = now
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(entry.failures - 1, 10))
        entry.not_before = now + pause_s * (0.8 + 0.4 * self._rng.random())
        if entry.peer is None or entry.peer not in self._of:
            return None
        others = (self._addresses[text] for text in self._of[entry.peer])
        return entry.peer if all(other.failures for other in others) else None

    def refused(self, peer: PeerId, now: float) -> None:
        """Leave this peer alone for a while: it parted from us, or sent what it must not."""
        for entry in self._addresses.values():
            if entry.peer == peer:
                entry.failed_at = now
                entry.not_before = max(entry.not_before, now + REFUSED_S)

    def proven_alone(self) -> bool:
        """Every address we were given was tried, and nobody is there."""
        for text in self._given:
            entry = self._addresses.get(text)
            if entry is None:
                continue
            tries = ALONE_TRIES if entry.bootstrap else 1
            if entry.tries < tries or not entry.failures or entry.dialling:
                return False
        return True

    def tried(self, neighbours: Collection[PeerId]) -> bool:
        """Whether of the peers that earlier runs knew best each is a member or a neighbour now, or
        could not be dialled; or there are neighbours enough."""
        given = [self._addresses.get(text) for text in self._given]
        known = [entry for entry in given if entry is not None and not entry.bootstrap]
        waited_for = any(
            entry.peer not in neighbours
            and entry.peer not in self._of
            and (entry.dialling or not entry.failures)
            for entry in known[:DIALS_MAX]
        )
        return not waited_for or len(neighbours) >= NEIGHBOURS_LOW

    # --- who is there

    def member(self, record: PeerRecord) -> None:
        """A peer's newest record: from now on it is dialled there, or nowhere if it left."""
        peer = record.peer
        texts = () if record.left else record.dial_addresses()
        before = self._of.get(peer, ())
        if peer == self._own or texts == before:
            return
        for text in before:
            if text not in texts and not self._addresses[text].bootstrap:
                del self._addresses[text]
        if texts:
            self._of[peer] = texts
        else:
            self._of.pop(peer, None)
        for text in texts:
            self._addresses.setdefault(text, Address(peer, False)).peer = peer

    def expired(self, peer: PeerId) -> None:
        """No member any more, but it may be behind a partition: its addresses stay known."""
        self._of.pop(peer, None)
        known = [
            (entry.failures, text)
            for text, entry in self._addresses.items()
            if not entry.bootstrap and entry.peer not in self._of
        ]
        for _, text in sorted(known, reverse=True)[: max(0, len(known) - KNOWN_MAX)]:
            del self._addresses[text]

    def known(self, neighbours: Collection[PeerId]) -> tuple[str, ...]:
        """What the next run should try: neighbours first, then who answered, then the rest."""

        def order(pair: tuple[str, Address]) -> tuple[bool, int, float]:
            _, entry = pair
            return entry.peer not in neighbours, entry.failures, self._rng.random()

        named = [
            (text, entry)
            for text, entry in self._addresses.items()
            if entry.peer is not None
            and (not entry.bootstrap or text in self._of.get(entry.peer, ()))
        ]
        return tuple(text for text, _ in sorted(named, key=order)[:KNOWN_MAX])

    # --- whom to dial now

    def deadline(self) -> float:
        return self._deadline

    def poke(self, now: float) -> None:
        """Neighbours or members changed: choose again now."""
        self._deadline = min(self._deadline, now)

    def choose(self, now: float, neighbours: Collection[PeerId], members: int) -> list[str]:
        """Addresses to dial now; each counts as being dialled until its outcome is told."""
        dialling = sum(entry.dialling for entry in self._addresses.values())
        limit_s = BACKOFF_MAX_S if neighbours else BACKOFF_ALONE_MAX_S
        waiting = self._waiting(neighbours)
        room = min(DIALS_MAX, NEIGHBOURS_LOW - len(neighbours)) - dialling
        chosen = self._ready(waiting, now, limit_s)[: max(0, room)]
        if now >= self._scout_at:
            pause_s = max(SCOUT_MIN_S, SCOUT_PER_MEMBER_S * members)
            self._scout_at = now + pause_s * (0.5 + 0.5 * self._rng.random())
            if len(chosen) + dialling < DIALS_MAX:
                chosen += self._scout([text for text in waiting if text not in chosen])
        for text in chosen:
            self._addresses[text].dialling = True
        self._deadline = self._scout_at
        if room > len(chosen):
            left = (self._addresses[text].ready_at(limit_s) for text in waiting)
            self._deadline = min([self._scout_at, *(at for at in left if at > now)])
        return chosen

    def _waiting(self, neighbours: Collection[PeerId]) -> list[str]:
        """One address for each peer that is neither neighbour nor being dialled."""
        busy = {entry.peer for entry in self._addresses.values() if entry.dialling}
        best: dict[PeerId | str, str] = {}
        for text, entry in self._addresses.items():
            if entry.dialling or entry.peer in neighbours:
                continue
            if entry.peer is not None and entry.peer in busy:
                continue
            key = entry.peer or text
            if key not in best or entry.tries < self._addresses[best[key]].tries:
                best[key] = text
        return list(best.values())

    def _ready(self, waiting: list[str], now: float, limit_s: float) -> list[str]:
        """In random order, those that never failed first; bootstrap peers are not worn out: they
        come last as long as there are others."""
        ready = [text for text in waiting if self._addresses[text].ready_at(limit_s) <= now]
        return sorted(ready, key=self._rank)

    def _rank(self, text: str) -> tuple[int, bool, float]:
        entry = self._addresses[text]
        return entry.failures, entry.bootstrap, self._rng.random()

    def _scout(self, waiting: list[str]) -> list[str]:
        pool = [text for text in waiting if self._lost(self._addresses[text])]
        return [pool[int(self._rng.random() * len(pool))]] if pool else []

    def _lost(self, entry: Address) -> bool:
        return entry.failures > 0 or (entry.bootstrap and entry.peer not in self._of)

    def validate(self) -> None:
        assert sum(entry.dialling for entry in self._addresses.values()) <= DIALS_MAX
        assert all(entry.peer != self._own for entry in self._addresses.values())
        for peer, texts in self._of.items():
            assert all(self._addresses[text].peer == peer for text in texts)


def _peer_in(address: str) -> PeerId | None:
    """The id that a multiaddr ends in."""
    head, found, peer = address.rpartition("/p2p/")
    return PeerId(peer) if found and head and "/" not in peer else None
