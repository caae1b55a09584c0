"""A daemon that breaks the rules, for stories that catch it: `python -m tools.chaos.liar MODE …`.

Always: it is the real daemon but for one thing: `corrupt` sends wrong bytes of pieces, `stall`
takes requests and sends nothing, `close` closes the link instead of sending, `attest` vouches for
bytes that are not the origin's (and holds and serves them), `length` says that the content has
7 MiB, whatever the origin says. `walled` is honest, but nobody can dial its link port: it announces
one that is closed. `rubbish` and `late` are honest but as the scheduler's leader: what it advises
is drawn by chance, and names peers that there are not; or it comes 2 s later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import trio

from peerd.daemon import wiring
from peerd.daemon.__main__ import main
from peerd.ids import PeerId, TaskId
from peerd.link.scheduler_messages import (
    FIRST_MAX,
    Advice,
    AdvisedKeeper,
    AdvisedParent,
    AdvisedPeer,
)
from peerd.link.service import LinkService
from peerd.scheduler import scheduling
from peerd.scheduler.advisor import Advisor
from peerd.scheduler.scheduling_service import SchedulerService
from peerd.scheduler.topology import InSwarm, Topology
from peerd.signing import SigningKey
from peerd.swarm import extents, reading, serving

RNG = Random()


def corrupt() -> None:
    honest = serving._Source.read_into

    def read_into(self: Any, offset_bytes: int, buffer: memoryview) -> None:
        honest(self, offset_bytes, buffer)
        buffer[0] ^= 0xFF

    serving._Source.read_into = read_into  # type: ignore[method-assign]


def stall() -> None:
    async def send_piece(self: Any, *arguments: Any) -> None:
        await trio.sleep_forever()

    LinkService.send_piece = send_piece  # type: ignore[assignment, method-assign]


def close() -> None:
    async def send_piece(self: LinkService, peer: Any, *arguments: Any) -> None:
        await self.close(peer, "usage", "no")

    LinkService.send_piece = send_piece  # type: ignore[assignment, method-assign]


def attest() -> None:
    honest = reading.LeasedRead._hash_and_write

    def hash_and_write(self: Any, stored: Any, index: Any, parts: Any) -> Any:
        wrong = bytearray(b"".join(parts))
        wrong[0] ^= 0xFF
        return honest(self, stored, index, [memoryview(wrong)])

    reading.LeasedRead._hash_and_write = hash_and_write  # type: ignore[method-assign]


def length() -> None:
    honest = extents.version_read

    def version_read(task: Any, digest: Any, facts: Any, key: Any) -> Any:
        return honest(task, digest, msgspec.structs.replace(facts, length_bytes=7 << 20), key)

    reading.version_read = version_read  # type: ignore[attr-defined]


def walled() -> None:
    wiring._link_addresses = lambda config, listening: ["127.0.0.1:1"]


class Rubbish(Advisor):
    """Draws by chance whatever it advises; some of those that it names are nobody."""

    def decide(
        self, seen: Topology, task: TaskId, peer: PeerId, said: InSwarm, now: float
    ) -> AdvisedPeer:
        self.decisions += 1
        known = [each for each in seen.peers if each != peer]
        some = [_nobody(), *RNG.sample(known, min(len(known), 2)), _nobody()]
        parents = tuple(AdvisedParent(each, RNG.randrange(1 << 7)) for each in some)
        first = tuple(RNG.sample([*known, _nobody()], min(len(known), FIRST_MAX)))
        return AdvisedPeer(peer, task, RNG.randrange(1 << 16), parents, first)

    def keepers(self, seen: Topology, now: float) -> list[AdvisedKeeper]:
        everybody = list(seen.peers)
        return [
            AdvisedKeeper(
                due.peer, due.task, tuple(RNG.sample(everybody, len(everybody) - 1)),
                RNG.randrange(3),
            )
            for due in super().keepers(seen, now)
        ]  # fmt: skip


def _nobody() -> PeerId:
    return SigningKey(RNG.randbytes(32)).peer_id


def rubbish() -> None:
    scheduling.Advisor = Rubbish  # type: ignore[attr-defined]


def late() -> None:
    at_once = SchedulerService._send

    def send(self: Any, peer: Any, message: Any) -> None:
        async def later() -> None:
            await trio.sleep(LATE_S)
            at_once(self, peer, message)

        if isinstance(message, Advice):
            trio.lowlevel.spawn_system_task(later)
        else:
            at_once(self, peer, message)

    SchedulerService._send = send  # type: ignore[method-assign]


LATE_S = 2.0
BAD_LEADERS = ("rubbish", "late")
"""Modes of a daemon whose bytes are right."""

MODES: dict[str, Callable[[], None]] = {
    "corrupt": corrupt,
    "stall": stall,
    "close": close,
    "attest": attest,
    "length": length,
    "walled": walled,
    "rubbish": rubbish,
    "late": late,
}

if __name__ == "__main__":
    MODES[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
