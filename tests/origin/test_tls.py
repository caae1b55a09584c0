"""TLS is always verified; HTTP/2 is spoken where nothing else is."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec
import pytest
import trio
import trustme

from peerd.errors import OriginCut, OriginUnreachable, UsageError
from peerd.origin.service import OriginReader
from peerd.origin.settings import OriginConfig
from peerd.task import Ask, ask_for
from tests.origin.h2_origin import h2_origin
from tests.origin.scripted import answer, scripted
from tests.origin.server import CONTENT, QUICK, read_all, running


class Authority:
    """A CA, a server's context by it, and a configuration that trusts it."""

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        ca = trustme.CA()
        self.ca_file = folder / f"ca-{name}.pem"
        ca.cert_pem.write_to_path(str(self.ca_file))
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(name).configure_cert(self.server)
        self.config = msgspec.structs.replace(QUICK, ca_file=str(self.ca_file))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_the_right_ca_opens_the_door_and_connections_are_kept(authority: Authority) -> None:
    async with scripted(lambda _: answer(200, CONTENT), authority.server) as server:
        async with OriginReader(authority.config) as reader:
            for _ in range(3):
                assert await read_all(reader, ask_for(server.url)) == CONTENT
        assert server.connections == 1


async def test_an_unknown_ca_is_refused_at_once(authority: Authority) -> None:
    async with scripted(lambda _: answer(200), authority.server) as server:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginUnreachable, match="is not trusted"):
                await read_all(reader, ask_for(server.url))
        assert not server.requests


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    other = Authority(tmp_path, "example.org")
    async with (
        scripted(lambda _: answer(200), other.server) as server,
        OriginReader(other.config) as reader,
    ):
        with pytest.raises(OriginUnreachable, match="is not trusted"):
            await read_all(reader, ask_for(server.url))


async def test_tls_where_there_is_none() -> None:
    with running() as origin:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginUnreachable, match="TLS"):
                await read_all(reader, ask_for(origin.url.replace("http:", "https:")))


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(UsageError, match=name):
            OriginReader(OriginConfig(ca_file=str(tmp_path / name)))


async def test_an_end_that_anybody_could_have_made_is_a_cut(authority: Authority) -> None:
    """A body that ends with its connection, without TLS's goodbye."""
    endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf of it"
    async with (
        scripted(lambda _: endless, authority.server) as server,
        OriginReader(authority.config) as reader,
    ):
        with pytest.raises(OriginCut):
            await read_all(reader, ask_for(server.url))


async def test_an_origin_that_speaks_only_http_2(authority: Authority) -> None:
    async with (
        h2_origin(CONTENT, authority.server) as origin,
        OriginReader(authority.config) as reader,
    ):
        ask = ask_for(origin.url)
        assert await read_all(reader, ask) == CONTENT
        before = origin.connections
        for first in range(0, 100_000, 10_000):
            part = await read_all(reader, ask, first_byte=first, last_byte=first + 9_999)
            assert part == CONTENT[first : first + 10_000]
        assert origin.connections == before


async def test_http_2_streams_at_once_that_are_cut_or_left(authority: Authority) -> None:
    content = CONTENT * 5

    async def whole(reader: OriginReader, ask: Ask) -> None:
        assert await read_all(reader, ask) == content

    async def left(reader: OriginReader, ask: Ask) -> None:
        async with reader.open(ask) as body:
            assert await body.read()

    async with (
        h2_origin(content, authority.server) as origin,
        OriginReader(authority.config) as reader,
    ):
        ask = ask_for(origin.url)
        assert await read_all(reader, ask, last_byte=9) == content[:10]
        origin.cut_after_bytes = 5_000
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(whole, reader, ask)
                    nursery.start_soon(left, reader, ask)
        assert origin.cut_after_bytes is None
