"""Content over http and https: asks, follows redirects, tries again, and resumes what was cut.

Always: a body's bytes are of one version, in order, and as many as the origin said; a cut is
resumed only where a validator, or the digest of the whole, can tell that what follows belongs to
what came before; every wait and every try is bounded (patience.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from random import Random

import httpcore
import trio

from peerd.errors import (
    OriginBusy,
    OriginCut,
    OriginProtocolError,
    OriginUnreachable,
    PeerdError,
)
from peerd.origin.answer import AskWhole, Plan, Want, judge
from peerd.origin.connections import Connections
from peerd.origin.exchange import Exchange
from peerd.origin.facts import OriginFacts
from peerd.origin.failures import FAILURES
from peerd.origin.patience import Patience, Transient
from peerd.origin.routes import Route, first_route, label
from peerd.origin.settings import OriginConfig
from peerd.task import Ask

REDIRECTS = (301, 302, 303, 307, 308)
logger = logging.getLogger(__name__)


class HttpOrigin:
    """Back-to-source for http and https URLs. `aclose` ends all idle connections."""

    def __init__(self, config: OriginConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._connections = Connections(config)

    @asynccontextmanager
    async def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AsyncIterator[HttpBody]:
        """See swarm.ports.Origin. Cancelled or left early, the connection is closed."""
        want = Want(first_byte, last_byte, expect, unless)
        route = first_route(ask)
        patience = Patience(self._config, self._rng)

        async def answered(want: Want) -> tuple[Exchange, Plan]:
            return await self._answer(route, want, patience)

        exchange, plan = await answered(want)
        digest_known = ask.spec.digest is not None
        body = HttpBody(want, plan, exchange, answered, patience, label(route.url), digest_known)
        try:
            yield body
        finally:
            await body.aclose()

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def _answer(self, route: Route, want: Want, patience: Patience) -> tuple[Exchange, Plan]:
        """Asks until the origin answers what was asked, or patience is over."""
        while True:
            try:
                answer = await self._follow(route, want)
            except Transient as failure:
                wait_s = patience.after_failure(failure)
                if wait_s is None:
                    raise failure.error from failure.__cause__
                logger.info("%s; trying again in %.1f s", failure.error, wait_s)
                await trio.sleep(wait_s)
            else:
                patience.answered()
                return answer

    async def _follow(self, route: Route, want: Want) -> tuple[Exchange, Plan]:
        """Asks once, at the end of the redirects."""
        for _ in range(self._config.redirects_max + 1):
            exchange = await self._connections.get(route, want.headers())
            if exchange.status in REDIRECTS:
                await exchange.drain()
                route = route.redirected(exchange.headers.get("location", ""))
                continue
            try:
                plan = judge(want, exchange.status, exchange.headers, label(route.url), time.time())
            except AskWhole:
                await exchange.drain()
                want = want.whole()
            except OriginBusy as error:
                await exchange.drain()
                raise Transient(error) from None
            except PeerdError:
                await exchange.drain()
                raise
            else:
                return exchange, plan
        raise OriginProtocolError(
            f"{label(route.url)}: more than {self._config.redirects_max} redirects; "
            "give the final URL"
        )


class HttpBody:
    """The bytes of one `open`, whatever number of answers they come in."""

    def __init__(
        self,
        want: Want,
        plan: Plan,
        exchange: Exchange,
        answered: Callable[[Want], Awaitable[tuple[Exchange, Plan]]],
        patience: Patience,
        label: str,
        digest_known: bool,
    ) -> None:
        self.facts = plan.facts
        self.bytes_read = 0
        self._want = want
        self._left_bytes = plan.size_bytes
        self._exchange: Exchange | None = exchange
        self._answered = answered
        self._patience = patience
        self._label = label
        self._digest_known = digest_known
        self._read_at_cut_bytes = 0

    async def read(self) -> bytes:
        """Some bytes in order, b"" at the end."""
        while self._exchange is not None:
            try:
                with trio.fail_after(self._silence_s):
                    data = await self._exchange.read()
            except FAILURES as error:
                if self._left_bytes == 0:
                    break  # All is there; only the end of the answer is not.
                await self._resume(error)
                continue
            if not data:
                if self._left_bytes:
                    await self._resume(None)
                    continue
                break
            self._count(len(data))
            return data
        await self.aclose()
        return b""

    async def aclose(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._left_bytes == 0:
            await exchange.finish()
        else:
            await exchange.aclose()

    def _count(self, size_bytes: int) -> None:
        self.bytes_read += size_bytes
        if self._left_bytes is None:
            return
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise OriginProtocolError(
                f"{self._label} sends more bytes than it said; report it to who runs it"
            )

    async def _resume(self, cause: Exception | None) -> None:
        """After a cut: the rest, from another answer of the same version."""
        progress_bytes = self.bytes_read - self._read_at_cut_bytes
        self._read_at_cut_bytes = self.bytes_read
        wait_s = self._patience.after_cut(progress_bytes) if self._resumable else None
        if self._exchange is not None:
            await self._exchange.aclose()
            self._exchange = None
        if wait_s is None:
            raise self._given_up(cause) from cause
        logger.info("%s was cut after %d bytes; reading on", self._label, self.bytes_read)
        await trio.sleep(wait_s)
        position = self.facts.first_byte + self.bytes_read
        self._exchange, plan = await self._answered(
            Want(position, self._want.last_byte, expect=self.facts)
        )
        if plan.facts.first_byte != position:
            raise self._given_up(cause) from cause
        if self._left_bytes is None:
            self._left_bytes = plan.size_bytes
        elif plan.size_bytes != self._left_bytes:
            raise OriginProtocolError(
                f"{self._label} has {plan.size_bytes} bytes left where it had {self._left_bytes}; "
                "report it to who runs it"
            )

    @property
    def _silence_s(self) -> float:
        """A lease would run out before the origin's own limit: what came would be read again."""
        return self._patience.silence_s() if self._resumable else inf

    @property
    def _resumable(self) -> bool:
        """Whether what another answer brings can be told to belong to this one."""
        facts = self.facts
        by_digest = self._digest_known and facts.length_bytes is not None
        return facts.ranged and (facts.validator is not None or by_digest)

    def _given_up(self, cause: Exception | None) -> PeerdError:
        if isinstance(cause, httpcore.TimeoutException | trio.TooSlowError):
            words = f"{self._label} stopped sending after {self.bytes_read} bytes"
            return OriginUnreachable(f"{words}; try again when it is well")
        words = f"{self._label} cut the answer after {self.bytes_read} bytes"
        if self._resumable:
            return OriginCut(f"{words}, again and again; try again later")
        return OriginCut(f"{words} and cannot resume it; try again")
