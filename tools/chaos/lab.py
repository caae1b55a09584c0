"""The harness: an origin and daemons in a network lab, asked at one moment, and what came of it.

Always: who is not `hurt` must not fail once; who is, is asked again as a user would. A run ends
within its time, and with it everything that it started. Randomness comes from the shape's seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from peerd.errors import PeerdError
from peerd.ids import PeerId
from peerd.rendezvous import ranked
from tools.chaos import janitor
from tools.chaos.liar import BAD_LEADERS
from tools.chaos.origin import Origin
from tools.chaos.peer import OVERLAY_PORT, POLL_S, Got, Peer, Spoiled
from tools.chaos.verdict import Finding, Measured, Shape
from tools.machine import Processors
from tools.netlab import Lab as Network
from tools.netlab import LabSpec, PeerSpec, goodput_bytes_s

ACQUAINTED_S: Final = 40.0
BOOTSTRAPS: Final = 2
"""As docs/operations.md advises: a few stable ones, the same everywhere."""
TRIES_MAX: Final = 50
SLACK_S: Final = 90.0
"""On top of four times what the bytes need: whoever is not done by then has failed."""


@dataclass
class Asked:
    """One peer's wish for the content."""

    peer: Peer
    task: str = ""
    progress: float = 0.0
    got: Got | None = None
    done_at: float | None = None
    errors: list[str] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class Setting:
    """What a scenario changes before anybody starts: by the peer's number."""

    modes: dict[int, str] = field(default_factory=dict)
    environments: dict[int, dict[str, str]] = field(default_factory=dict)
    """{home} in a value is the peer's folder."""
    disks_bytes: dict[int, int] = field(default_factory=dict)
    """A data directory of its own, so large."""


