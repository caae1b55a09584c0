"""The origin of a scenario: peerd's own to try things with, and orders on standard input.

`python -m tools.chaos.origin_process HOST SIZE SEED`. Always: each line in, a JSON object, is
answered by one line out, what was sent so far; `faults` in it replaces what is wrong, from the next
request on, and `change` the content. It ends when its standard input does. Besides the content
there are small ones, /small-0 to /small-9, of other bytes.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import tempfile
import threading
from collections import Counter
from typing import Any, Final

from peerd.cli.origin_server import CONTENT_PATH, Made
from peerd.cli.origin_serving import Content, Conversation, Faults, OriginServer, Request
from peerd.units import KIB

PORT: Final = 8000
SMALL_BYTES: Final = 256 * KIB
SMALL_COUNT: Final = 10
SEND_BUFFER_BYTES: Final = 64 * KIB
"""Little: what the kernel took for a peer that died counts as sent."""


class Shelf:
    """The large content, and the small ones."""

    def __init__(self, size_bytes: int, seed: int) -> None:
        self._made = Made(size_bytes, seed, changes=True)
        self.digests = self._made.digests
        self._small: dict[str, int] = {}
        for number in range(SMALL_COUNT):
            with tempfile.TemporaryFile() as file:
                file.write(random.Random(f"{seed}/{number}").randbytes(SMALL_BYTES))
                file.flush()
                self._small[f"/small-{number}"] = os.dup(file.fileno())

    @property
    def changed(self) -> bool:
        return self._made.changed

    @changed.setter
    def changed(self, changed: bool) -> None:
        self._made.changed = changed

    def open(self, path: str) -> Content | None:
        if path in self._small:
            return Content(os.dup(self._small[path]), SMALL_BYTES, f'"{path}"')
        return self._made.open(path)


class Switched(OriginServer):
    """Counts what each address was sent, and of which version; may be told to go wrong."""

    def __init__(self, shelf: Shelf, host: str) -> None:
        super().__init__(shelf, Faults(), host, PORT)
        self._digests = shelf.digests
        self.sent: Counter[str] = Counter()
        self.of_version: Counter[str] = Counter()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                address = str(connection.getpeername()[0])
                Watched(self, connection, address).run()
        except (OSError, ValueError):
            pass  # The client went away, or sent what is no HTTP: it knows why.

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        if "faults" in order:
            self.faults = Faults(**order["faults"])
            with self.stats.lock:
                self.stats.cuts = self.stats.stalls = 0
        if order.get("change"):
            self.library.changed = True
        with self.stats.lock:
            content_bytes = self.stats.bytes_by_path[CONTENT_PATH]
            statuses = {str(status): count for status, count in self.stats.statuses.items()}
            old_bytes = self.of_version[f'"{self._digests[0]}"']
            return {"content_bytes": content_bytes, "sent": dict(self.sent), "old_bytes": old_bytes,
                    "body_bytes": self.stats.body_bytes, "statuses": statuses}  # fmt: skip


class Watched(Conversation):
    def __init__(self, server: Switched, connection: socket.socket, address: str) -> None:
        super().__init__(server, connection)
        self._switched = server
        self._address = address
        self._etag = ""

    def _answer(self, request: Request) -> bool:
        self._faults = self._switched.faults
        return super()._answer(request)

    def _send(self, request: Request, content: Content) -> bool:
        self._etag = content.etag
        return super()._send(request, content)

    def _send_slice(self, path: str, descriptor: int, position: int, size: int) -> int:
        sent = super()._send_slice(path, descriptor, position, size)
        if path == CONTENT_PATH:
            with self._switched.stats.lock:
                self._switched.sent[self._address] += sent
                self._switched.of_version[self._etag] += sent
        return sent


def main() -> None:
    host, size, seed = sys.argv[1:]
    shelf = Shelf(int(size), int(seed))
    server = Switched(shelf, host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _say({"digests": shelf.digests})
    for line in sys.stdin:
        _say(server.answer(json.loads(line)))


def _say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
