"""Content of local files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from peerd.errors import OriginChanged, OriginNotFound, OriginRefused, OriginUnreachable, UsageError
from peerd.origin.file import FileOrigin, path_of, unreadable
from peerd.origin.service import OriginReader
from peerd.task import ask_for
from peerd.units import MIB
from tests.origin.server import CONTENT, read_all, rest_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file % ünd?#more"
    path.write_bytes(CONTENT * 10)
    return path


async def test_a_file_is_read_whatever_its_name(file: Path) -> None:
    async with OriginReader() as reader:
        assert await read_all(reader, ask_for(file.as_uri())) == CONTENT * 10
        assert (
            await read_all(reader, ask_for(file.as_uri()), first_byte=MIB) == (CONTENT * 10)[MIB:]
        )
        assert reader.bytes_read == 2 * len(CONTENT) * 10 - MIB


async def test_a_link_is_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    async with OriginReader() as reader:
        assert await read_all(reader, ask_for((tmp_path / "link").as_uri())) == CONTENT * 10


async def test_what_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with OriginReader() as reader:
        for name, error in (
            ("missing", OriginNotFound),
            ("pipe", UsageError),
            ("", UsageError),
            ("pipe/x", OriginNotFound),
        ):
            with trio.fail_after(5), pytest.raises(error):
                await read_all(reader, ask_for((tmp_path / name).as_uri()))


@pytest.mark.parametrize(
    "url",
    ["file://otherhost/x", "file:///x?y", "file:///x%00y", "file:x", "file://", "file:///x#y"],
)
def test_urls_that_name_no_file_here(url: str) -> None:
    with pytest.raises(UsageError):
        path_of(url)


def test_percent_encoding_is_taken_off() -> None:
    assert path_of("file:///a%20b/%C3%BC%ff") == b"/a b/\xc3\xbc\xff"
    assert path_of("FILE://LOCALHOST/a") == b"/a"


async def test_a_file_that_changes_is_never_mixed(file: Path) -> None:
    async with FileOrigin().open(ask_for(file.as_uri())) as body:
        assert await body.read()
        with file.open("r+b") as changed:
            changed.seek(2 * MIB)
            changed.write(b"another")
        os.utime(file)
        with pytest.raises(OriginChanged):
            await rest_of(body)


async def test_a_file_that_shrinks_ends_in_an_error(file: Path) -> None:
    async with FileOrigin().open(ask_for(file.as_uri())) as body:
        assert await body.read()
        os.truncate(file, 5)
        with pytest.raises(OriginChanged):
            await rest_of(body)


async def test_a_replaced_file_is_another_version_but_an_open_one_reads_on(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(CONTENT)
    async with FileOrigin().open(ask_for(file.as_uri())) as body:
        os.replace(other, file)
        assert await rest_of(body) == CONTENT * 10
    with pytest.raises(OriginChanged):
        async with FileOrigin().open(ask_for(file.as_uri()), last_byte=9, expect=body.facts):
            pass


def test_who_must_act_when_a_file_cannot_be_read() -> None:
    for error, kind in (
        (PermissionError(13, "Permission denied"), OriginRefused),
        (FileNotFoundError(2, "No such file"), OriginNotFound),
        (OSError(5, "Input/output error"), OriginUnreachable),
    ):
        assert type(unreadable(b"/x", error)) is kind
