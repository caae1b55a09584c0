"""Downloads without a daemon, beside each other: who has it stays for who has not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from peerd.cli import client
from tests.e2e.lab import MIB, Lab, Origin, free_port
from tests.e2e.test_get import sha256

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SIZE = 12 * MIB


class Getter:
    """`peerd get` with a home of its own and no daemon."""

    def __init__(self, home: Path, door: int | None = None, **more: str) -> None:
        home.mkdir()
        self.home, self.port, self.target = home, free_port(), home / "file"
        self._environment = {
            "XDG_RUNTIME_DIR": str(home), "PEERD_DATA_DIR": str(home / "data"),
            "PEERD_SOCKET": str(home / "none.sock"), "PEERD_NAME": home.name,
            "PEERD_LISTEN": f"/ip4/127.0.0.1/tcp/{self.port}", "PEERD_DISK_RESERVE": "0", **more,
        }  # fmt: skip
        if door is not None:
            self._environment["PEERD_BOOTSTRAP"] = f"127.0.0.1:{door}"

    def get(self, origin: Origin, *flags: str) -> dict[str, Any]:
        """What it says of the bytes; they are right."""
        done = subprocess.run(
            [sys.executable, "-m", "peerd", "get", origin.url, "-O", str(self.target), "--json",
             "--no-progress", *flags],
            capture_output=True, text=True, timeout=60, env=os.environ | self._environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert sha256(self.target) == origin.digest
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["from"]
        return told

    def lingerer(self) -> str:
        """Its daemon's socket; "" when none is left."""
        found = list(self.home.glob("peerd-*/peerd.sock"))
        return str(found[0]) if found and client.answers(str(found[0])) else ""

    def gone_after_s(self) -> float:
        began = time.monotonic()
        while self.lingerer() or list(self.home.glob("peerd-*")):
            time.sleep(0.1)
            assert time.monotonic() < began + 60, "its daemon does not end"
        return time.monotonic() - began


def test_the_first_stays_until_a_second_has_it_too(lab: Lab, tmp_path: Path) -> None:
    origin = lab.origin(SIZE)
    first = Getter(tmp_path / "first", PEERD_UPLOAD_LIMIT="3MiB")
    assert first.get(origin) == {"origin": SIZE, "peers": 0, "store": 0}
    assert first.lingerer(), "its command line is back, its daemon stays"
    second = Getter(tmp_path / "second", first.port)
    assert second.get(origin) == {"origin": 0, "peers": SIZE, "store": 0}
    assert origin.body_bytes() == SIZE, "nothing was read twice"
    first.gone_after_s()
    second.gone_after_s()


def test_the_next_download_here_uses_it_and_its_time_ends(lab: Lab, tmp_path: Path) -> None:
    origin, other = lab.origin(SIZE), lab.origin(MIB, seed=2)
    getter = Getter(tmp_path / "home")
    getter.get(origin, "--linger", "4s")
    path = getter.lingerer()
    getter.get(other)
    assert path
    assert getter.lingerer() == path
    assert getter.gone_after_s() < 10
    getter.get(origin, "--linger", "0")
    assert not getter.lingerer()
