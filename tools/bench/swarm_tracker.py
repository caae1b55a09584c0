"""A BitTorrent tracker for one torrent, as small as can be: everybody is told of everybody.

`python -m tools.bench.swarm_tracker ADDRESS PORT`; says a line when it listens, and one for each
new peer.
"""

from __future__ import annotations

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

INTERVAL_S: Final = 2
PEERS_MAX: Final = 1000

_known: dict[bytes, None] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query, encoding="latin-1")
        own = socket.inet_aton(self.client_address[0]) + int(asked["port"][0]).to_bytes(2)
        if own not in _known and len(_known) < PEERS_MAX:
            _known[own] = None
            say(f"{self.client_address[0]}")
        peers = b"".join(one for one in list(_known) if one != own)
        body = b"d8:intervali%de5:peers%d:%se" % (INTERVAL_S, len(peers), peers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: standard error is for failures."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
    say("listening")
    server.serve_forever()


if __name__ == "__main__":
    main()
