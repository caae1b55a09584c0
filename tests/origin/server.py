"""An origin in a thread of this process, and asks for it."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from random import Random
from typing import Any

from peerd.cli.origin_server import CONTENT_PATH, Made
from peerd.cli.origin_serving import Faults, OriginServer, Stats
from peerd.origin.settings import OriginConfig
from peerd.swarm.ports import Origin, OriginBody
from peerd.task import Ask, ask_for

SIZE_BYTES = 300_000
CONTENT = Random(1).randbytes(SIZE_BYTES)
QUICK = OriginConfig(
    connect_timeout_s=5.0, stall_timeout_s=0.5, backoff_first_s=0.001, backoff_max_s=0.01
)
"""Waits short enough for tests: the sockets are real, so the clock is too."""


class RunningOrigin:
    """What a test asks a server about."""

    def __init__(self, server: OriginServer) -> None:
        self._stats = server.stats
        self.library = server.library
        self.url = f"http://{server.host}:{server.port}{CONTENT_PATH}"
        self.port = server.port

    @property
    def stats(self) -> Stats:
        """As they are now: between a send and its count, nobody else has the lock."""
        with self._stats.lock:
            return copy(self._stats)

    def ask(self, **options: Any) -> Ask:
        return ask_for(self.url, **options)


@contextmanager
def running(size_bytes: int = SIZE_BYTES, **faults: Any) -> Iterator[RunningOrigin]:
    changes = faults.get("change_after") is not None
    server = OriginServer(Made(size_bytes, 1, changes=changes), Faults(**faults), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield RunningOrigin(server)
    finally:
        server.close()
        thread.join()


def stats_of(origin: RunningOrigin) -> dict[str, Any]:
    """As a stranger sees them, over HTTP."""
    with urllib.request.urlopen(f"http://127.0.0.1:{origin.port}/.stats") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


async def read_all(origin: Origin, ask: Ask, **options: Any) -> bytes:
    async with origin.open(ask, **options) as body:
        return await rest_of(body)


async def rest_of(body: OriginBody) -> bytes:
    parts = []
    while data := await body.read():
        parts.append(data)
    return b"".join(parts)
