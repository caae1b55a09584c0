"""The origin that the demo starts, as the process it is."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peerd.origin.service import OriginReader
from peerd.task import ask_for
from tests.origin.server import CONTENT, QUICK, read_all, running, stats_of


@contextmanager
def process(*arguments: str) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "peerd.cli.origin_server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())
        finally:
            child.terminate()


async def test_it_serves_what_it_says_and_counts_what_it_sent() -> None:
    with process("--size", "300000B", "--seed", "1") as said:
        async with OriginReader(QUICK) as reader:
            content = await read_all(reader, ask_for(said["url"]))
            await read_all(reader, ask_for(said["url"]), first_byte=5, last_byte=9)
        assert hashlib.sha256(content).hexdigest() == said["sha256"]
        connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=5)
        connection.request("GET", "/.stats")
        stats = json.load(connection.getresponse())
        connection.close()
    assert (stats["body_bytes"], stats["requests"], stats["ranged"]) == (300_005, 2, 1)
    assert stats["by_path"] == {"/content.bin": {"requests": 2, "body_bytes": 300_005}}


async def test_another_version_is_not_sent_to_who_does_not_want_it() -> None:
    with process("--size", "300000B", "--seed", "1") as said:
        connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=5)
        connection.request("GET", "/content.bin", headers={"If-Match": '"another"'})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (412, b"")
        connection.request("GET", "/content.bin", headers={"If-Match": answer.headers["ETag"]})
        assert len(connection.getresponse().read()) == 300_000
        connection.close()


async def test_a_folder_is_served_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a b").write_bytes(CONTENT)
    (root / "out").symlink_to(tmp_path / "secret")
    with process("--root", str(root)) as said:
        async with OriginReader(QUICK) as reader:
            assert await read_all(reader, ask_for(said["url"] + "a%20b")) == CONTENT
        for path in ("/../secret", "/%2e%2e/secret", "/out", "/", "//etc/passwd"):
            connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=5)
            connection.request("GET", path)
            assert connection.getresponse().status == 404
            connection.close()


def test_it_starts_without_anything_heavy() -> None:
    code = "import sys, peerd.cli.origin_server; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"trio", "httpcore", "msgspec", "cryptography", "email", "http"}.isdisjoint(modules)


async def test_its_rate_is_that_of_all_connections_together() -> None:
    with running(size_bytes=200_000, rate=1_000_000) as origin:
        async with OriginReader(QUICK) as reader:
            assert len(await read_all(reader, origin.ask())) == 200_000
        assert origin.stats.body_bytes == 200_000


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / x\r\n\r\n"])
def test_garbage_harms_nobody_else(garbage: bytes) -> None:
    with running() as origin:
        connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=5)
        connection.connect()
        assert connection.sock is not None
        connection.sock.sendall(garbage)
        connection.sock.recv(100)
        connection.close()
        assert stats_of(origin)["body_bytes"] == 0
