"""From a connection to a neighbour and back: hello, one stream for each two, the end.

Always: a neighbour was admitted before anything was told to it, is of our cluster and speaks our
wire version; there is one stream to each; neighbour_up and neighbour_down come in pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio
from msgspec import Struct

from peerd.errors import IdentityCloned, PeerdError, PeerUnreachable, RemoteProtocolError
from peerd.ids import WIRE_VERSION, PeerId
from peerd.overlay import guard
from peerd.overlay import hello as wire
from peerd.overlay.hello import Duplicate, Hello, Kind
from peerd.overlay.host import OverlayHost
from peerd.overlay.identity import peer_id
from peerd.overlay.neighbour import FrameStream, Neighbour, Timing
from peerd.overlay.ports import Admission, Handler
from peerd.overlay.pubsub import MESHSUB, News

log = logging.getLogger(__name__)

STRANGERS = "/peerd/gossip/1"
"""Spoken where the cluster's own protocol is not: so that a refusal reaches the other in words."""
LINGER_S = 1.0
"""How long a refusal may take to be read, and a connection to close."""


class Quiet:
    """The handler until there is one."""

    def neighbour_up(self, peer: PeerId) -> None: ...
    def neighbour_down(self, peer: PeerId) -> None: ...
    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None: ...


class Own(Struct, frozen=True):
    """What this peer says of itself in a hello."""

    peer: PeerId
    cluster: str
    boot: bytes
    agent: str
    addresses: Callable[[], Sequence[str]]
    wire: int = WIRE_VERSION


