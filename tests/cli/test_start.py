"""The command line starts fast, because it imports little."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import trio

from tests.cli.running import URL, clean_environment, daemon, peerd
from tests.gateway.fake_control import FakeControl

HEAVY = {"trio", "libp2p", "multiaddr", "httpx", "cryptography", "msgspec", "rich", "http.client",
         "asyncio", "subprocess", "tempfile", "typer", "pydantic"}  # fmt: skip
GET_MAX_S = 0.25
TRIES_MAX = 30


async def test_a_get_imports_nothing_heavy(tmp_path: Path) -> None:
    async with daemon(FakeControl({URL: b"x"}), tmp_path / "s") as path:
        command = [sys.executable, "-X", "importtime", "-m", "peerd", "get", URL]
        result = await trio.run_process(
            [*command, "-O", str(tmp_path / "out"), "--socket", path],
            capture_stderr=True,
            env=clean_environment(),
        )
    imported = set(re.findall(r"\| +([\w.]+)$", result.stderr.decode(), re.MULTILINE))
    assert "peerd.cli.get" in imported
    assert not imported & HEAVY


async def test_a_get_of_one_held_byte_takes_a_quarter_of_a_second(tmp_path: Path) -> None:
    """The best of up to TRIES_MAX: what else runs on the machine is not what is measured."""
    times: list[float] = []
    async with daemon(FakeControl({URL: b"x"}), tmp_path / "s") as path:
        while min(times, default=GET_MAX_S + 1) > GET_MAX_S and len(times) < TRIES_MAX:
            began = time.perf_counter()
            result = await peerd("get", URL, "-O", str(tmp_path / "out"), "--socket", path)
            times.append(time.perf_counter() - began)
            assert result.returncode == 0
    assert min(times) <= GET_MAX_S, times


def test_join_hands_its_flags_to_the_daemon_in_one_object() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _SHOW_EXEC, "join", "--zone", "eu/a", "--seed-peer",
         "--bootstrap", "a:1", "--bootstrap", "b:2", "--config", "f.toml"],
        capture_output=True, text=True, env=clean_environment(), check=True,
    )  # fmt: skip
    assert json.loads(result.stdout) == {
        "config": "f.toml",
        "bootstrap": ["a:1", "b:2"],
        "zone": "eu/a",
        "seed_peer": True,
    }


_SHOW_EXEC = """
import os, sys
os.execv = lambda path, arguments: print(arguments[-1])
from peerd.cli.main import main
main(sys.argv[1:])
"""