class Lab:
    def __init__(self, shape: Shape, network: Network, origin: Origin, folder: Path) -> None:
        self.shape = shape
        self.network = network
        self.origin = origin
        self.folder = folder
        self.rng = random.Random(shape.seed)
        self.peers: list[Peer] = []
        self.seeds: list[Peer] = []
        self.liars: list[Peer] = []
        self.hurt: set[str] = set()
        """Who was killed, stopped, starved or cut off: not judged by time, and asked again."""
        self.lost_bytes: dict[str, int] = {}
        """What the origin sent to a peer that was hit or lied, and nobody else can have."""
        self.alone_bytes = 0
        """What was held by those that were hit, when they were, and by nobody else alive."""
        self.findings: list[Finding] = []
        self.asked: dict[str, Asked] = {}
        self.asked_at = self.machine_busy = 0.0
        self._changed = trio.Event()

    # --- where things are

    @property
    def everybody(self) -> list[Peer]:
        return [*self.peers, *self.seeds]

    @property
    def limit_s(self) -> float:
        return SLACK_S + 4 * self.shape.size_bytes / goodput_bytes_s(self.shape.rate_bit_s)

    def untouched(self) -> list[Peer]:
        liars = {peer.name for peer in self.liars}
        return [peer for peer in self.peers if peer.name not in self.hurt | liars]

    def alive(self) -> list[Peer]:
        return [peer for peer in self.everybody if peer.up.is_set()]

    def keeper(self) -> Peer:
        """Who should keep the task now, by the rule that anyone can apply."""
        by_id = {PeerId(peer.peer_id): peer for peer in self.alive()}
        return by_id[ranked(by_id, self.task())[0]]

    def task(self) -> str:
        for asked in self.asked.values():
            if asked.task:
                return asked.task
        raise Spoiled("nobody knows the task yet")

    async def leader(self, among: Sequence[Peer] | None = None) -> Peer | None:
        """Which of these, or of all that are alive, they all follow as the scheduler's leader;
        None: nobody, several, or one of the others."""
        asked = self.alive() if among is None else among
        told = {(await peer.status())["leader"] for peer in asked}
        by_id = {peer.peer_id: peer for peer in asked}
        return by_id.get(told.pop()) if len(told) == 1 else None

    async def led(
        self, within_s: float, among: Sequence[Peer] | None = None, *, not_by: Peer | None = None
    ) -> float:
        """Waits until they have one leader; how long it took. inf: longer than that."""
        began = trio.current_time()
        with trio.move_on_after(within_s):
            while True:
                if await self.leader(among) not in (None, not_by):
                    return trio.current_time() - began
                await trio.sleep(POLL_S)
        return float("inf")

    # --- what is done to them

    async def kill(self, peer: Peer) -> None:
        """kill -9; what it alone held is found out, and forgiven."""
        self.hurt.add(peer.name)
        peer.kill()
        await self.forgive(peer)
        self.tell()

    async def forgive(self, peer: Peer) -> None:
        """What it alone holds, and what is on its way to it: the others have to have it again."""
        held = peer.pieces()
        others = [other for other in self.alive() if other is not peer]
        elsewhere: set[int] = set().union(*(other.pieces() for other in others))
        self.alone_bytes += sum(size for index, (size, _) in held.items() if index not in elsewhere)
        await self.forgive_in_flight(peer)

    async def forgive_in_flight(self, peer: Peer) -> None:
        """What the origin has sent to it, and its journal does not have."""
        sent_bytes = (await self.origin.sent()).by_address.get(peer.address, 0)
        own_bytes = sum(size for size, own in peer.pieces().values() if own)
        self.lost_bytes[peer.name] = max(0, sent_bytes - own_bytes)

    async def restart(self, peer: Peer) -> None:
        peer.start()
        await peer.ready()
        self.tell()

    async def stopped(self, peer: Peer, seconds: float) -> None:
        """SIGSTOP, then SIGCONT; meanwhile it is as good as dead, and is forgiven the same."""
        self.hurt.add(peer.name)
        peer.stop()
        await self.forgive(peer)
        await trio.sleep(seconds)
        # Until here the kernel took what the origin went on sending to it.
        await self.forgive_in_flight(peer)
        peer.cont()

    def partition(self, *groups: Sequence[Peer]) -> None:
        self.network.partition(*([peer.name for peer in group] for group in groups))

    def cut_origin_off(self, peers: Sequence[Peer]) -> None:
        self.network.partition(["origin"], [peer.name for peer in peers])

    def heal(self) -> None:
        self.network.heal()

    def rate(self, peer: Peer, rate_bit_s: int) -> None:
        self.network.rate(peer.name, rate_bit_s, rate_bit_s)

    # --- what is waited for

    def tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    def over(self) -> bool:
        """Whether everybody who was not hurt is done."""
        return all(self.asked[peer.name].over for peer in self.untouched())

    async def progress(self, share: float) -> None:
        """Waits until the untouched hold so much of the content, on average."""

        def mean() -> float:
            shares = [self.asked[peer.name].progress for peer in self.untouched()]
            return sum(shares) / len(shares)

        await self.until(lambda: mean() >= share or self.over())
        if self.over():
            raise Spoiled(f"the download was over before it could be disturbed at {share:.0%}")

    async def pause(self, seconds: float) -> bool:
        """Sleeps, but not longer than the download runs. False: it is over."""
        with trio.move_on_after(seconds):
            await self.until(self.over)
        return not self.over()

    async def acquainted(self, within_s: float) -> float:
        """Waits until all know all; how long it took. inf: longer than that."""
        began = trio.current_time()
        with trio.move_on_after(within_s):
            while True:
                known = [(await peer.status())["peers"] for peer in self.alive()]
                if min(known) >= len(self.alive()) - 1:
                    return trio.current_time() - began
                await trio.sleep(POLL_S)
        return float("inf")

    # --- the download

    async def ask_everybody(self) -> None:
        """All at one moment; returns when each has it, or has failed."""
        wanting = [peer for peer in self.peers if peer not in self.liars]
        self.asked_at = trio.current_time()
        processors = Processors()
        async with trio.open_nursery() as wishes:
            for peer in self.peers:
                wishes.start_soon(self._want, self.asked[peer.name])
            await self.until(lambda: all(self.asked[peer.name].over for peer in wanting))
            self.machine_busy = processors.busy()
            wishes.cancel_scope.cancel()  # A liar need not come to an end.

    async def _want(self, asked: Asked) -> None:
        wish: dict[str, Any] = {"url": self.origin.url, "timeout_s": self.limit_s}
        if self.shape.known_digest:
            wish["digest"] = f"sha256:{self.origin.sha256}"

        def saw(event: dict[str, Any]) -> None:
            asked.task = event["task"]
            if event["event"] == "done":
                asked.progress, asked.done_at = 1.0, trio.current_time()
            elif event["bytes_total"]:
                asked.progress = event["bytes_held"] / event["bytes_total"]
            self.tell()

        with trio.move_on_after(self.limit_s):
            for _ in range(TRIES_MAX):
                try:
                    await asked.peer.up.wait()
                    asked.got = await asked.peer.get(wish, saw)
                    break
                except PeerdError as error:
                    asked.errors.append(f"{error.code}: {error}")
                    if asked.peer.name not in self.hurt:
                        break
                    await trio.sleep(POLL_S)
        asked.over = True
        self.tell()

    async def measured(self) -> Measured:
        """What it came to, once everybody is done."""
        wanting = [self.asked[peer.name] for peer in self.peers if peer not in self.liars]
        known = {self.origin.sha256, self.origin.sha256_changed}
        ends = [self.asked[peer.name].done_at for peer in self.untouched()]
        sent = await self.origin.sent()
        spared = sum(self.lost_bytes.values()) + self.alone_bytes
        spared += sum(sent.by_address.get(peer.address, 0) for peer in self.liars)
        for asked in wanting:
            if asked.got is None:
                words = "; ".join(asked.errors[-2:]) or "not done in time"
                self.findings.append(Finding(asked.peer.name, words[:160], "finishes", False))
        died = [peer.name for peer in self.alive() if not peer.runs()]
        if died:
            self.findings.append(Finding("died unasked", ", ".join(died), "nobody", False))
        hit = [asked.done_at for asked in wanting if asked.peer.name in self.hurt]
        if hit and all(hit):
            last_s = max(end for end in hit if end is not None) - self.asked_at
            self.findings.append(Finding("those hit, done", f"{last_s:.1f} s", "(told only)", True))
        return Measured(
            asked=len(wanting),
            finished=sum(asked.got is not None for asked in wanting),
            right=sum(asked.got is not None and asked.got.sha256 in known for asked in wanting),
            seconds=max((end - self.asked_at for end in ends if end is not None), default=0.0),
            origin_bytes=sent.content_bytes,
            spared_bytes=spared,
            machine_busy=self.machine_busy,
            findings=tuple(self.findings),
        )


