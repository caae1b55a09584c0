"""The core of gossip: takes what neighbours, the shell and the clock bring, says what to do.

Always: events in, orders out, nothing waits; news is spread to every neighbour but its source, a
neighbour that breaks the protocol is dropped and named, and nothing it sent before that is undone;
`synced` turns true once: by a full membership sync with each of those who are found at first (one
of them may have started just now, and know nobody), or by proof that nobody is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peerd.errors import RemoteProtocolError
from peerd.gossip.availability import Availability
from peerd.gossip.dialling import NEIGHBOURS_HIGH, Dialling
from peerd.gossip.events import (
    Arrived,
    Connected,
    Dial,
    DialFailed,
    Drop,
    Event,
    Hold,
    Leave,
    LinkFailed,
    LinkStands,
    NeighbourDown,
    NeighbourUp,
    Order,
    Remember,
    Send,
    Update,
)
from peerd.gossip.items import ItemTable
from peerd.gossip.membership import Heard, Membership, Past, Rng, Verify
from peerd.gossip.messages import (
    Answer,
    Deltas,
    Digest,
    Listing,
    Message,
    Parting,
    Want,
    pack,
    unpack,
)
from peerd.gossip.records import Kind, OwnFacts, Signed
from peerd.gossip.spreading import Spreading
from peerd.gossip.syncing import Syncing
from peerd.ids import PeerId, TaskId
from peerd.signing import SigningKey, verify

PRUNE_AFTER_S = 10.0  # Guess: a newcomer has had its first sync by then.
PARTING_S = 1.0
"""Closing discards what is queued: who is parted from closes when it has read why, or then we."""
HOLD_MIN_S = 2.0
HOLD_PER_MEMBER_S = 0.5
"""Guess: holdings are the directory of last resort; at 1,000 peers a minute's change is said within
ten, and what every peer passes on of them is bounded by spreading.HOLDINGS_BYTES_S anyway."""
REMEMBER_EVERY_S = 30.0  # Guess: a crash loses at most so much of who is known,
REMEMBER_SOON_S = 1.0  # but who starts anew, and is killed soon, finds its neighbours again. Guess.
SETTLE_S = 2.0
"""After the first sync so long at most is spent on those whom earlier runs knew, and whom nobody
told of: of two peers that restart together each may have nobody but the other. Guess."""


class Exchange:
    def __init__(
        self,
        key: SigningKey,
        facts: OwnFacts,
        *,
        boot: bytes,
        past: Past,
        wall_s: float,
        bootstrap: Sequence[str],
        known: Sequence[str],
        rng: Rng,
        now: float,
        verifier: Verify = verify,
    ) -> None:
        self.membership = Membership(
            key,
            facts,
            boot=boot,
            past=past,
            wall_s=wall_s,
            now=now,
            rng=rng,
            verifier=verifier,
        )
        self.availability = Availability(key, verifier=verifier)
        self.tables: dict[Kind, ItemTable] = {
            Kind.RECORD: self.membership.table,
            Kind.HOLDINGS: self.availability.table,
        }
        self.dialling = Dialling(key.peer_id, bootstrap, known, rng=rng, now=now)
        self.spreading = Spreading(self.tables, rng)
        self.syncing = Syncing(self.tables, rng, now)
        self.neighbours: dict[PeerId, float] = {}
        self.alone = False
        self._synced = False
        self._settle_by = float("inf")
        self._peer = key.peer_id
        self._rng = rng
        self._link_stands: set[PeerId] = set()
        self._hold = Hold((), ())
        self._hold_at = float("inf")
        self._held_at = float("-inf")
        self._remember_at = now
        self._prune_at = float("inf")
        self._parting: dict[PeerId, float] = {}

    @property
    def synced(self) -> bool:
        return self._synced

    # --- events

    def handle(self, event: Event, now: float) -> list[Order]:
        orders: list[Order] = []
        match event:
            case Arrived(peer=peer, payload=payload):
                orders = self._arrived(peer, payload, now)
            case NeighbourUp(peer=peer):
                orders = self._neighbour_up(peer, now)
            case NeighbourDown(peer=peer):
                self._neighbour_down(peer, now)
            case Connected(address=address, peer=peer):
                self.dialling.connected(address, peer, now)
                self.dialling.poke(now)
            case DialFailed(address=address):
                self._dial_failed(address, now)
            case Hold():
                self._hold = event
                self._arm_hold(now)
            case Update(facts=facts):
                if self.membership.update(facts, now):
                    self.spreading.news(Kind.RECORD, self._peer, None, now)
            case LinkFailed(peer=peer):
                self._link_stands.discard(peer)
                self.membership.unreachable(peer, now)
            case LinkStands(peer=peer):
                if self.membership.present(peer) is not None:
                    self._link_stands.add(peer)
                self.membership.reachable(peer)
            case Leave():
                orders = self._leave(now)
        return orders + self.expire(now)

    def _neighbour_up(self, peer: PeerId, now: float) -> list[Order]:
        """Says who we are first: a sync comes in its own time, and may be long."""
        if peer == self._peer or peer in self.neighbours:
            return []
        self.neighbours[peer] = now
        self._parting.pop(peer, None)
        self.membership.reachable(peer)
        self.spreading.neighbour_up(peer)
        self.syncing.neighbour_up(peer, now, greet=self.synced)
        self._remember_at = min(self._remember_at, now + REMEMBER_SOON_S)
        if len(self.neighbours) > NEIGHBOURS_HIGH:
            self._prune_at = min(self._prune_at, now + PRUNE_AFTER_S)
        return self._tell(peer, Kind.RECORD, self._peer, now)

    def _neighbour_down(self, peer: PeerId, now: float) -> None:
        self.neighbours.pop(peer, None)
        self._parting.pop(peer, None)
        self.spreading.neighbour_down(peer)
        self.syncing.neighbour_down(peer)
        self.dialling.poke(now)

    def _dial_failed(self, address: str, now: float) -> None:
        lost = self.dialling.failed(address, now)
        # A link that stands says more than an overlay port that does not answer.
        if lost is not None and lost not in self._link_stands and lost not in self.neighbours:
            self.membership.unreachable(lost, now)
        self.dialling.poke(now)

    def _leave(self, now: float) -> list[Order]:
        self.membership.leave(now)
        orders: list[Order] = []
        for peer in self.neighbours:
            orders += self._tell(peer, Kind.RECORD, self._peer, now)
        return [*orders, self._remember(now)]

    # --- messages

    def _arrived(self, peer: PeerId, payload: bytes, now: float) -> list[Order]:
        if peer not in self.neighbours:
            return []
        try:
            return self._message(peer, unpack(payload), now)
        except RemoteProtocolError as error:
            # Its fault, so its connection; the shell names it.
            self.dialling.refused(peer, now)
            self._neighbour_down(peer, now)
            return [Drop(peer, str(error))]

    def _message(self, peer: PeerId, message: Message, now: float) -> list[Order]:
        match message:
            case Deltas(items=items):
                return self._hear_all(items, peer, now)
            case Digest():
                return _sends(self.syncing.digest(peer, message, now))
            case Listing(kind=kind):
                lacking, sends = self.syncing.listing(peer, message, now)
                self.spreading.news_for(peer, kind, lacking, now)
                return _sends(sends)
            case Want():
                return _sends(self.syncing.want(peer, message, now))
            case Answer(items=items):
                orders = self._hear_all(items, peer, now)
                return orders + _sends(self.syncing.answered(peer, message, now))
            case Parting():
                self.dialling.refused(peer, now)
                self._neighbour_down(peer, now)
                return [Drop(peer, None)]

    def _hear_all(self, items: Sequence[Signed], source: PeerId, now: float) -> list[Order]:
        orders: list[Order] = []
        for item in items:
            if item.kind is Kind.RECORD:
                hearing = self.membership.hear(item, source, now)
            else:
                hearing = self.availability.hear(item, source, self.membership.record, now)
                if hearing.heard is Heard.OWN:
                    self.membership.outrank(hearing.generation, now)
            if hearing.heard is Heard.NEWS:
                self._news(item.kind, hearing.owner, source, now)
            elif hearing.same:
                self.spreading.told_by(source, item.kind, hearing.owner)
            elif hearing.behind and source == hearing.owner:
                # It does not know its own newest word (a restart, a clone): at once, not coalesced.
                orders += self._tell(source, item.kind, hearing.owner, now)
            elif hearing.behind:
                self.spreading.news_for(source, item.kind, [hearing.owner], now)
            if hearing.conflict is not None:
                orders.append(hearing.conflict)
        return orders

    def _tell(self, peer: PeerId, kind: Kind, owner: PeerId, now: float) -> list[Order]:
        item = self.tables[kind].signed(owner, now)
        return [] if item is None else _sends([(peer, Deltas((item,)))])

    def _news(self, kind: Kind, owner: PeerId, source: PeerId, now: float) -> None:
        self.spreading.news(kind, owner, source, now)
        record = self.membership.record(owner)
        if kind is Kind.RECORD and record is not None:
            self.availability.record_changed(owner, record)
            self.dialling.member(record)
            if record.left:
                self._link_stands.discard(owner)
            self.dialling.poke(now)

    # --- time

    def deadline(self) -> float:
        return min(
            self.membership.deadline(),
            self.spreading.deadline(),
            self.syncing.deadline(),
            self.dialling.deadline(),
            self._hold_at,
            self._prune_at,
            self._remember_at,
            self._settle_by,
            *self._parting.values(),
        )

    def expire(self, now: float) -> list[Order]:
        """Whatever is due."""
        orders: list[Order] = []
        for peer in self.membership.expire(now):
            self.availability.record_changed(peer, None)
            self.dialling.expired(peer)
            self._link_stands.discard(peer)
        if self.membership.announce_due_at() <= now:
            self._announce(now)
        if self._hold_at <= now:
            self._announce_holdings(now)
        if self._prune_at <= now:
            orders += self._prune(now)
        for peer in [peer for peer, at in self._parting.items() if at <= now]:
            del self._parting[peer]
            orders.append(Drop(peer, None))
        orders += _sends(self.syncing.expire(now))
        orders += _sends(self.spreading.flush(now))
        if self.dialling.deadline() <= now:
            members = len(self.membership.table)
            orders += map(Dial, self.dialling.choose(now, self.neighbours, members))
        if not self.synced:
            self._settle(now)
        if self._remember_at <= now:
            orders.append(self._remember(now))
        return orders

    def _settle(self, now: float) -> None:
        """Whether we know the group by now, or know that there is none."""
        if self.syncing.records_done:
            self._settle_by = min(self._settle_by, now + SETTLE_S)
            tried = self.dialling.tried(self.neighbours) and self.syncing.settled()
            self._synced = tried or now >= self._settle_by
        elif not self.neighbours and self.dialling.proven_alone():
            self._synced = self.alone = True
        if self.synced:
            self._settle_by = float("inf")

    def _announce(self, now: float) -> None:
        generation = self.membership.generation
        self.membership.announce(now)
        self.spreading.news(Kind.RECORD, self._peer, None, now)
        if self.membership.generation != generation:
            self._announce_holdings(now)

    def _arm_hold(self, now: float) -> None:
        pause_s = max(HOLD_MIN_S, HOLD_PER_MEMBER_S * len(self.membership.table))
        self._hold_at = min(self._hold_at, max(now, self._held_at + pause_s))

    def _announce_holdings(self, now: float) -> None:
        self._hold_at = float("inf")
        if self.membership.left:
            return
        generation = self.membership.generation
        if self.availability.announce(generation, self._hold.tasks, self._hold.active, now):
            self._held_at = now
            self.spreading.news(Kind.HOLDINGS, self._peer, None, now)

    def _prune(self, now: float) -> list[Order]:
        """Parts from random neighbours above the degree, but from none that came just now."""
        self._prune_at = float("inf")
        excess = len(self.neighbours) - NEIGHBOURS_HIGH
        if excess <= 0:
            return []
        settled = [peer for peer, since in self.neighbours.items() if since + PRUNE_AFTER_S <= now]
        settled.sort(key=lambda _: self._rng.random())
        if len(settled) < excess:
            self._prune_at = now + PRUNE_AFTER_S
        orders: list[Order] = []
        for peer in settled[:excess]:
            self.dialling.refused(peer, now)
            self._neighbour_down(peer, now)
            self._parting[peer] = now + PARTING_S
            orders.append(Send(peer, pack(Parting())))
        return orders

    def _remember(self, now: float) -> Remember:
        self._remember_at = float("inf") if self.membership.left else now + REMEMBER_EVERY_S
        return Remember(self.membership.past(), self.dialling.known(self.neighbours))

    # --- views

    def holders(self, task: TaskId) -> list[PeerId]:
        """Reachable peers that say they hold the task or fetch it, but for ourselves."""
        live = self.membership.is_live
        found = self.availability.holders(task, self.membership.present)
        return [peer for peer in found if live(peer)]

    def validate(self) -> None:
        self.membership.validate()
        self.availability.validate()
        self.dialling.validate()
        self.spreading.validate()


def _sends(messages: Iterable[tuple[PeerId, Message]]) -> list[Order]:
    return [Send(peer, pack(message)) for peer, message in messages]
