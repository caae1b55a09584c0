"""Reaching a peer that has no link with us: at its addresses, else through a third peer.

Always: there is one dial to a peer at a time, which all who want it share; a dial is bounded in
addresses, relays and time; while our Hello may already have been accepted, `committed` says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from peerd.errors import PeerdError, PeerUnreachable
from peerd.ids import PeerId
from peerd.link.carrying import Carrying
from peerd.link.handshake import Introducer, Introduction
from peerd.link.ports import AddressBook
from peerd.link.wire import DialRefused, Transport, Wire

DIAL_MAX_S: Final = 5.0
"""For each address or relay, handshake included (the issue's figure)."""
DIAL_ADDRESSES_MAX: Final = 8
RELAYS_MAX: Final = 3
"""Guess: each that does not know the peer costs a round trip."""
GONE_S: Final = 5.0
"""Who was linked directly until so long ago, and refuses now, has most likely ended: one dial asks
no third peer. Three cost 0.3 s in a busy lab, each time a keeper is killed. Guess: a restart."""
ENDED_MAX: Final = 256
"""Ended links that are remembered. Guess."""
DIALS_AT_ONCE_MAX: Final = 64
"""Guess: a dial costs some 3 ms of processor time."""


class Host(Protocol):
    """What dialling needs of the links there are."""

    def connected(self, peer: PeerId) -> bool: ...

    def no_room(self, peer: PeerId) -> str:
        """Why one more peer may not have a link; "" if it may."""
        ...

    def relays(self) -> Sequence[PeerId]:
        """Peers with a direct link, the last active first."""
        ...

    def arriving(self, peer: PeerId) -> trio.Event | None:
        """Set when the link that this peer is dialling to us is up, or is not to be."""
        ...

    def adopt(self, wire: Wire, introduction: Introduction, relay: PeerId | None) -> None: ...


class Dial:
    """One attempt to reach a peer, whoever asked for it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.committed = False
        self.relayed = False
        self.settled = trio.Event()
        self.words = ""
        self.tried: set[str] = set()
        self.refused = 0


class Dialler:
    def __init__(
        self,
        host: Host,
        addresses: AddressBook,
        transport: Transport,
        introducer: Introducer,
        carrying: Carrying,
    ) -> None:
        self._host, self._addresses = host, addresses
        self._transport, self._introducer, self._carrying = transport, introducer, carrying
        self._limiter = trio.CapacityLimiter(DIALS_AT_ONCE_MAX)
        self._dials: dict[PeerId, Dial] = {}
        self._ended: dict[PeerId, float] = {}
        self.nursery: trio.Nursery | None = None

    def under_way(self, peer: PeerId) -> Dial | None:
        return self._dials.get(peer)

    def ended(self, peer: PeerId) -> None:
        """The direct link to it ended, and not by this side's will."""
        self._ended.pop(peer, None)
        self._ended[peer] = trio.current_time()
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    async def connect(
        self, peer: PeerId, addresses: Sequence[str], through: Sequence[PeerId]
    ) -> None:
        words = ""
        for _ in range(2):  # a dial that others began may not know our addresses and relays
            if self._host.connected(peer):
                return
            dial = self._dials.get(peer) or self._begin(peer, addresses, through)
            await dial.settled.wait()
            words = dial.words
            if dial.tried.issuperset((*addresses, *through)):
                break
        if not self._host.connected(peer):
            raise PeerUnreachable(f"no link to {peer}: {words or 'it was closed again'}")

    def _begin(self, peer: PeerId, addresses: Sequence[str], through: Sequence[PeerId]) -> Dial:
        if self.nursery is None:
            raise PeerUnreachable(f"no link to {peer}: this peer is not running, or stopping")
        known = dict.fromkeys((*addresses, *self._addresses.link_addresses(peer)))
        dial = self._dials[peer] = Dial()
        dial.tried.update((*addresses, *through))
        self.nursery.start_soon(self._run, peer, list(known)[:DIAL_ADDRESSES_MAX], through, dial)
        return dial

    async def _run(
        self, peer: PeerId, addresses: Sequence[str], through: Sequence[PeerId], dial: Dial
    ) -> None:
        try:
            with dial.scope:
                async with self._limiter:
                    dial.words = await self._try_all(peer, addresses, through, dial)
        finally:
            del self._dials[peer]
            dial.settled.set()

    async def _try_all(
        self, peer: PeerId, addresses: Sequence[str], through: Sequence[PeerId], dial: Dial
    ) -> str:
        """Why there is no link, "" if there is one."""
        no_room = self._host.no_room(peer)
        if no_room:
            return f"this peer has {no_room}"
        failures = [] if addresses else ["no address of it is known"]
        for address in addresses:
            failure = await self._attempt(peer, self._transport.dial, address, None, dial)
            if not failure:
                return ""
            failures.append(f"{address}: {failure}")
        if self._ended_lately(peer) and 0 < len(addresses) == dial.refused:
            return "; ".join([*failures, "it has just ended"])
        dial.relayed = True
        relays = self._relays(peer, through)
        for relay in relays:
            failure = await self._attempt(
                peer, lambda at: self._carrying.open(PeerId(at), peer), relay, relay, dial
            )
            if not failure:
                return ""
            failures.append(f"through {relay}: {failure}")
        if not relays:
            failures.append("there is no third peer to go through")
        return "; ".join(failures)

    def _ended_lately(self, peer: PeerId) -> bool:
        """Once for each link that ended: it may be there all the same, behind a wall that refuses,
        and whoever is told so dials again."""
        ended_at = self._ended.pop(peer, None)
        return ended_at is not None and trio.current_time() - ended_at <= GONE_S

    def _relays(self, peer: PeerId, through: Sequence[PeerId]) -> list[PeerId]:
        direct = self._host.relays()
        wanted = [relay for relay in through if relay in direct]
        return [each for each in dict.fromkeys((*wanted, *direct)) if each != peer][:RELAYS_MAX]

    async def _attempt(
        self,
        peer: PeerId,
        open_wire: Callable[[str], Awaitable[Wire]],
        at: str,
        relay: PeerId | None,
        dial: Dial,
    ) -> str:
        """Why this way gave no link, "" if there is one."""
        if self._host.connected(peer):
            return ""
        failure = "did not answer in time"
        with trio.move_on_after(DIAL_MAX_S):
            failure = await self._try(peer, open_wire, at, relay, dial)
        dial.committed = False
        return failure

    async def _try(
        self,
        peer: PeerId,
        open_wire: Callable[[str], Awaitable[Wire]],
        at: str,
        relay: PeerId | None,
        dial: Dial,
    ) -> str:
        """Why this way gave no link, "" if it did, or another came up meanwhile."""
        host = self._host

        def commit() -> bool:
            dial.committed = not host.connected(peer) and host.arriving(peer) is None
            return dial.committed

        wire, adopted = None, False
        try:
            wire = await open_wire(at)
            introduction = await self._introducer.outbound(wire, peer, commit)
            if introduction is not None:
                host.adopt(wire, introduction, relay)
                adopted = True
            else:
                arriving = host.arriving(peer)
                if arriving is not None:
                    await arriving.wait()
            return "" if host.connected(peer) else "its own dial to us failed"
        except DialRefused as error:
            dial.refused += 1
            return str(error)
        except (PeerdError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return str(error)
        finally:
            if wire is not None and not adopted:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await wire.aclose()