@asynccontextmanager
async def standing(shape: Shape, setting: Setting) -> AsyncIterator[Lab]:
    """A lab whose daemons all know each other."""
    names = [f"p{number}" for number in range(shape.peers + shape.seed_peers)]
    rate = shape.rate_bit_s
    spec = LabSpec(
        f"chaos{os.getpid()}", tuple(PeerSpec(name, rate, rate) for name in ["origin", *names])
    )
    with janitor.folder() as folder, Network.create(spec) as network:
        where = network.command("origin", [])
        origin = await Origin.start(
            where, network.address("origin"), shape.size_bytes, shape.seed, folder
        )
        try:
            lab = Lab(shape, network, origin, folder)
            for number, name in enumerate(names):
                _place(lab, setting, number, name)
            await _all_ready(lab)
            yield lab
        finally:
            origin.close()


def _place(lab: Lab, setting: Setting, number: int, name: str) -> None:
    network = lab.network
    doors = [f"{network.address(f'p{other}')}:{OVERLAY_PORT}" for other in range(BOOTSTRAPS)]
    own = f"{network.address(name)}:{OVERLAY_PORT}"
    seed, home = number >= lab.shape.peers, lab.folder / name
    peer = Peer(
        name, network.address(name), home, network.command(name, []),
        {
            "bootstrap": [door for door in doors if door != own], "seed_peer": seed,
            "scheduler": 0 <= lab.shape.peers - 1 - number < lab.shape.schedulers,
        },
        setting.modes.get(number, ""), _at_home(setting.environments.get(number, {}), home),
    )  # fmt: skip
    (lab.seeds if seed else lab.peers).append(peer)
    if not seed:
        lab.asked[name] = Asked(peer)
    if peer.mode and peer.mode not in BAD_LEADERS:
        lab.liars.append(peer)
    peer.data_dir.mkdir(parents=True)
    if number in setting.disks_bytes:
        janitor.mount(peer.data_dir, setting.disks_bytes[number])


def _at_home(environment: dict[str, str], home: Path) -> dict[str, str]:
    return {key: value.format(home=home) for key, value in environment.items()}


async def _all_ready(lab: Lab) -> None:
    for peer in lab.everybody:
        peer.start()
    async with trio.open_nursery() as starting:
        for peer in lab.everybody:
            starting.start_soon(peer.ready)
    if await lab.acquainted(ACQUAINTED_S) == float("inf"):
        raise Spoiled(f"the daemons do not find each other in {ACQUAINTED_S:g} s")
