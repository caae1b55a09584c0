"""What every origin does, be it over HTTP, a file, or its twin in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from peerd.cli.origin_serving import Library
from peerd.errors import OriginChanged, OriginNotFound
from peerd.origin.memory import MemoryOrigin
from peerd.origin.service import OriginReader
from peerd.swarm.ports import Origin
from peerd.task import Ask, ask_for
from tests.origin.server import CONTENT, QUICK, read_all, running

SIZE = len(CONTENT)


class Subject(Protocol):
    origin: Origin
    ask: Ask
    missing: Ask

    def change(self) -> None:
        """Another content from now on."""
        ...


class MemorySubject:
    def __init__(self) -> None:
        self._memory = MemoryOrigin({"http://o/x": CONTENT})
        self.origin: Origin = self._memory
        self.ask, self.missing = ask_for("http://o/x"), ask_for("http://o/y")

    def change(self) -> None:
        self._memory.contents["http://o/x"] = CONTENT[::-1]


class FileSubject:
    def __init__(self, origin: Origin, folder: Path) -> None:
        self._path = folder / "x"
        self._path.write_bytes(CONTENT)
        self.origin = origin
        self.ask = ask_for(self._path.as_uri())
        self.missing = ask_for((folder / "y").as_uri())

    def change(self) -> None:
        self._path.with_name("new").write_bytes(CONTENT[::-1])
        self._path.with_name("new").replace(self._path)


class HttpSubject:
    def __init__(self, origin: Origin, url: str, library: Library) -> None:
        self.origin = origin
        self.ask, self.missing = ask_for(url), ask_for(url + "y")
        self._library = library

    def change(self) -> None:
        self._library.changed = True


@asynccontextmanager
async def subject_of(kind: str, folder: Path) -> AsyncIterator[Subject]:
    if kind == "memory":
        yield MemorySubject()
        return
    async with OriginReader(QUICK) as reader:
        if kind == "file":
            yield FileSubject(reader, folder)
        else:
            with running(change_after=1 << 40) as server:
                yield HttpSubject(reader, server.url, server.library)


@pytest.fixture(params=["http", "file", "memory"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with subject_of(request.param, tmp_path) as made:
        yield made


async def test_all_of_it(subject: Subject) -> None:
    async with subject.origin.open(subject.ask) as body:
        assert body.facts.length_bytes == SIZE
        assert body.facts.first_byte == 0
        assert body.facts.ranged
        assert body.facts.validator is not None
    assert await read_all(subject.origin, subject.ask) == CONTENT


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (0, SIZE - 1), (5, 9), (SIZE - 1, SIZE - 1), (7, None)]
)
async def test_a_part_of_it(subject: Subject, first: int, last: int | None) -> None:
    async with subject.origin.open(subject.ask, first_byte=first, last_byte=last) as body:
        assert body.facts.first_byte == first
        assert body.facts.ranged
        assert body.facts.length_bytes == SIZE
    part = await read_all(subject.origin, subject.ask, first_byte=first, last_byte=last)
    assert part == CONTENT[first : None if last is None else last + 1]


async def test_a_part_that_reaches_beyond_the_end(subject: Subject) -> None:
    part = await read_all(subject.origin, subject.ask, first_byte=SIZE - 10, last_byte=SIZE + 100)
    assert part == CONTENT[-10:]


async def test_a_part_after_the_end_is_of_another_version(subject: Subject) -> None:
    with pytest.raises(OriginChanged):
        await read_all(subject.origin, subject.ask, first_byte=SIZE, last_byte=SIZE + 9)


async def test_the_end_stays_the_end(subject: Subject) -> None:
    async with subject.origin.open(subject.ask, last_byte=9) as body:
        while await body.read():
            pass
        assert await body.read() == b""


async def test_what_is_missing(subject: Subject) -> None:
    with pytest.raises(OriginNotFound):
        await read_all(subject.origin, subject.missing)


async def test_the_expected_version_is_read_and_another_is_not(subject: Subject) -> None:
    async with subject.origin.open(subject.ask, last_byte=0) as body:
        facts = body.facts
    part = await read_all(subject.origin, subject.ask, first_byte=3, last_byte=5, expect=facts)
    assert part == CONTENT[3:6]
    shorter = msgspec.structs.replace(facts, length_bytes=SIZE - 1)
    with pytest.raises(OriginChanged):
        await read_all(subject.origin, subject.ask, first_byte=3, last_byte=5, expect=shorter)
    subject.change()
    for first, last in ((0, None), (3, 5)):
        with pytest.raises(OriginChanged):
            await read_all(
                subject.origin, subject.ask, first_byte=first, last_byte=last, expect=facts
            )


async def test_what_is_known_is_not_sent_again(subject: Subject) -> None:
    async with subject.origin.open(subject.ask, last_byte=0) as body:
        validator = body.facts.validator
    for last in (None, 99):
        async with subject.origin.open(subject.ask, last_byte=last, unless=validator) as body:
            assert body.facts.not_modified
            assert await body.read() == b""
    subject.change()
    async with subject.origin.open(subject.ask, last_byte=99, unless=validator) as body:
        assert not body.facts.not_modified
        assert body.facts.validator not in (None, validator)


async def test_a_body_may_be_left_early(subject: Subject) -> None:
    for _ in range(20):
        async with subject.origin.open(subject.ask) as body:
            assert await body.read()
    assert await read_all(subject.origin, subject.ask) == CONTENT
