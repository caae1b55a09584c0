"""The other peers of one download's swarm, as swarm/mates.py keeps them.

Always: a peer is told Join once for each link and version; every HAVE after it goes to everybody
who was told Join (more than swarm/mates.py sends, of which the receiver makes nothing), in one
message for what came within 5 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.mates import (
    EARLY_JOINS_MAX,
    HAVE_COALESCE_S,
    JOIN_AGAIN_S,
    JOIN_WAIT_S,
    MATES_NAMED,
)

if TYPE_CHECKING:
    from tools.sim.running import Run


Said = msg.Reject | msg.Depart | msg.MatesAsk | msg.Mates


class Mates:
    """Whom one download greeted, and what is to be said to them."""

    def __init__(self, run: Run) -> None:
        self._run, self._peer = run, run.peer
        self._greeted: dict[PeerId, float] = {}
        self._early: dict[PeerId, msg.Join] = {}
        self._fresh: list[int] = []

    def version_opened(self) -> None:
        self._greeted.clear()
        early, self._early = self._early, {}
        for peer, join in early.items():
            self.joined(peer, join)

    def joined(self, peer: PeerId, join: msg.Join) -> None:
        version = self._run.store.version
        if version is None or join.version.version != version.version:
            if len(self._early) < EARLY_JOINS_MAX:
                self._early[peer] = join
            return
        self._run.content.verified(join.version)
        have = bitmap(join.version, join.have)
        if self._run.core.parents.refuses(peer, join.few, join.zone):
            self.send(peer, msg.Depart(version.version, True))
            return
        if self._run.world.clock.now - self._greeted.get(peer, 0.0) >= JOIN_AGAIN_S:
            self._greeted.pop(peer, None)
        self.greet(peer)
        round_trip_s = self._peer.round_trip_s(peer)
        self._run.post(ev.ParentJoined(peer, have, join.zone, round_trip_s))

    def link_down(self, peer: PeerId) -> None:
        self._greeted.pop(peer, None)
        self._early.pop(peer, None)
        parents = self._run.core.parents
        if peer in parents.joined or peer in parents.connecting:
            self._run.post(ev.ParentGone(peer))

    def greet(self, peer: PeerId) -> None:
        store = self._run.store
        if store.version is not None and peer not in self._greeted:
            self._greeted[peer] = self._run.world.clock.now
            few = self._run.core.parents.few
            self.send(peer, msg.Join(store.version, store.held.to_bytes(), self._peer.zone, few))

    def has_early(self, version: VersionId, have: ev.ParentHas) -> None:
        """About a version that is still unknown here: it belongs to its sender's Join."""
        join = self._early.get(have.peer)
        if join is not None and join.version.version == version:
            pieces = bitmap(join.version, join.have)
            for index in have.indices:
                pieces.add(index)
            self._early[have.peer] = msg.Join(
                join.version, pieces.to_bytes(), join.zone, join.few
            )  # fmt: skip

    def says(self, peer: PeerId, message: Said) -> None:
        here = self._run.store.version
        if here is None or message.version != here.version:
            if isinstance(message, msg.Depart):
                self._early.pop(peer, None)
        elif isinstance(message, msg.Reject):
            self._run.post(ev.PieceRejected(peer, message.indices))
        elif isinstance(message, msg.Depart):
            self._greeted.pop(peer, None)
            self._run.post(ev.ParentFull(peer) if message.full else ev.ParentGone(peer))
        elif isinstance(message, msg.MatesAsk):
            self.send(peer, msg.Mates(message.version, self._named(peer)))
        else:
            self._run.post(ev.PeersNamed(message.peers))

    def ask(self, peer: PeerId) -> None:
        version = self._run.store.version
        if version is not None:
            self.send(peer, msg.MatesAsk(version.version))

    def left(self, peer: PeerId, words: msg.Depart) -> None:
        self._greeted.pop(peer, None)
        self.send(peer, words)

    def _named(self, asker: PeerId) -> tuple[msg.RosterPeer, ...]:
        parents = self._run.core.parents
        known = [parents.known[x] for x in parents.joined if x in parents.known and x != asker]
        return tuple(self._peer.rng.sample(known, min(MATES_NAMED, len(known))))

    def send(self, peer: PeerId, message: Message) -> None:
        if not self._peer.send(peer, message) and peer in self._run.core.parents.joined:
            self._run.post(ev.ParentGone(peer))

    def connect(self, peer: PeerId) -> None:
        """Opens a link and greets; ParentGone unless the peer joins."""

        def dialled(up: bool) -> None:
            if self._run.finished:
                return
            if not up:
                self._run.post(ev.ParentGone(peer))
                return
            self.greet(peer)
            self._run.world.clock.after(JOIN_WAIT_S, self._peer.guarded(self._waited), peer)

        self._run.world.network.dial(self._peer, peer, dialled)

    def _waited(self, peer: PeerId) -> None:
        if peer in self._run.core.parents.connecting:
            self._greeted.pop(peer, None)
            self._run.post(ev.ParentGone(peer))

    def join_again(self) -> None:
        for peer in tuple(self._run.core.parents.joined):
            self._greeted.pop(peer, None)
            self.greet(peer)

    def announce(self, index: int, to: tuple[PeerId, ...]) -> None:
        """With `to` to those alone, at once."""
        if to:
            self._say([peer for peer in to if peer in self._greeted], (index,))
            return
        if not self._fresh:
            self._run.world.clock.after(HAVE_COALESCE_S, self._peer.guarded(self.flush))
        self._fresh.append(index)

    def flush(self) -> None:
        """Say now what was gathered."""
        fresh, self._fresh = self._fresh, []
        if fresh and not self._run.finished:
            self._say(self._greeted, tuple(sorted(fresh)))

    def _say(self, to: Iterable[PeerId], indices: tuple[int, ...]) -> None:
        version = self._run.store.version
        if version is None:
            return
        have = ev.ParentHas(self._peer.own, indices)
        for peer in self._run.world.network.have(self._peer, to, version.version, have):
            if peer in self._run.core.parents.joined:
                self._run.post(ev.ParentGone(peer))


def bitmap(info: VersionInfo, data: bytes) -> PieceSet:
    """RemoteProtocolError if it does not fit."""
    try:
        return PieceSet.from_bytes(data, info.piece_count or 0)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from error
