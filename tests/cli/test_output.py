"""How content is copied: every way gives the same bytes, and a short source is found out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peerd.cli.output import Target, copy, name_from, target_for
from peerd.errors import StoreDamaged, UsageError

CONTENT = os.urandom(3_000_001)


def opened(path: Path, content: bytes = b"") -> int:
    path.write_bytes(content)
    return os.open(path, os.O_RDWR)


def test_a_copy_is_right_to_a_file_a_pipe_and_an_appended_file(tmp_path: Path) -> None:
    source = opened(tmp_path / "source", CONTENT)
    target = opened(tmp_path / "target")
    copy(source, target, len(CONTENT))
    assert (tmp_path / "target").read_bytes() == CONTENT
    appended = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(appended, b"before ")
    copy(source, appended, len(CONTENT))
    assert (tmp_path / "log").read_bytes() == b"before " + CONTENT
    reading, writing = os.pipe()
    copy(source, writing, 1000)
    assert os.read(reading, 2000) == CONTENT[:1000]
    for descriptor in (source, target, appended, reading, writing):
        os.close(descriptor)


def test_a_source_that_is_too_short_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    source = opened(tmp_path / "source", CONTENT[:-1])
    with pytest.raises(StoreDamaged):
        Target(str(tmp_path / "out"), direct=False).write(source, len(CONTENT))
    os.close(source)
    assert sorted(os.listdir(tmp_path)) == ["out", "source"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_longest_name_has_room_for_a_temporary_one(tmp_path: Path) -> None:
    target = target_for(str(tmp_path / ("ä" * 127)), "http://h/x")
    target.check()
    source = opened(tmp_path / "source", b"x")
    target.write(source, 1)
    os.close(source)
    assert len(os.listdir(tmp_path)) == 2


def test_names_come_from_the_urls_path_alone() -> None:
    assert name_from("http://h/a/b.bin?x=/c#/d") == "b.bin"
    assert name_from("file:///a/b%20c") == "b c"
    for url in (
        "http://h",
        "http://h/",
        "http://h/a/..",
        "http://h/a%2Fb",
        "http://h/%0a",
        "http://[",
    ):
        with pytest.raises(UsageError):
            name_from(url)


def test_devices_and_standard_output_are_written_in_place() -> None:
    assert target_for("-", "http://h/x") == Target("-", direct=True)
    assert target_for("/dev/null", "http://h/x").direct
