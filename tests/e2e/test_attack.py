"""What kills an unguarded libp2p daemon, sent to a running one: it goes on."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from tests.e2e.lab import MIB, Lab, Peer, all_get, check_right
from tests.overlay.attacks import attack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_remote_crash_messages_do_not_end_a_daemon(lab: Lab) -> None:
    origin = lab.origin(4 * MIB)
    victim, other = lab.group(2)
    pid = victim.process.pid if victim.process else 0
    address = f"/ip4/127.0.0.1/tcp/{victim.overlay_port}/p2p/{victim.status()['peer_id']}"
    trio.run(attack, address, "default", "urgent")
    assert victim.process is not None
    assert victim.process.poll() is None
    assert victim.process.pid == pid
    check_right(all_get([victim, other], origin.url), origin)
    assert "Traceback" not in victim.log(), victim.log()


def test_garbage_on_the_link_port_does_not_end_a_daemon(lab: Lab) -> None:
    origin = lab.origin(4 * MIB)
    victim, other = lab.group(2)
    for size in (0, 1, 100, 5000, 1 << 20):
        _throw(victim, os.urandom(size))
    silent = [socket.create_connection(("127.0.0.1", victim.link_port)) for _ in range(100)]
    check_right(all_get([victim, other], origin.url), origin)
    for connection in silent:
        connection.close()
    assert "Traceback" not in victim.log(), victim.log()


def _throw(victim: Peer, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", victim.link_port)) as connection:
        try:
            connection.sendall(data)
        except OSError:
            return  # It closed before it had all: that is what it should do.
