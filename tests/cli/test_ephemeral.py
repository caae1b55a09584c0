"""A download without a daemon: one runs for its length, and leaves nothing but what it holds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from peerd.cli import client, ephemeral
from peerd.errors import StoreDamaged, UsageError


def fake(overrides: Mapping[str, Any]) -> list[str]:
    import json

    assert overrides["ephemeral"] is True
    return [sys.executable, "-m", "tests.gateway.fake_control", json.dumps(overrides)]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEERD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "data"


def test_it_answers_while_it_is_needed_and_is_gone_after(data_dir: Path) -> None:
    with ephemeral.daemon(fake) as (path, lent):
        assert client.ask(path, "GET", "/v1/status")["mode"] == "degraded"
        assert not lent
    assert not client.answers(path)
    assert os.listdir(data_dir) == ["get.lock"]
    assert not os.path.exists(os.path.dirname(path))
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_a_daemon_that_cannot_start_is_quoted(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_REFUSAL", "another daemon holds the data directory")
    with pytest.raises(StoreDamaged, match=r"^another daemon holds"), ephemeral.daemon(fake):
        pass


def test_a_data_directory_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERD_DATA_DIR", "/proc/nothing/data")
    words = "none can be started in /proc/nothing/data"
    with pytest.raises(UsageError, match=words), ephemeral.daemon(fake):
        pass


def test_two_downloads_take_turns(data_dir: Path, tmp_path: Path) -> None:
    code = (
        "from tests.cli.test_ephemeral import fake\n"
        "from peerd.cli import ephemeral\n"
        "with ephemeral.daemon(fake): print('ran')"
    )
    with ephemeral.daemon(fake):
        second = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "waiting for another download" in second.stderr.readline()
        assert second.poll() is None
    out, _ = second.communicate(timeout=30)
    assert (second.returncode, out) == (0, "ran\n")


@pytest.fixture
def lingerer(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The socket of one that was left behind by a download."""
    monkeypatch.setenv("FAKE_LINGERS", "1")
    with ephemeral.daemon(fake) as (path, _):
        pid = owner(path)
    yield path
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def owner(path: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return int(struct.unpack("3i", connection.getsockopt(1, socket.SO_PEERCRED, 12))[0])


def test_one_that_lingers_serves_the_next_download(lingerer: str) -> None:
    assert sorted(os.listdir(os.path.dirname(lingerer))) == ["peerd.sock"], "its log is away"
    with ephemeral.daemon(fake) as (path, lent):
        assert (path, lent) == (lingerer, True)
    assert client.answers(lingerer), "it is not the second one's to end"


def test_one_with_other_settings_makes_room(
    lingerer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PEERD_CLUSTER", "another")
    monkeypatch.delenv("FAKE_LINGERS")  # The second one ends with its download.
    with ephemeral.daemon(fake) as (path, lent):
        assert path != lingerer
        assert not lent
        assert not client.answers(lingerer)
    assert capsys.readouterr().err == ""


def test_it_makes_room_for_a_daemon_that_joins(lingerer: str, data_dir: Path) -> None:
    ephemeral.give_way(str(data_dir))
    assert not client.answers(lingerer)
    ephemeral.give_way(str(data_dir))  # Nobody is there: nothing to wait for.


def test_what_a_killed_one_left_is_tidied_up(
    lingerer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_LINGERS")
    pid = owner(lingerer)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    with ephemeral.daemon(fake) as (path, lent):
        assert path != lingerer
        assert not lent
        assert not os.path.exists(os.path.dirname(lingerer))


def test_a_download_that_failed_leaves_none_behind(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LINGERS", "1")
    with pytest.raises(StoreDamaged), ephemeral.daemon(fake) as (path, _):
        raise StoreDamaged("the download failed")
    assert not client.answers(path)
    assert not os.path.exists(os.path.dirname(path))
