"""A daemon in memory, for the control API: what it knows is what a test put into it.

Run as a program it serves itself on a socket, like `python -m peerd.daemon`:
`python -m tests.gateway.fake_control '{"socket": "…"}'`, with its contents from $FAKE_CONTENTS,
or as `… join --socket PATH …` for the demo; then it reads any http:// URL itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import trio

from peerd.errors import PeerdError, TaskNotFound, error_from
from peerd.gateway.control import ControlServer
from peerd.gateway.ports import GetDone, GetEvent, GetFailed, GetProgress, GetRequest

PIECE_BYTES = 64 * 1024


@dataclass
class FakeControl:
    """`contents` by URL; `errors` are raised, at once (`early`) or as the last line."""

    contents: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, PeerdError] = field(default_factory=dict)
    early: bool = True
    stuck: set[str] = field(default_factory=set)
    stuck_now: trio.Event = field(default_factory=trio.Event)
    withdrawn: trio.Event = field(default_factory=trio.Event)
    asked: list[GetRequest] = field(default_factory=list)
    tickets: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    reads_origins: bool = False

    async def get(self, request: GetRequest) -> AsyncIterator[GetEvent]:
        self.asked.append(request)
        task = task_of(request.url)
        try:
            if request.url in self.errors and self.early:
                raise self.errors[request.url]
            content = self.contents.get(request.url, b"")
            if self.reads_origins and request.url.startswith("http://127.0.0.1:"):
                content = await trio.to_thread.run_sync(_read, request.url)
            yield GetProgress(task, len(content), 0, 0, 0, 0, "resolving")
            if request.url in self.errors:
                error = self.errors[request.url]
                yield GetFailed(task, error.code, str(error))
                return
            if request.url in self.stuck:
                self.stuck_now.set()
                await trio.sleep_forever()
            for held in range(PIECE_BYTES, len(content), PIECE_BYTES):
                yield GetProgress(task, len(content), held, held, 0, 0, "reading")
            yield self._done(request, task, content)
        finally:
            self.withdrawn.set()

    def _done(self, request: GetRequest, task: str, content: bytes) -> GetDone:
        ticket = f"ticket-{len(self.tickets)}"
        self.tickets[ticket] = content
        size = len(content)
        return GetDone(task, "b" * 64, size, 0.25, size, 0, 0, request.digest, 0.0, False, ticket)

    def descriptor(self, ticket: str) -> int:
        content = self.tickets.pop(ticket, None)
        if content is None:
            raise TaskNotFound("that ticket was used, or is older than 60 s")
        return read_only(content)

    def status(self) -> dict[str, Any]:
        return {
            "peer_id": "12D3KooWExample",
            "zone": "eu/fra/r1",
            "peers": 2,  # Others, without this one.
            "mode": "degraded",
            "leader": None,
            "term": 0,
            "origin_bytes": 1 << 20,
            "peer_bytes_in": 3 << 20,
            "peer_bytes_out": 0,
            "saved_bytes": 3 << 20,
        } | ({"lingers": True} if os.environ.get("FAKE_LINGERS") else {})

    def peers(self) -> list[dict[str, Any]]:
        return [{"peer_id": "12D3KooWOther", "name": "a\x1b[31mred", "round_trip_s": 0.0012}]

    def scheduler(self) -> dict[str, Any]:
        return {"mode": "degraded", "leader": None, "term": 0, "electors": []}

    def tasks(self) -> list[dict[str, Any]]:
        return [
            {"task": task_of(url), "url": url, "bytes": len(content), "progress": 1.0}
            for url, content in self.contents.items()
        ]

    def task(self, task: str) -> dict[str, Any]:
        for row in self.tasks():
            if row["task"].startswith(task):
                return row | {"pieces": [{"piece": 0, "from": "origin"}]}
        raise TaskNotFound(f"no task {task} is here; `peerd tasks` lists them")

    def explain(self, task: str) -> dict[str, Any]:
        row = self.task(task)
        return {
            "task": row["task"],
            "state": "complete",
            "seconds": 1.5,
            "time": [{"on": "receiving from peers", "seconds": 1.5}],
        }

    async def remove(self, task: str) -> dict[str, Any]:
        found = self.task(task)["task"]
        self.removed.append(found)
        return {"task": found, "freed_bytes": 1}


def task_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def read_only(content: bytes) -> int:
    """A descriptor of an unlinked file with that content, opened read-only."""
    writable = os.memfd_create("content")
    try:
        os.write(writable, content) if content else None
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
    return content


async def _main(path: str) -> None:
    given = json.loads(os.environ.get("FAKE_CONTENTS", "{}"))
    control = FakeControl({url: text.encode() for url, text in given.items()}, reads_origins=True)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await nursery.start(ControlServer(control, path).run)
            async for _ in signals:
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if refusal := os.environ.get("FAKE_REFUSAL"):
        error = error_from("store-damaged", refusal)
        print(f"peerd: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if sys.argv[1] == "join":
        trio.run(_main, sys.argv[sys.argv.index("--socket") + 1])
    else:
        trio.run(_main, json.loads(sys.argv[1])["socket"])
