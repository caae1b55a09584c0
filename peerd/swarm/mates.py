"""The other peers of one swarm: who was greeted, who is in it, what is said to them.

Always: a peer is told Join once for each link and version, and again when it asks; every HAVE after
it goes to all who were told Join and lack the piece, and to whom it came from, in one message for
what came within 5 ms; of what was read here some hear before the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

from peerd.errors import PeerdError, PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.manifest import VersionInfo
from peerd.pieces import PieceSet
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.ports import StoredVersion
from peerd.swarm.surroundings import Surroundings

HAVE_COALESCE_S: Final = 0.005
"""HAVE goes out in a frame each 5 ms at most (design.md, section 4.5)."""
HAVE_MAX: Final = 4096
"""Indices in one HAVE (messages.Indices)."""
JOIN_WAIT_S: Final = 5.0
"""A peer that was connected to but does not join within this is not in the swarm."""
JOIN_AGAIN_S: Final = 1.0
"""A Join over the same link is answered again after so long: its sender asks what there is here.
Two would answer each other's answers for ever. Guess: many round trips."""
EARLY_JOINS_MAX: Final = 64
"""Joins kept until the version is known here too."""
MATES_NAMED: Final = 8
"""Parents named to one who knows too few. Guess."""

Said = msg.Have | msg.Reject | msg.Depart | msg.MatesAsk | msg.Mates
"""What peers that were greeted say."""


class Host(Protocol):
    """What it needs from the run."""

    core: Download
    stored: StoredVersion | None
    keeper: PeerId | None

    def post(self, event: ev.Event) -> None: ...
    def note(self, words: str) -> None: ...


