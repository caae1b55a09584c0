"""Links to other peers: listens, dials, keeps one link a peer, and carries pieces and messages.

Always: between two peers one link is in use; `link_up` and `link_down` come in pairs, and what was
sent before a `link_down` may be lost; strangers cost no more than gate.py allows; links are
bounded in number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio
from msgspec import structs

from peerd.errors import AdmissionRefused, PeerdError, PeerUnreachable
from peerd.ids import WIRE_VERSION, PeerId, PieceIndex, VersionId
from peerd.link.buffers import BufferPool
from peerd.link.carrying import Carrying, no_chains
from peerd.link.circuit_wire import CircuitWire
from peerd.link.circuits import Circuits
from peerd.link.counters import Counters
from peerd.link.dialler import Dialler
from peerd.link.dials import Ours, Standing, Verdict, judge
from peerd.link.door import Door
from peerd.link.handshake import Introducer, Introduction
from peerd.link.link import Link, Shared
from peerd.link.messages import Hello, Message, Refused
from peerd.link.outgoing import Offload
from peerd.link.ports import AddressBook, Admission, LinkHandler, PieceSource, Prover
from peerd.link.settings import LinkSettings, LinkState
from peerd.link.wire import TcpTransport, Transport, Wire
from peerd.link.workers import opening_threads, sealing_threads
from peerd.manifest import Attestation
from peerd.rate import TokenBucket

__all__ = ["LinkService", "LinkSettings", "LinkState"]

log = logging.getLogger(__name__)

LOOPBACK_MAX: Final = 4096
"""Messages to oneself that wait. Guess: beyond it the daemon is overloaded anyway."""


class LinkService:
    """The `Links` of swarm/ports.py. `run` it, then use it; `set_handler` comes before."""

    def __init__(
        self,
        own: PeerId,
        boot: bytes,
        prover: Prover,
        addresses: AddressBook,
        admission: Admission,
        settings: LinkSettings | None = None,
        *,
        transport: Transport | None = None,
        offload_out: Offload | None = None,
        offload_in: Offload | None = None,
        download: TokenBucket | None = None,
    ) -> None:
        self.own = own
        self.settings = settings or LinkSettings()
        self.counters = Counters()
        # Shared with whoever else reads for this peer, if there is one.
        self._download = download or TokenBucket(self.settings.download_limit_bytes_s)
        self.listening: tuple[str, ...] = ()
        self._boot = boot
        self._transport = transport or TcpTransport()
        self._pool = BufferPool()
        self._introducer = Introducer(self._hello, prover, admission, self._pool.lend)
        self._threads = sealing_threads(), opening_threads()
        self._offload_out = offload_out or self._threads[0]
        self._offload_in = offload_in or self._threads[1]
        self._shared: Shared | None = None
        self._relayed: Shared | None = None
        self._door: Door | None = None
        self._hosts: trio.Nursery | None = None
        self._links: dict[PeerId, Link] = {}
        self._accepting: dict[PeerId, trio.Event] = {}
        circuits = Circuits(own, self.settings.circuits)
        self._carrying = Carrying(circuits, self._links.get, self._offered)
        self._dialler = Dialler(self, addresses, self._transport, self._introducer, self._carrying)
        self._to_self, self._from_self = trio.open_memory_channel[Message](LOOPBACK_MAX)

    def set_handler(self, handler: LinkHandler) -> None:
        """Whom to tell; once, before `run`."""
        settings = self.settings
        self._shared = Shared(
            handler,
            self._pool,
            TokenBucket(settings.upload_limit_bytes_s),
            self._download,
            self._offload_out,
            self._offload_in,
            self.counters,
            settings.limits,
            self._carrying.heard,
        )
        # What a relayed link sends and takes is limited, once, by the link that carries it.
        self._relayed = structs.replace(
            self._shared, upload=TokenBucket(None), download=TokenBucket(None), carry=no_chains
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; `listening` is known once it has started. OSError: cannot listen.

        A cancellation ends listening and dialling at once; links say why they end, for at most
        `closing_s`, and are down when this returns.
        """
        listeners = [
            each
            for address in self.settings.listen
            for each in await self._transport.listen(address)
        ]
        self.listening = tuple(each.address for each in listeners)
        self._door = Door(listeners, self.settings.gate, self._greet)
        async with trio.open_nursery() as nursery:
            links_scope = trio.CancelScope(shield=True)
            stop = await nursery.start(self._host_links, links_scope)
            try:
                self._dialler.nursery = nursery
                nursery.start_soon(self._door.run)
                nursery.start_soon(self._speak_to_self)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._dialler.nursery = self._hosts = None
                links_scope.deadline = trio.current_time() + self.settings.limits.closing_s + 1
                for link in list(self._links.values()):
                    self._drop(link, "stopping", "this peer is stopping")
                stop.set()

    # --- Links, for swarm and keeper

    async def connect(
        self, peer: PeerId, addresses: Sequence[str] = (), through: Sequence[PeerId] = ()
    ) -> None:
        """A link to `peer` is up when this returns; else PeerUnreachable. Dials are shared.

        Where it cannot be dialled it is asked for through a third peer: one of `through` first,
        whom the caller believes to be linked with it, else those that were active last.
        """
        await self._dialler.connect(peer, addresses, through)

    def connected(self, peer: PeerId) -> bool:
        if peer == self.own:
            return True
        link = self._links.get(peer)
        return link is not None and link.up

    def send(self, peer: PeerId, message: Message) -> None:
        """Queue it; PeerUnreachable where no link is up. To oneself it comes like any other."""
        if peer != self.own:
            self._link(peer).send(message)
            return
        try:
            self._to_self.send_nowait(message)
        except trio.WouldBlock:
            raise PeerUnreachable("this peer has too many messages to itself waiting") from None

    async def send_piece(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        attestation: Attestation,
        source: PieceSource,
    ) -> None:
        """Return once the last frame is with the kernel; `source` is not used after that.

        PeerUnreachable if the link ends before; OSError as `source` raises it.
        """
        await self._link(peer).send_piece(version, index, size_bytes, attestation, source)

    def piece_bytes_sent(self) -> int:
        return self.counters.piece_bytes_out

    def least_round_trip_s(self, peer: PeerId) -> float | None:
        """What the network alone takes: the least that its link has seen."""
        link = self._links.get(peer)
        return link.least_round_trip_s if link is not None else None

    def silent_s(self, peer: PeerId) -> float:
        """How long nothing has come over its link, not even an answer to a ping; 0 without one."""
        link = self._links.get(peer)
        return link.silent_s if link is not None else 0.0

    def late_s(self, peer: PeerId) -> float:
        """How long the last ping's answer took, or has been missing; 0 without a link."""
        link = self._links.get(peer)
        return link.late_s if link is not None else 0.0

    async def close(self, peer: PeerId, code: str, words: str) -> None:
        """Tell it why and end the link; returns when it has ended (soon)."""
        link = self._links.get(peer)
        if link is not None:
            self._drop(link, code, words)
            await link.ended.wait()

    # --- for status, metrics and membership

    def links(self) -> list[LinkState]:
        now = trio.current_time()
        return [
            LinkState(
                peer,
                at.remote,
                at.dialled,
                now - at.opened_at,
                at.round_trip_s,
                at.rate_bytes_s,
                at.relay,
            )
            for peer, at in self._links.items()
        ]

    def hello(self, peer: PeerId) -> Hello | None:
        """What a linked peer said of itself: its boot, agent and addresses."""
        link = self._links.get(peer)
        return link.hello if link is not None else None

    # --- one link a peer

    def adopt(self, wire: Wire, introduction: Introduction, relay: PeerId | None) -> None:
        """What was introduced is the link to its peer from here on."""
        assert self._shared is not None
        assert self._relayed is not None
        if self._hosts is None:
            raise PeerUnreachable("this peer is stopping")
        link = Link(wire, introduction, self._relayed if relay else self._shared, relay)
        old = self._links.get(link.peer)
        if old is not None:
            self._drop(old, "replaced", "a newer link took its place")
        self._links[link.peer] = link
        if relay is None:
            self._carrying.link_up(link.peer)
        how = "dialled" if link.dialled else "accepted"
        log.info("link to %s is up (%s%s)", link.peer, how, f", {wire.remote}" if relay else "")
        self._shared.handler.link_up(link.peer)
        self._hosts.start_soon(self._keep, link)
        dial = self._dialler.under_way(link.peer)
        if dial is not None and not link.dialled:
            dial.scope.cancel()

    async def _keep(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            if self._links.get(link.peer) is link and link.relay is None:
                self._dialler.ended(link.peer)
            self._down(link)

    def _drop(self, link: Link, code: str, words: str) -> None:
        link.close(code, words)
        self._down(link)

    def _down(self, link: Link) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            log.info("link to %s is down: %s", link.peer, link.words)
            if link.relay is None:
                self._carrying.link_down(link.peer)
            assert self._shared is not None
            self._shared.handler.link_down(link.peer)

    def _link(self, peer: PeerId) -> Link:
        link = self._links.get(peer)
        if link is None:
            raise PeerUnreachable(f"there is no link to {peer}")
        return link

    def no_room(self, peer: PeerId) -> str:
        """Why one more peer may not have a link; the one idle for longest yields."""
        links_max = self.settings.links_max
        if peer in self._links or len(self._links) < links_max:
            return ""
        idlest = min(self._links.values(), key=lambda link: link.active_at)
        if trio.current_time() - idlest.active_at < self.settings.evict_after_s:
            return f"all {links_max} links in use"
        self._drop(idlest, "idle", "its place was needed for another peer")
        return ""

    def relays(self) -> list[PeerId]:
        """Peers with a direct link, the last active first."""
        direct = [link for link in self._links.values() if link.up and link.relay is None]
        return [link.peer for link in sorted(direct, key=lambda link: -link.active_at)]

    def arriving(self, peer: PeerId) -> trio.Event | None:
        """Set when the link that this peer is dialling to us is up, or is not to be."""
        return self._accepting.get(peer)

    # --- those who dial us

    def _offered(self, wire: Wire) -> None:
        if self._door is not None:
            self._door.knock(wire)

    async def _greet(self, wire: Wire) -> bool:
        accepted: list[PeerId] = []
        relay = wire.relay if isinstance(wire, CircuitWire) else None

        async def decide(peer: PeerId, hello: Hello) -> Refused | None:
            refused = await self._decide(peer, hello, relayed=relay is not None)
            if refused is None:
                accepted.append(peer)
                self._accepting.setdefault(peer, trio.Event())
            return refused

        try:
            introduction = await self._introducer.inbound(wire, decide)
            self.adopt(wire, introduction, relay)
        except (PeerdError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.debug("no link with %s: %s", wire.remote, error)
            return False
        finally:
            for peer in accepted:
                event = self._accepting.pop(peer, None)
                if event is not None:
                    event.set()
        return True

    async def _decide(self, peer: PeerId, hello: Hello, *, relayed: bool) -> Refused | None:
        while True:
            dial, link = self._dialler.under_way(peer), self._links.get(peer)
            standing = None
            if link is not None and link.up:
                age_s = trio.current_time() - link.opened_at
                standing = Standing(
                    link.dialled, age_s, link.hello.boot, relayed=link.relay is not None
                )
            ours = Ours(dial.relayed) if dial is not None and dial.committed else None
            verdict = judge(
                self.own, peer, hello.boot, committed=ours, standing=standing, relayed=relayed
            )
            match verdict:
                case Verdict.AWAIT:
                    assert dial is not None
                    await dial.settled.wait()
                case Verdict.REFUSE:
                    return Refused("duplicate", "the two dialled each other; the other link stays")
                case Verdict.ACCEPT:
                    no_room = self.no_room(peer)
                    return Refused(AdmissionRefused.code, f"it has {no_room}") if no_room else None

    # --- tasks

    async def _host_links(
        self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[trio.Event]
    ) -> None:
        stop = trio.Event()
        with scope:
            async with trio.open_nursery() as self._hosts:
                task_status.started(stop)
                await stop.wait()
        for threads in self._threads:
            threads.close()

    async def _speak_to_self(self) -> None:
        assert self._shared is not None
        async for message in self._from_self:
            self._shared.handler.message_arrived(self.own, message)

    def _hello(self) -> Hello:
        settings = self.settings
        listens = settings.announce or self.listening
        return Hello(WIRE_VERSION, settings.cluster, self._boot, settings.agent, listens[:8])
