"""Overlays on loopback for tests, and a handler that remembers what it was told."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from peerd.cluster.admission import OpenAdmission
from peerd.ids import WIRE_VERSION, PeerId
from peerd.overlay.neighbour import Timing
from peerd.overlay.ports import Admission
from peerd.overlay.service import OverlayService
from peerd.signing import SigningKey

LIMIT_S = 10.0


class Story:
    """A handler: everything it was told, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, PeerId]] = []
        self.payloads: list[tuple[PeerId, bytes]] = []
        self._news = trio.Event()

    def neighbour_up(self, peer: PeerId) -> None:
        self._tell(("up", peer))

    def neighbour_down(self, peer: PeerId) -> None:
        self._tell(("down", peer))

    def gossip_arrived(self, peer: PeerId, payload: bytes) -> None:
        self.payloads.append((peer, payload))
        self._tell(("payload", peer))

    def count(self, what: str) -> int:
        return sum(told == what for told, _ in self.told)

    async def until(self, what: str, times: int = 1) -> None:
        with trio.fail_after(LIMIT_S):
            while self.count(what) < times:
                await self._news.wait()

    async def until_payloads(self, payload: bytes, times: int) -> None:
        with trio.fail_after(LIMIT_S):
            while sum(found == payload for _, found in self.payloads) < times:
                await self._news.wait()

    def _tell(self, item: tuple[str, PeerId]) -> None:
        self.told.append(item)
        self._news.set()
        self._news = trio.Event()


class Peer:
    """An overlay and what its handler was told."""

    def __init__(self, service: OverlayService, key: SigningKey) -> None:
        self.service, self.id, self.key = service, key.peer_id, key
        self.story = Story()
        service.set_handler(self.story)

    @property
    def address(self) -> str:
        return self.service.addresses()[0]

    @property
    def host_port(self) -> str:
        parts = self.address.split("/")
        return f"{parts[2]}:{parts[4]}"


def make(
    seed: int | None = None,
    *,
    cluster: str = "test",
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    topics: Sequence[str] = (),
    timing: Timing | None = None,
    admission: Admission | None = None,
    wire_version: int = WIRE_VERSION,
) -> Peer:
    """A peer that is not running yet; the same seed gives the same identity."""
    key = SigningKey(os.urandom(32) if seed is None else seed.to_bytes(32, "big"))
    service = OverlayService(
        key,
        listen=listen,
        announce=(),
        cluster=cluster,
        boot=os.urandom(16),
        admission=admission or OpenAdmission(),
        rng=random.Random(1),
        topics=topics,
        timing=timing or Timing(),
        wire_version=wire_version,
    )
    return Peer(service, key)


@asynccontextmanager
async def running(*peers: Peer) -> AsyncIterator[None]:
    """All of them, until the block ends."""
    async with trio.open_nursery() as nursery:
        for peer in peers:
            with trio.fail_after(LIMIT_S):
                await nursery.start(peer.service.run)
        yield
        nursery.cancel_scope.cancel()