class Mates:
    """The peers of one run's swarm."""

    def __init__(self, run: Host, near: Surroundings) -> None:
        self._run, self._near = run, near
        self._greeted: dict[PeerId, float] = {}
        self._early: dict[PeerId, msg.Join] = {}
        self._fresh: dict[int, PeerId | None] = {}
        self._asked: PeerId | None = None

    def version_opened(self) -> None:
        """All is said anew; who joined before the version was known here is in."""
        self._greeted.clear()
        early, self._early = self._early, {}
        for peer, join in early.items():
            self.joined(peer, join)

    def joined(self, peer: PeerId, join: msg.Join) -> None:
        """RemoteProtocolError where the bitmap does not fit."""
        stored = self._run.stored
        if stored is None or join.version.version != stored.info.version:
            if len(self._early) < EARLY_JOINS_MAX:
                self._early[peer] = join
            return
        have = bitmap(join.version, join.have)
        if self._run.core.parents.refuses(peer, join.few, join.zone):
            self.send(peer, msg.Depart(stored.info.version, True))
            return
        if trio.current_time() - self._greeted.get(peer, 0.0) >= JOIN_AGAIN_S:
            self._greeted.pop(peer, None)  # It asks again what there is here.
        self.greet(peer)
        round_trip_s = self._near.links.least_round_trip_s(peer) or 0.0
        self._run.post(ev.ParentJoined(peer, have, join.zone, round_trip_s))

    def link_down(self, peer: PeerId) -> None:
        self._greeted.pop(peer, None)
        self._early.pop(peer, None)
        parents = self._run.core.parents
        if peer in parents.joined or peer in parents.connecting:
            self._run.post(ev.ParentGone(peer))

    def greet(self, peer: PeerId) -> None:
        stored = self._run.stored
        if stored is not None and peer not in self._greeted:
            self._greeted[peer] = trio.current_time()
            few = self._run.core.parents.few
            self.send(peer, msg.Join(stored.info, stored.held.to_bytes(), self._near.zone, few))

    def says(self, peer: PeerId, message: Said) -> None:
        stored = self._run.stored
        if stored is None or message.version != stored.info.version:
            self._says_early(peer, message)
            return
        match message:
            case msg.Have(indices=indices):
                self._run.post(ev.ParentHas(peer, indices))
            case msg.Reject(version=version, indices=indices):
                self._near.inbound.forget(peer, version, indices)
                self._run.post(ev.PieceRejected(peer, indices))
            case msg.Depart(full=full):
                self._greeted.pop(peer, None)
                self._run.post(ev.ParentFull(peer) if full else ev.ParentGone(peer))
            case msg.MatesAsk(version=version):
                self.send(peer, msg.Mates(version, self._named(peer)))
            case msg.Mates(peers=peers):
                if peer == self._asked:  # Whom to dial is said to who asks, once.
                    self._asked = None
                    self._run.post(ev.PeersNamed(peers))

    def ask(self, peer: PeerId, version: VersionId) -> None:
        """Whom it knows, whom we might dial."""
        self._asked = peer
        self.send(peer, msg.MatesAsk(version))

    def left(self, peer: PeerId, words: msg.Depart) -> None:
        """Nothing more is said to it."""
        self._greeted.pop(peer, None)
        self.send(peer, words)

    def _named(self, asker: PeerId) -> tuple[msg.RosterPeer, ...]:
        """Some parents, with what the keeper said of them."""
        parents = self._run.core.parents
        known = [parents.known[x] for x in parents.joined if x in parents.known and x != asker]
        return tuple(self._near.rng.sample(known, min(MATES_NAMED, len(known))))

    def _says_early(self, peer: PeerId, message: Said) -> None:
        """About a version that is still being opened here: what it says belongs to its Join."""
        join = self._early.get(peer)
        if join is None or join.version.version != message.version:
            return
        match message:
            case msg.Have(indices=indices):
                have = bitmap(join.version, join.have)
                if join.version.piece_count is None:
                    have.grow(max(indices, default=-1) + 1)
                for index in indices:
                    if index < have.count:
                        have.add(index)
                self._early[peer] = msg.Join(join.version, have.to_bytes(), join.zone, join.few)
            case msg.Depart():
                del self._early[peer]

    def send(self, peer: PeerId, message: Message) -> None:
        try:
            self._near.links.send(peer, message)
        except PeerUnreachable:
            if peer in self._run.core.parents.joined:
                self._run.post(ev.ParentGone(peer))

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Opens a link and greets; ParentGone unless the peer joins."""
        # Both are on the keeper's roster, so it is linked with both: the natural relay.
        through = (self._run.keeper,) if self._run.keeper is not None else ()
        try:
            await self._near.links.connect(peer, addresses, through)
        except PeerdError as error:
            self._run.note(f"no link to {peer}: {error}")
            self._run.post(ev.ParentGone(peer))
            return
        self.greet(peer)
        await trio.sleep(JOIN_WAIT_S)
        if peer in self._run.core.parents.connecting:
            self._greeted.pop(peer, None)
            self._run.post(ev.ParentGone(peer))

    def join_again(self) -> None:
        """Ask all parents what they have: whoever is told Join answers with its own."""
        for peer in tuple(self._run.core.parents.joined):
            self._greeted.pop(peer, None)
            self.greet(peer)

    def tell(self, index: int, peers: tuple[PeerId, ...]) -> None:
        """HAVE to these alone: the others hear of it later (first_copies.py)."""
        assert self._run.stored is not None
        version = self._run.stored.info.version
        for peer in peers:
            if peer in self._greeted:
                self.send(peer, msg.Have(version, (index,)))

    def announce(self, index: int, source: PeerId | None, spawn: Callable[..., None]) -> None:
        if not self._fresh:
            spawn(self._flush)
        self._fresh[index] = source

    async def _flush(self) -> None:
        await trio.sleep(HAVE_COALESCE_S)
        self.flush()

    def flush(self, also: Iterable[int] = ()) -> None:
        """Say now what was gathered; the last of it when the run ends."""
        fresh, self._fresh = {**dict.fromkeys(also), **self._fresh}, {}
        if self._run.stored is None:
            return
        version, joined = self._run.stored.info.version, self._run.core.parents.joined
        for peer in tuple(self._greeted):
            parent = joined.get(peer)
            news = sorted(
                index for index, source in fresh.items()
                if parent is None or index not in parent.have or source == peer
            )  # fmt: skip
            for start in range(0, len(news), HAVE_MAX):
                self.send(peer, msg.Have(version, tuple(news[start : start + HAVE_MAX])))


def bitmap(info: VersionInfo, data: bytes) -> PieceSet:
    """A peer's bitmap, of its version as it knows it; RemoteProtocolError if it does not fit.

    Of content of unknown length the bitmap is as long as what the peer has.
    """
    count = info.piece_count
    try:
        return PieceSet.from_bytes(data, len(data) * 8 if count is None else count)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from error
