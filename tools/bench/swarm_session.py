"""One libtorrent session: says `ready`, reads a list of peers, says when it has everything.

`python -m tools.bench.swarm_session ROLE TORRENT FOLDER ADDRESS PORT`; then it seeds until killed.
Default settings, but for what looks for others outside the lab, and uTP: it yields to other
traffic, and here there is none to yield to, so that TCP is the better of the two.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


def main() -> None:
    role, torrent, folder, address, port = sys.argv[1:]
    lt: Any = importlib.import_module("libtorrent")
    session = lt.session({
        "listen_interfaces": f"{address}:{port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "alert_mask": lt.alert.category_t.status_notification
        | lt.alert.category_t.error_notification,
    })  # fmt: skip
    wish = lt.add_torrent_params()
    wish.ti = lt.torrent_info(torrent)
    wish.save_path = folder
    wish.trackers = []
    wish.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if role != "leech":
        wish.flags |= lt.torrent_flags.seed_mode
    if role == "super-seed":
        wish.flags |= lt.torrent_flags.super_seeding
    handle = session.add_torrent(wish)
    handle.replace_trackers([])
    _say("ready")
    for peer in json.loads(sys.stdin.readline()):
        host, _, number = peer.rpartition(":")
        handle.connect_peer((host, int(number)))
    told = role != "leech"
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert) and not told:
                _say(str(time.monotonic()))
                told = True
            elif isinstance(alert, lt.file_error_alert):
                sys.stderr.write(f"{alert}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