class Sessions:
    """All neighbours, and those that may become one. Lives as long as the service."""

    def __init__(self, own: Own, admission: Admission, timing: Timing, news: News) -> None:
        self._own, self._admission, self._timing, self._news = own, admission, timing, news
        self.handler: Handler = Quiet()
        self.neighbours: dict[PeerId, Neighbour] = {}
        self.cloned = ""
        self.protocols = (f"/peerd-{own.cluster}/gossip/1", STRANGERS)
        self._carriers: dict[PeerId, Any] = {}
        self._greeting: set[Any] = set()
        self._changed = trio.Event()

    def greeted(self, connection: Any) -> bool:
        """Whether there is a neighbour on it, or a hello under way."""
        return connection in self._greeting or connection in self._carriers.values()

    async def appears(self, peer: PeerId) -> bool:
        """Whether the connection that crossed ours makes it a neighbour within LINGER_S."""
        with trio.move_on_after(LINGER_S):
            while peer not in self.neighbours:
                await self._changed.wait()
        return peer in self.neighbours

    async def leave(self) -> None:
        """Every neighbour goes down, also in a cancellation."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER_S):
            leaving = list(self.neighbours.values())
            for neighbour in leaving:
                neighbour.drop("this peer leaves")
            for neighbour in leaving:
                await neighbour.ended.wait()

    async def gate(self, stream: Any, protocol: str) -> bool:
        """gossipsub only on the connection of a neighbour: one whose hello may still be under way
        is waited for."""
        if not protocol.startswith(MESHSUB):
            return True
        with trio.move_on_after(self._timing.hello_s):
            while stream.swarm_conn not in self._carriers.values():
                await self._changed.wait()
        return stream.swarm_conn in self._carriers.values()

    async def answered(self, stream: Any) -> None:
        """An inbound gossip stream. Runs in a task of libp2p's, contained by guard."""
        connection = stream.swarm_conn
        peer = peer_id(connection.muxed_conn.peer_id)
        where = _where(connection)
        try:
            await self._session(peer, connection, stream, dial=None, where=where)
        except (PeerdError, Duplicate):
            return  # logged; nobody waits for it

    async def dialled(
        self,
        host: OverlayHost,
        peer: PeerId,
        connection: Any,
        dial: int,
        where: str,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """An outbound one. Until it has started, what it raises goes to `connect`."""
        self._greeting.add(connection)
        try:
            _, stream = await host.open_stream(connection, self.protocols)
            await self._session(
                peer, connection, stream, dial=dial, where=where, task_status=task_status
            )
        finally:
            self._greeting.discard(connection)
            await guard.close_together([connection], LINGER_S)

    async def _session(
        self,
        peer: PeerId,
        connection: Any,
        stream: Any,
        *,
        dial: int | None,
        where: str,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """A stream from hello to its end; the connection closes with it. `dial`: ours, or None."""
        frames = FrameStream(stream)
        self._greeting.add(connection)
        try:
            theirs = await self._greet(peer, frames, dial or 0, where)
            number = theirs.dial if dial is None else dial
            claim = wire.claim(
                self._own.peer, peer, dial is not None, number, theirs.boot, trio.current_time()
            )
            neighbour = Neighbour(peer, frames, claim, self._timing)
            await self._take_place(neighbour, frames)
            await self._be_neighbours(neighbour, connection, task_status)
        except (PeerdError, Duplicate) as error:
            log.info("no neighbour at %s (%s): %s", where, peer, error)
            raise
        finally:
            self._greeting.discard(connection)
            await guard.close_together([connection], LINGER_S)

    async def _greet(self, peer: PeerId, frames: FrameStream, dial: int, where: str) -> Hello:
        """Hello and welcome each way. What is raised here was said to the other side, or by it."""
        with trio.move_on_after(self._timing.hello_s):
            try:
                self._admission.admit(peer)
                ours = Hello(
                    self._own.wire,
                    self._own.cluster,
                    self._own.boot,
                    dial,
                    self._own.agent,
                    tuple(self._own.addresses())[:8],
                )
                await frames.send(wire.encode_hello(ours))
                body = await _expect(frames, Kind.HELLO, ours=peer == self._own.peer)
                theirs = wire.decode_hello(body, self._own.wire)
                wire.check_hello(theirs, self._own.cluster)
                self._check_identity(peer, theirs, where)
            except _RemoteRefusal as refusal:
                raise refusal.error from None
            except PeerdError as error:
                await _refuse(frames, error)
                raise
            await frames.send(wire.frame(Kind.WELCOME))
            try:
                await _expect(frames, Kind.WELCOME, ours=peer == self._own.peer)
            except _RemoteRefusal as refusal:
                raise refusal.error from None
            return theirs
        raise PeerUnreachable(f"{where} did not say hello within {self._timing.hello_s:.0f} s")

    def _check_identity(self, peer: PeerId, theirs: Hello, where: str) -> None:
        if peer != self._own.peer:
            return
        if theirs.boot == self._own.boot:
            raise PeerUnreachable(f"{where} is this daemon itself")
        other = ", ".join(theirs.addresses) or where
        self.cloned = (
            f"two daemons have the identity {peer}: one at {other} (met at {where}), one at "
            f"{', '.join(self._own.addresses())}; give one of them an empty data directory"
        )
        log.error("%s", self.cloned)
        raise IdentityCloned(self.cloned)

    async def _take_place(self, new: Neighbour, frames: FrameStream) -> None:
        """Makes room for the new stream, or raises Duplicate: the other side decides alike."""
        while (old := self.neighbours.get(new.peer)) is not None:
            if not wire.supersedes(new.claim, old.claim):
                error = Duplicate("another connection between the two was kept")
                await _refuse(frames, error)
                raise error
            old.drop("replaced by a newer connection")
            await old.ended.wait()

    async def _be_neighbours(
        self, neighbour: Neighbour, connection: Any, task_status: trio.TaskStatus[None]
    ) -> None:
        peer, handler = neighbour.peer, self.handler
        self.neighbours[peer], self._carriers[peer] = neighbour, connection
        self._changed.set()
        self._changed = trio.Event()
        log.info("neighbour %s is up, at %s", peer, _where(connection))
        try:
            task_status.started()
            handler.neighbour_up(peer)
            await self._news.neighbour_up(connection)
            await neighbour.run(handler.gossip_arrived)
        except Exception:
            # A bug in a handler of ours must cost this neighbour, not the host and all others.
            log.exception("the handler of neighbour %s failed; it is dropped", peer)
        finally:
            del self.neighbours[peer], self._carriers[peer]
            log.info("neighbour %s is down: %s", peer, neighbour.why or "stopped")
            try:
                handler.neighbour_down(peer)
            finally:
                neighbour.ended.set()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER_S):
                await self._news.neighbour_down(peer, connection)


class _RemoteRefusal(Exception):
    """The other side said no; nothing needs to be told to it."""

    def __init__(self, error: PeerdError | Duplicate) -> None:
        self.error = error


async def _expect(frames: FrameStream, wanted: Kind, *, ours: bool) -> bytes:
    """The body of the next frame, which is to be of that kind. `ours`: see wire.refusal."""
    kind, body = await frames.receive()
    if kind is Kind.REFUSED:
        raise _RemoteRefusal(wire.refusal(body, ours=ours))
    if kind is not wanted:
        raise RemoteProtocolError(f"{kind.name} where {wanted.name} was due")
    return body


async def _refuse(frames: FrameStream, error: PeerdError | Duplicate) -> None:
    """Says why, and lets it be read: closing a socket with unread bytes would destroy the words."""
    with trio.move_on_after(LINGER_S):
        try:
            await frames.send(wire.encode_refused(error))
            kind = None
            while kind is not Kind.REFUSED:
                kind, _ = await frames.receive()
        except PeerdError:
            pass


def _where(connection: Any) -> str:
    remote = connection.muxed_conn.get_remote_address()
    return "a closed connection" if remote is None else f"{remote[0]}:{remote[1]}"
