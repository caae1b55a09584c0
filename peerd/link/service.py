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

from peerd.errors import AdmissionRefused, PeerdError, PeerUnreachable
from peerd.ids import WIRE_VERSION, PeerId, PieceIndex, VersionId
from peerd.link.buffers import BufferPool
from peerd.link.counters import Counters
from peerd.link.dials import Standing, Verdict, judge
from peerd.link.door import Door
from peerd.link.handshake import Introducer
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

DIAL_MAX_S: Final = 5.0
"""For each address, handshake included (the issue's figure)."""
DIAL_ADDRESSES_MAX: Final = 8
DIALS_AT_ONCE_MAX: Final = 64
"""Guess: a dial costs some 3 ms of processor time."""
LOOPBACK_MAX: Final = 4096
"""Messages to oneself that wait. Guess: beyond it the daemon is overloaded anyway."""


class _Dial:
    """One attempt to reach a peer, whoever asked for it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.committed = False
        self.settled = trio.Event()
        self.words = ""
        self.tried: set[str] = set()


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
        self._addresses = addresses
        self._transport = transport or TcpTransport()
        self._pool = BufferPool()
        self._introducer = Introducer(self._hello, prover, admission, self._pool.lend)
        self._threads = sealing_threads(), opening_threads()
        self._offload_out = offload_out or self._threads[0]
        self._offload_in = offload_in or self._threads[1]
        self._shared: Shared | None = None
        self._door: Door | None = None
        self._hosts: trio.Nursery | None = None
        self._dialling: trio.Nursery | None = None
        self._links: dict[PeerId, Link] = {}
        self._dials: dict[PeerId, _Dial] = {}
        self._accepting: dict[PeerId, trio.Event] = {}
        self._dial_limiter = trio.CapacityLimiter(DIALS_AT_ONCE_MAX)
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
                self._dialling = nursery
                nursery.start_soon(self._door.run)
                nursery.start_soon(self._speak_to_self)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._dialling = self._hosts = None
                links_scope.deadline = trio.current_time() + self.settings.limits.closing_s + 1
                for link in list(self._links.values()):
                    self._drop(link, "stopping", "this peer is stopping")
                stop.set()

    # --- Links, for swarm and keeper

    async def connect(self, peer: PeerId, addresses: Sequence[str] = ()) -> None:
        """A link to `peer` is up when this returns; else PeerUnreachable. Dials are shared."""
        words = ""
        for _ in range(2):  # a dial that others began may not know our addresses
            if self.connected(peer):
                return
            dial = self._dials.get(peer) or self._begin_dial(peer, addresses)
            await dial.settled.wait()
            words = dial.words
            if dial.tried.issuperset(addresses):
                break
        if not self.connected(peer):
            raise PeerUnreachable(f"no link to {peer}: {words or 'it was closed again'}")

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

    def round_trip_s(self, peer: PeerId) -> float | None:
        link = self._links.get(peer)
        return link.round_trip_s if link is not None else None

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
                peer, at.remote, at.dialled, now - at.opened_at, at.round_trip_s, at.rate_bytes_s
            )
            for peer, at in self._links.items()
        ]

    def hello(self, peer: PeerId) -> Hello | None:
        """What a linked peer said of itself: its boot, agent and addresses."""
        link = self._links.get(peer)
        return link.hello if link is not None else None

    # --- one link a peer

    def _adopt(self, link: Link) -> None:
        """It is the link to its peer from here on."""
        assert self._shared is not None
        if self._hosts is None:
            raise PeerUnreachable("this peer is stopping")
        old = self._links.get(link.peer)
        if old is not None:
            self._drop(old, "replaced", "a newer link took its place")
        self._links[link.peer] = link
        log.info("link to %s is up (%s)", link.peer, "dialled" if link.dialled else "accepted")
        self._shared.handler.link_up(link.peer)
        self._hosts.start_soon(self._keep, link)
        dial = self._dials.get(link.peer)
        if dial is not None and not link.dialled:
            dial.scope.cancel()

    async def _keep(self, link: Link) -> None:
        try:
            await link.run()
        finally:
            self._down(link)

    def _drop(self, link: Link, code: str, words: str) -> None:
        link.close(code, words)
        self._down(link)

    def _down(self, link: Link) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            log.info("link to %s is down: %s", link.peer, link.words)
            assert self._shared is not None
            self._shared.handler.link_down(link.peer)

    def _link(self, peer: PeerId) -> Link:
        link = self._links.get(peer)
        if link is None:
            raise PeerUnreachable(f"there is no link to {peer}")
        return link

    def _make_room(self, peer: PeerId) -> bool:
        """Whether one more peer may have a link; the one idle for longest yields."""
        if peer in self._links or len(self._links) < self.settings.links_max:
            return True
        idlest = min(self._links.values(), key=lambda link: link.active_at)
        if trio.current_time() - idlest.active_at < self.settings.evict_after_s:
            return False
        self._drop(idlest, "idle", "its place was needed for another peer")
        return True

    # --- those who dial us

    async def _greet(self, wire: Wire) -> bool:
        accepted: list[PeerId] = []

        async def decide(peer: PeerId, hello: Hello) -> Refused | None:
            refused = await self._decide(peer, hello)
            if refused is None:
                accepted.append(peer)
                self._accepting.setdefault(peer, trio.Event())
            return refused

        try:
            introduction = await self._introducer.inbound(wire, decide)
            assert self._shared is not None
            self._adopt(Link(wire, introduction, self._shared))
        except (PeerdError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.debug("no link with %s: %s", wire.remote, error)
            return False
        finally:
            for peer in accepted:
                event = self._accepting.pop(peer, None)
                if event is not None:
                    event.set()
        return True

    async def _decide(self, peer: PeerId, hello: Hello) -> Refused | None:
        while True:
            dial, link = self._dials.get(peer), self._links.get(peer)
            standing = None
            if link is not None and link.up:
                age_s = trio.current_time() - link.opened_at
                standing = Standing(link.dialled, age_s, link.hello.boot)
            committed = dial is not None and dial.committed
            match judge(self.own, peer, hello.boot, committed=committed, standing=standing):
                case Verdict.AWAIT:
                    assert dial is not None
                    await dial.settled.wait()
                case Verdict.REFUSE:
                    return Refused("duplicate", "the two dialled each other; the other link stays")
                case Verdict.ACCEPT:
                    if self._make_room(peer):
                        return None
                    return Refused(
                        AdmissionRefused.code, f"it has all {self.settings.links_max} links in use"
                    )

    # --- those we dial

    def _begin_dial(self, peer: PeerId, addresses: Sequence[str]) -> _Dial:
        if self._dialling is None:
            raise PeerUnreachable(f"no link to {peer}: this peer is not running, or stopping")
        known = dict.fromkeys((*addresses, *self._addresses.link_addresses(peer)))
        dial = self._dials[peer] = _Dial()
        dial.tried.update(addresses)
        self._dialling.start_soon(self._run_dial, peer, list(known)[:DIAL_ADDRESSES_MAX], dial)
        return dial

    async def _run_dial(self, peer: PeerId, addresses: Sequence[str], dial: _Dial) -> None:
        try:
            with dial.scope:
                async with self._dial_limiter:
                    dial.words = await self._try_all(peer, addresses, dial)
        finally:
            del self._dials[peer]
            dial.settled.set()

    async def _try_all(self, peer: PeerId, addresses: Sequence[str], dial: _Dial) -> str:
        """Why there is no link, "" if there is one."""
        if not addresses:
            return "no address of it is known"
        if not self._make_room(peer):
            return f"all {self.settings.links_max} links are in use"
        failures = []
        for address in addresses:
            if self.connected(peer):
                break
            failure = "did not answer in time"
            with trio.move_on_after(DIAL_MAX_S):
                failure = await self._try(peer, address, dial)
            dial.committed = False
            if not failure:
                break
            failures.append(f"{address}: {failure}")
        return "; ".join(failures)

    async def _try(self, peer: PeerId, address: str, dial: _Dial) -> str:
        """Why this address gave no link, "" if it did, or another came up meanwhile."""

        def commit() -> bool:
            dial.committed = not self.connected(peer) and peer not in self._accepting
            return dial.committed

        wire, adopted = None, False
        try:
            wire = await self._transport.dial(address)
            introduction = await self._introducer.outbound(wire, peer, commit)
            if introduction is not None:
                assert self._shared is not None
                self._adopt(Link(wire, introduction, self._shared))
                adopted = True
            elif peer in self._accepting:
                await self._accepting[peer].wait()
            return "" if self.connected(peer) else "its own dial to us failed"
        except (PeerdError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return str(error)
        finally:
            if wire is not None and not adopted:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await wire.aclose()

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
