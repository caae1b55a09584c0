"""The one door to content outside: by URL scheme, with a bound on what is open at once.

Always: at most `connections_max` bodies are open; more wait their turn in order. `bytes_read` is
what all bodies gave to their readers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

import trio

from peerd.errors import UsageError
from peerd.origin.facts import OriginFacts
from peerd.origin.file import FileOrigin
from peerd.origin.http import HttpOrigin
from peerd.origin.settings import OriginConfig
from peerd.rate import TokenBucket
from peerd.task import Ask, check_url


class Body(Protocol):
    facts: OriginFacts

    async def read(self) -> bytes: ...


class Scheme(Protocol):
    """What the door leads to."""

    def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AbstractAsyncContextManager[Body]: ...


class CountedBody:
    """A body that tells the door how much was read."""

    def __init__(self, body: Body, door: OriginReader) -> None:
        self.facts = body.facts
        self.bytes_read = 0
        self._body = body
        self._door = door

    async def read(self) -> bytes:
        data = await self._body.read()
        self.bytes_read += len(data)
        self._door.bytes_read += len(data)
        await self._door.paid(len(data))
        return data


class OriginReader:
    """`async with OriginReader(config) as origin:`; leaving it ends all connections."""

    def __init__(
        self,
        config: OriginConfig | None = None,
        rng: Random | None = None,
        limit: TokenBucket | None = None,
    ) -> None:
        """UsageError names a proxy or CA file that cannot be used. `limit` holds for all reads."""
        config = config or OriginConfig()
        self.bytes_read = 0
        self._limit = limit or TokenBucket(None)
        self._http = HttpOrigin(config, rng or Random())
        self._schemes: dict[str, Scheme] = {
            "http": self._http,
            "https": self._http,
            "file": FileOrigin(),
        }
        self._turns = trio.CapacityLimiter(config.connections_max)

    async def paid(self, count_bytes: int) -> None:
        """Waits until so many bytes more may have been read."""
        wait_s = self._limit.take(count_bytes, trio.current_time())
        if wait_s > 0:
            await trio.sleep(wait_s)

    async def __aenter__(self) -> OriginReader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AsyncIterator[CountedBody]:
        """See swarm.ports.Origin."""
        check_url(ask.spec.url)
        if first_byte < 0 or (last_byte is not None and last_byte < first_byte):
            raise UsageError(f"bytes {first_byte} to {last_byte} are no range")
        scheme = self._schemes[urlsplit(ask.spec.url).scheme.lower()]
        turn = object()
        await self._turns.acquire_on_behalf_of(turn)
        try:
            async with scheme.open(
                ask, first_byte=first_byte, last_byte=last_byte, expect=expect, unless=unless
            ) as body:
                yield CountedBody(body, self)
        finally:
            self._turns.release_on_behalf_of(turn)
