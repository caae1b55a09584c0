"""An origin in memory: for tests of what reads origins, and for whole nodes under a jumping clock.

Always: it answers as an HTTP server would, and its answers go through the same `judge`, so that
facts and errors mean what they mean over the wire; it counts every byte that it gave away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio
from msgspec import Struct

from peerd.errors import OriginCut, PeerdError
from peerd.origin.answer import Plan, Want, judge
from peerd.origin.facts import OriginFacts
from peerd.origin.ranges import Unsatisfiable, parse_range, range_value
from peerd.task import Ask

CHUNK_BYTES = 64 * 1024


class MemoryRead(Struct):
    """One `open`, and what came of it."""

    url: str
    first_byte: int
    last_byte: int | None
    bytes_read: int = 0


class MemoryOrigin:
    """`contents` by URL. All switches may be turned while it is read.

    `ranged`, `validators`, `unknown_length`: what kind of server it is. `refused`: URLs that
    answer 403. `required_header`: 401 without it. `delay_s` before each answer, `rate_bytes_s`
    for each body.
    """

    def __init__(
        self,
        contents: Mapping[str, bytes],
        *,
        ranged: bool = True,
        validators: bool = True,
        unknown_length: bool = False,
        delay_s: float = 0.0,
        rate_bytes_s: float | None = None,
        required_header: tuple[str, str] | None = None,
    ) -> None:
        self.contents = dict(contents)
        self.ranged = ranged
        self.validators = validators
        self.unknown_length = unknown_length
        self.delay_s = delay_s
        self.rate_bytes_s = rate_bytes_s
        self.required_header = required_header
        self.refused: set[str] = set()
        self.bytes_read = 0
        self.bytes_by_url: Counter[str] = Counter()
        self.reads: list[MemoryRead] = []
        self.open_bodies = 0
        self.open_bodies_max = 0
        self._failures: list[PeerdError] = []
        self._cuts: list[int] = []

    def fail_next(self, error: PeerdError, times: int = 1) -> None:
        """The next opens raise that error: what retries did not mend."""
        self._failures += [error] * times

    def cut_next(self, after_bytes: int, times: int = 1) -> None:
        """The next bodies break off with OriginCut after so many bytes."""
        self._cuts += [after_bytes] * times

    @asynccontextmanager
    async def open(
        self,
        ask: Ask,
        *,
        first_byte: int = 0,
        last_byte: int | None = None,
        expect: OriginFacts | None = None,
        unless: str | None = None,
    ) -> AsyncIterator[MemoryBody]:
        """See swarm.ports.Origin."""
        read = MemoryRead(ask.spec.url, first_byte, last_byte)
        self.reads.append(read)
        await trio.sleep(self.delay_s)
        if self._failures:
            raise self._failures.pop(0)
        want = Want(first_byte, last_byte, expect, unless)
        status, headers, content = self._answer(ask, want)
        plan = judge(want, status, headers, ask.spec.url, 0.0)
        cut_after = self._cuts.pop(0) if self._cuts else None
        self.open_bodies += 1
        self.open_bodies_max = max(self.open_bodies, self.open_bodies_max)
        try:
            yield MemoryBody(self, read, plan, content, cut_after)
        finally:
            self.open_bodies -= 1

    def count(self, read: MemoryRead, size_bytes: int) -> None:
        read.bytes_read += size_bytes
        self.bytes_read += size_bytes
        self.bytes_by_url[read.url] += size_bytes

    def _answer(self, ask: Ask, want: Want) -> tuple[int, dict[str, str], bytes]:
        url = ask.spec.url
        if self.required_header is not None and self.required_header not in ask.credentials:
            return 401, {}, b""
        if url in self.refused:
            return 403, {}, b""
        if url not in self.contents:
            return 404, {}, b""
        content = self.contents[url]
        headers: dict[str, str] = {}
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if self.validators:
            headers["etag"] = etag
            if want.unless == etag:
                return 304, headers, b""
        if not self.ranged:
            return 200, headers | self._length(content), content
        headers["accept-ranges"] = "bytes"
        expected = None if want.expect is None else want.expect.validator
        if not want.ranged or (expected is not None and expected != headers.get("etag")):
            return 200, headers | self._length(content), content
        span = parse_range(range_value(want.first_byte, want.last_byte), len(content))
        if isinstance(span, Unsatisfiable) or span is None:
            return 416, headers | {"content-range": f"bytes */{len(content)}"}, b""
        total = "*" if self.unknown_length else str(len(content))
        headers["content-range"] = f"bytes {span[0]}-{span[1]}/{total}"
        return 206, headers, content[span[0] : span[1] + 1]

    def _length(self, content: bytes) -> dict[str, str]:
        return {} if self.unknown_length else {"content-length": str(len(content))}


class MemoryBody:
    """The bytes as they were when it was opened."""

    def __init__(
        self,
        origin: MemoryOrigin,
        read: MemoryRead,
        plan: Plan,
        content: bytes,
        cut_after: int | None,
    ) -> None:
        self.facts = plan.facts
        self._origin = origin
        self._read = read
        self._content = content
        self._cut_after = cut_after

    async def read(self) -> bytes:
        """Some bytes in order, b"" at the end."""
        position = self._read.bytes_read
        data = self._content[position : position + CHUNK_BYTES]
        if self._cut_after is not None:
            data = data[: max(0, self._cut_after - position)]
            if not data:
                raise OriginCut(f"cut after {position} bytes, as the test ordered")
        rate = self._origin.rate_bytes_s
        await trio.sleep(0.0 if rate is None else len(data) / rate)
        self._origin.count(self._read, len(data))
        return data
