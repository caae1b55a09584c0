"""The trio shell of gossip: carries the core's orders to the overlay, the disk and whoever listens.

Always: it decides nothing; the core is called from the event loop alone, one event at a time, also
when an order calls back into it; at most the core's number of dials run, each for 3 s at most.
It is the daemon's `Members` (scheduler/ports.py) and the links' `AddressBook` (link/ports.py).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import trio
from msgspec import structs

from peerd.errors import IdentityCloned, PeerdError, PeerUnreachable
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
from peerd.gossip.exchange import Exchange
from peerd.gossip.membership import IdentityConflict, Place
from peerd.gossip.ports import Overlay
from peerd.gossip.records import Member, OwnFacts
from peerd.gossip.statefile import State, read_state, state_of, write_state
from peerd.ids import PeerId, TaskId
from peerd.signing import SigningKey

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 3.0
"""Guess: a libp2p dial takes 0.25 s; behind a partition more would delay finding its end."""
GOODBYE_S = 0.2  # Guess: some round trips; stopping must be over within 5 s.
FAILURES_LOGGED_MAX = 256


class PeerView(NamedTuple):
    """A peer of the group, for people: `peerd peers`."""

    member: Member
    overlay_addresses: tuple[str, ...]
    reachable: bool
    neighbour: bool


class GossipService:
    """Make it inside trio. `boot` is 16 random bytes that name this run of the daemon."""

    def __init__(
        self,
        overlay: Overlay,
        key: SigningKey,
        facts: OwnFacts,
        *,
        boot: bytes,
        bootstrap: Sequence[str],
        known_peers_path: Path,
        rng: Random,
        wall_clock: Callable[[], float] = time.time,
        on_conflict: Callable[[IdentityConflict], None] | None = None,
    ) -> None:
        state, complaint = read_state(known_peers_path)
        if complaint is not None:
            log.warning("%s", complaint)
        self.core = Exchange(
            key,
            facts,
            boot=boot,
            past=state.past,
            wall_s=wall_clock(),
            bootstrap=bootstrap,
            known=state.known,
            rng=rng,
            now=trio.current_time(),
        )
        self._overlay = overlay
        self._path = known_peers_path
        self._on_conflict = on_conflict
        self._listeners: list[Callable[[], None]] = []
        self._changed = trio.Event()
        self._seen = self._face()
        self._events: deque[Event | None] = deque()
        self._busy = False
        self._wake = trio.Event()
        self._waiting_until = float("inf")
        self._nursery: trio.Nursery | None = None
        self._state: State | None = None
        self._state_changed = trio.Event()
        self._failures: dict[str, str] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Nothing is left behind but the file, as it was last written; to be
        missed by nobody, call `leave` first."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._overlay.set_handler(self)
            for peer in self._overlay.neighbours():
                self._tell(NeighbourUp(peer))
            nursery.start_soon(self._write_states)
            if not self.core.membership.facts.overlay_addresses:
                self.update_addresses(overlay=self._overlay.addresses())
            task_status.started()
            try:
                await self._keep_time()
            finally:
                self._nursery = None

    async def _keep_time(self) -> None:
        while True:
            self._tell(None)
            self._wake = trio.Event()
            self._waiting_until = self.core.deadline()
            with trio.move_on_at(self._waiting_until):
                await self._wake.wait()

    async def leave(self) -> None:
        """Tells the neighbours that we go, and gives the overlay's queues time to be sent."""
        self._tell(Leave())
        if self._state is not None:
            await self._write(self._state)
        if self.core.neighbours:
            await trio.sleep(GOODBYE_S)

    # --- what scheduler and links ask (Members, AddressBook)

    @property
    def synced(self) -> bool:
        return self.core.synced

    @property
    def revision(self) -> int:
        return self.core.membership.revision

    def live(self) -> Sequence[Member]:
        return self.core.membership.live()

    def member(self, peer: PeerId) -> Member | None:
        record = self.core.membership.present(peer)
        return None if record is None else record.member()

    def unreachable(self, peer: PeerId) -> None:
        self._tell(LinkFailed(peer))

    def reachable(self, peer: PeerId) -> None:
        self._tell(LinkStands(peer))

    def holders(self, task: TaskId) -> Sequence[PeerId]:
        return self.core.holders(task)

    def hold(self, tasks: Sequence[TaskId], active: Sequence[tuple[TaskId, float]]) -> None:
        """Newest first, both."""
        self._tell(Hold(tuple(tasks), tuple(active)))

    def link_addresses(self, peer: PeerId) -> Sequence[str]:
        record = self.core.membership.present(peer)
        return () if record is None else record.link_addresses

    # --- what the daemon asks

    @property
    def neighbours(self) -> Sequence[PeerId]:
        return list(self.core.neighbours)

    def peers(self) -> list[PeerView]:
        """Everybody who has not left, this peer among them."""
        membership = self.core.membership
        own = membership.present(membership.peer)
        records = [*membership.others()] if own is None else [own, *membership.others()]
        return [
            PeerView(
                record.member(),
                record.dial_addresses(),
                membership.is_live(record.peer),
                record.peer in self.core.neighbours,
            )
            for record in records
        ]

    def update_addresses(
        self, *, overlay: Sequence[str] | None = None, link: Sequence[str] | None = None
    ) -> None:
        """Where we can be reached from now on; None leaves it as it is."""
        facts = self.core.membership.facts
        if overlay is not None:
            facts = structs.replace(facts, overlay_addresses=tuple(overlay))
        if link is not None:
            facts = structs.replace(facts, link_addresses=tuple(link))
        self._tell(Update(facts))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Called on the event loop after `live`, `synced` or `neighbours` changed."""
        self._listeners.append(listener)

    async def changed(self) -> None:
        """Returns after the next such change."""
        await self._changed.wait()

    # --- what the overlay tells (OverlayHandler)

    def neighbour_up(self, peer: PeerId) -> None:
        self._tell(NeighbourUp(peer))

    def neighbour_down(self, peer: PeerId) -> None:
        self._tell(NeighbourDown(peer))

    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None:
        self._tell(Arrived(peer, payload))

    # --- driving the core

    def _tell(self, event: Event | None) -> None:
        """None: only time has passed. An order may call back here; its event then waits."""
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                event = self._events.popleft()
                now = trio.current_time()
                core = self.core
                orders = core.expire(now) if event is None else core.handle(event, now)
                for order in orders:
                    self._carry_out(order)
        finally:
            self._busy = False
        if self.core.deadline() < self._waiting_until:
            self._wake.set()
        self._notify()

    def _carry_out(self, order: Order) -> None:
        match order:
            case Send(peer=peer, payload=payload):
                self._send(peer, payload)
            case Dial(address=address):
                self._start(self._dial, address)
            case Drop(peer=peer, words=words):
                if words is not None:
                    log.warning("closing the connection to %s: %s", peer, words)
                self._start(self._overlay.disconnect, peer)
            case Remember(past=past, known=known):
                self._state = state_of(past, known)
                self._state_changed.set()
            case IdentityConflict():
                self._conflict(order)

    def _conflict(self, found: IdentityConflict) -> None:
        log.error("this identity is used twice: here %s, and there %s", found.ours, found.theirs)
        if self._on_conflict is not None:
            self._on_conflict(found)

    def _send(self, peer: PeerId, payload: bytes) -> None:
        try:
            self._overlay.send(peer, payload)
        except PeerUnreachable as error:
            # Its neighbour_down is on the way.
            log.debug("not sent to %s: %s", peer, error)

    def _start(self, job: Callable[..., object], *arguments: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(job, *arguments)  # type: ignore[arg-type]

    async def _dial(self, address: str) -> None:
        outcome: Event = DialFailed(address)
        words = f"no answer within {DIAL_TIMEOUT_S:g} s"
        with trio.move_on_after(DIAL_TIMEOUT_S):
            try:
                outcome = Connected(address, await self._overlay.connect(address))
            except IdentityCloned as error:
                words = str(error)
                if self._failures.get(address) != words:
                    own = self.core.membership.place(self.core.membership.peer)
                    self._conflict(IdentityConflict(own, Place("", (address,))))
            except PeerdError as error:
                # The address may be a hostile record's: whatever is wrong with it, it failed.
                words = str(error)
        if isinstance(outcome, DialFailed):
            self._log_failure(address, words)
        self._tell(outcome)

    def _log_failure(self, address: str, words: str) -> None:
        """Once, not at every retry."""
        if self._failures.get(address) != words:
            log.info("cannot reach %s: %s", address, words)
        if len(self._failures) >= FAILURES_LOGGED_MAX:
            self._failures.clear()
        self._failures[address] = words

    def _notify(self) -> None:
        face = self._face()
        if face != self._seen:
            self._seen = face
            self._changed.set()
            self._changed = trio.Event()
            for listener in self._listeners:
                listener()

    def _face(self) -> tuple[int, bool, int]:
        core = self.core
        return core.membership.revision, core.synced, hash(frozenset(core.neighbours))

    async def _write_states(self) -> None:
        while True:
            await self._state_changed.wait()
            self._state_changed = trio.Event()
            if self._state is not None:
                await self._write(self._state)

    async def _write(self, state: State) -> None:
        try:
            await trio.to_thread.run_sync(write_state, self._path, state)
        except OSError as error:
            log.warning("known peers are not kept: %s: %s", self._path, error)
