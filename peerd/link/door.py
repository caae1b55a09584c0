"""Where strangers knock: listeners, and the gate that says whose handshake may begin.

Always: an accepted connection is closed, or handed to `greet` within the gate's limits; `greet`
is cancelled when the gate drops it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from peerd.link.gate import Begin, Drop, Gate, GateLimits, Order, Ticket
from peerd.link.wire import Listener, Wire

log = logging.getLogger(__name__)


class _Visitor:
    def __init__(self) -> None:
        self.begin = trio.Event()
        self.scope = trio.CancelScope()


class Door:
    """`greet` owns the wire it is given until it returns True: then somebody else does."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        limits: GateLimits,
        greet: Callable[[Wire], Awaitable[bool]],
    ) -> None:
        self.gate = Gate(limits)
        self._listeners = listeners
        self._greet = greet
        self._visitors: dict[Ticket, _Visitor] = {}
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until cancelled; listeners are closed then."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._keep_time)
                for listener in self._listeners:
                    self._nursery.start_soon(self._listen, listener)
        finally:
            self._nursery = None

    def knock(self, wire: Wire) -> None:
        """Somebody is there, by whichever way. The wire is ours to close from here on."""
        if self._nursery is None:
            return
        ticket, visitor = self.gate.issue(), _Visitor()
        self._visitors[ticket] = visitor
        self._obey(self.gate.arrived(ticket, wire.remote, trio.current_time()))
        self._nursery.start_soon(self._receive, ticket, visitor, wire)

    async def _listen(self, listener: Listener) -> None:
        try:
            while True:
                self.knock(await listener.accept())
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await listener.aclose()

    async def _receive(self, ticket: Ticket, visitor: _Visitor, wire: Wire) -> None:
        taken = False
        try:
            with visitor.scope:
                await visitor.begin.wait()
                taken = await self._greet(wire)
        finally:
            del self._visitors[ticket]
            self._obey(self.gate.finished(ticket, trio.current_time()))
            if not taken:
                with trio.CancelScope(shield=True), trio.move_on_after(1):
                    await wire.aclose()

    async def _keep_time(self) -> None:
        while True:
            self._changed = trio.Event()
            with trio.move_on_at(self.gate.deadline()):
                await self._changed.wait()
            self._obey(self.gate.expire(trio.current_time()))

    def _obey(self, orders: Sequence[Order]) -> None:
        for order in orders:
            visitor = self._visitors.get(order.ticket)
            match order:
                case Begin() if visitor is not None:
                    visitor.begin.set()
                case Drop(why=why) if visitor is not None:
                    log.debug("a connection was dropped: %s", why)
                    visitor.scope.cancel()
                case _:
                    pass
        self._changed.set()
