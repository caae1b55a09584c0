"""Whole scheduler services under a clock that jumps: partitions and heals, one after another.

Always: a partition swallows what is sent, and links across it end after ten silent seconds; each
member finds out for itself who cannot be reached; what must hold is checked at every step: nobody
follows an older term after a newer, each side that has an elector has a leader of its own within
`ELECTED_S`, whom all there follow within `WITHIN_S`; `HEALED_S` after the heal all follow one, and
`SEEN_S` later it and its standbys see whoever is in a swarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import trio
import trio.testing
from trio._core import _run as trio_run

from peerd.errors import PeerUnreachable
from peerd.gossip.records import Member
from peerd.ids import PeerId, TaskId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import PRIORITY_MAX, SwarmReport
from peerd.scheduler.fence import EPOCH_S, order
from peerd.scheduler.reporting import Facts
from peerd.scheduler.scheduling_service import SchedulerService
from peerd.signing import SigningKey

LATENCY_S: Final = 0.02
SYN_S: Final = (0.0, 1.0, 2.0)
"""A dial into nowhere is tried anew so long after (Linux, tcp_syn_retries), and given up then."""
SILENCE_S: Final = 10.0
"""Links end after so long (link/link.py)."""
BARRED_S: Final = 5.0
"""Membership leaves out for so long who could not be reached."""
ELECTED_S: Final = 4.0
WITHIN_S: Final = 8.0
"""… and all of a side follow it, also those whose contacts are all on another side."""
HEALED_S: Final = 5.0
SEEN_S: Final = 5.0
ADVISED_S: Final = 7.0
"""Everybody is advised each 5 s (AdvisorConfig.every_s)."""
STEP_S: Final = 0.25
MEASURED: Final = ("first_s", "elected_s", "split_s", "healed_s", "seen_s", "term")
TASK: Final = TaskId("ab" * 32)


class Violated(Exception):
    """Something that must hold did not: says what, when, and with which seed."""


@dataclass(eq=False)
class Peer:
    """One service with the member it is, and its view of the group."""

    member: Member
    key: SigningKey
    links: Links
    view: View
    service: SchedulerService
    busy: bool
    newest: tuple[int, int, PeerId] = (0, 0, PeerId(""))


class World:
    """All peers; `side` says who can reach whom."""

    def __init__(self, nursery: trio.Nursery, rng: Random) -> None:
        self.nursery, self.rng = nursery, rng
        self.peers: dict[PeerId, Peer] = {}
        self.side: dict[PeerId, int] = {}
        self.advised: dict[PeerId, int] = {}

    def add(self, *, scheduler: bool, busy: bool) -> Peer:
        key = SigningKey(self.rng.randbytes(32))
        own = key.peer_id
        member = Member(own, ("memory:1",), "", False, scheduler, "")
        links, view = Links(self, own), View(self, own)
        said = SwarmReport(TASK, 100, 1 << 18, 5, True, True, PRIORITY_MAX, 1_000_000)
        known = Facts(5, 1_000, 0, 0, 2, {TASK: said} if busy else {}, {}, {})
        service = SchedulerService(
            key, view, links, self.rng, lambda: known, wall_s=EPOCH_S + 1_000_000
        )
        service.seat.advising.on_advice = lambda advice: self.hears(own, advice.term)
        self.side[own] = 0
        peer = self.peers[own] = Peer(member, key, links, view, service, busy)
        return peer

    def hears(self, peer: PeerId, term: int) -> None:
        """Advice for it; of an older term than what it follows it must not be."""
        if term < self.peers[peer].service.seat.fence.term:
            raise Violated(f"{peer} heard advice of term {term} after a newer one")
        self.advised[peer] = term

    def reach(self, one: PeerId, other: PeerId) -> bool:
        return self.side[one] == self.side[other]

    def split(self, sides: Sequence[Sequence[Peer]]) -> None:
        for number, side in enumerate(sides):
            for peer in side:
                self.side[peer.member.peer] = number
        self.nursery.start_soon(self._end_links)

    async def _end_links(self) -> None:
        await trio.sleep(SILENCE_S)
        for peer in self.peers.values():
            for other in sorted(peer.links.up):
                if not self.reach(peer.member.peer, other):
                    peer.links.down(other)

    def heal(self) -> None:
        self.side = dict.fromkeys(self.side, 0)

    def check(self) -> None:
        """Fencing: what holds at every moment."""
        for peer in self.peers.values():
            newest = peer.service.seat.fence.newest
            if peer.service.leader is None or newest is None:
                continue
            if order(newest) < peer.newest:
                raise Violated(f"{peer.member.peer} follows term {newest.term} after a newer one")
            peer.newest = order(newest)
            peer.service.seat.core.validate(trio.current_time())

    def leaders(self, peers: Sequence[Peer]) -> set[PeerId | None]:
        return {peer.service.leader for peer in peers}


class View:
    """Membership as one peer sees it: all but those that it could not reach lately."""

    synced = True

    def __init__(self, world: World, own: PeerId) -> None:
        self._world, self._own = world, own
        self._barred: dict[PeerId, float] = {}
        self._count = 0

    @property
    def revision(self) -> int:
        now = trio.current_time()
        ended = [peer for peer, until in self._barred.items() if until <= now]
        for peer in ended:
            del self._barred[peer]
        self._count += len(ended)
        return self._count + len(self._world.peers)

    def live(self) -> Sequence[Member]:
        return [p.member for peer, p in self._world.peers.items() if peer not in self._barred]

    def member(self, peer: PeerId) -> Member | None:
        return self._world.peers[peer].member

    def unreachable(self, peer: PeerId) -> None:
        self._barred[peer] = trio.current_time() + BARRED_S
        self._changed()

    def reachable(self, peer: PeerId) -> None:
        if self._barred.pop(peer, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self._count += 1
        self._world.peers[self._own].service.members_changed()

    def holders(self, task: TaskId) -> Sequence[PeerId]:
        return []

    def hold(self, tasks: Sequence[TaskId], active: Sequence[tuple[TaskId, float]]) -> None:
        """Nobody asks."""


class Links:
    """Links of one peer (scheduler.outbox.Links)."""

    def __init__(self, world: World, own: PeerId) -> None:
        self._world, self._own = world, own
        self.up: set[PeerId] = set()

    async def connect(self, peer: PeerId, addresses: Sequence[str] = ()) -> None:
        for pause_s in SYN_S:
            await trio.sleep(pause_s + 2 * LATENCY_S)
            if self._world.reach(self._own, peer):
                break
        else:
            raise PeerUnreachable(f"no link to {peer}")
        for one, other in ((self._own, peer), (peer, self._own)):
            at = self._world.peers[one]
            at.links.up.add(other)
            at.view.reachable(other)
            at.service.link_up(other)

    def connected(self, peer: PeerId) -> bool:
        return peer in self.up

    def send(self, peer: PeerId, message: Message) -> None:
        if peer not in self.up:
            raise PeerUnreachable(f"no link to {peer}")
        self._world.nursery.start_soon(self._deliver, peer, message)

    async def _deliver(self, peer: PeerId, message: Message) -> None:
        await trio.sleep(LATENCY_S)
        if self._world.reach(self._own, peer) and peer in self.up:
            self._world.peers[peer].service.message_arrived(self._own, message)

    def silent_s(self, peer: PeerId) -> float:
        return 0.0

    def late_s(self, peer: PeerId) -> float:
        return 2 * LATENCY_S

    def down(self, peer: PeerId) -> None:
        self.up.discard(peer)
        self._world.peers[self._own].service.link_down(peer)


def elect_often(seeds: int, first: int, *, peers: int, electors: int) -> dict[str, Any]:
    """One seed after the other; the longest that each thing took. Ends at the first Violated."""
    rows = [elect(seed, peers=peers, electors=electors) for seed in range(first, first + seeds)]
    worst = {key: max(row[key] for row in rows) for key in MEASURED}
    return {"partitions": len(rows), "peers": peers, "electors": electors, **worst}


def elect(seed: int, *, peers: int, electors: int) -> dict[str, Any]:
    """One group is split into two or three, and healed; Violated names what did not hold."""
    # As hypothesis-trio does: else trio runs what is ready in an order by chance.
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    clock = trio.testing.MockClock(autojump_threshold=0)
    try:
        return trio.run(_elect, seed, peers, electors, clock=clock)
    except* Violated as group:
        words = "; ".join(str(error) for error in group.exceptions)
        raise Violated(f"seed {seed}, {peers} peers, {electors} electors: {words}") from group


async def _elect(seed: int, peers: int, electors: int) -> dict[str, Any]:
    rng = Random(seed)
    async with trio.open_nursery() as nursery:
        world = World(nursery, rng)
        for number in range(peers):
            world.add(scheduler=number < electors, busy=rng.random() < 0.5)
        everybody = list(world.peers.values())
        for peer in everybody:
            await nursery.start(peer.service.run)
        first_s = await _one_leader(world, [everybody], WITHIN_S, "at first")
        await _watched(world, rng.uniform(0.0, 3.0))
        rng.shuffle(everybody)
        count = rng.choice((2, 2, 3))
        sides = [everybody[number::count] for number in range(count)]
        world.split(sides)
        able = [side for side in sides if any(peer.member.scheduler for peer in side)]
        elected_s = await _elected(world, able)
        split_s = await _one_leader(world, able, WITHIN_S, "on its side")
        await _watched(world, rng.uniform(0.0, 12.0))
        world.heal()
        healed_s = await _one_leader(world, [everybody], HEALED_S, "after the heal")
        seen_s = await _seen(world, everybody)
        await _watched(world, ADVISED_S)
        term = max(peer.service.seat.fence.term for peer in everybody)
        busy = [p for p in everybody if p.busy]
        unheard = sum(world.advised.get(p.member.peer, 0) != term for p in busy)
        if len(busy) > 1 and unheard:
            raise Violated(f"{unheard} of {len(busy)} that download were advised by no one now")
        if len(world.leaders(everybody)) != 1:
            raise Violated("the leader that all followed is not followed any more")
        nursery.cancel_scope.cancel()
    return {
        "seed": seed, "sides": count, "first_s": first_s, "elected_s": elected_s,
        "split_s": elected_s + split_s,
        "healed_s": healed_s, "seen_s": seen_s, "term": term,
    }  # fmt: skip


async def _watched(world: World, seconds: float) -> None:
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        await trio.sleep(STEP_S)
        world.check()


async def _elected(world: World, groups: Sequence[Sequence[Peer]]) -> float:
    """Seconds until somebody leads in each of these groups."""
    began = trio.current_time()
    while True:
        await _watched(world, STEP_S)
        if all(any(peer.service.seat.leads() for peer in group) for group in groups):
            return trio.current_time() - began
        if trio.current_time() - began > ELECTED_S:
            raise Violated(f"after {ELECTED_S} s nobody leads on one side")


async def _one_leader(
    world: World, groups: Sequence[Sequence[Peer]], within_s: float, when: str
) -> float:
    """Seconds until each of these groups has one leader, which is of it."""
    began = trio.current_time()
    while True:
        await _watched(world, STEP_S)
        found = [world.leaders(group) for group in groups]
        own = [{peer.member.peer for peer in group} for group in groups]
        if all(len(one) == 1 and one <= of for one, of in zip(found, own, strict=True)):
            return trio.current_time() - began
        if trio.current_time() - began > within_s:
            raise Violated(f"{within_s} s {when}, they follow {found}")


async def _seen(world: World, everybody: Sequence[Peer]) -> float:
    """Seconds until who leads, and both standbys, see all who are in a swarm."""
    busy = {p.member.peer for p in everybody if p.busy}
    began = trio.current_time()
    while True:
        watching = [peer for peer in everybody if peer.service.seat.sees(trio.current_time())]
        if all(busy <= peer.service.seat.advising.topology.peers.keys() for peer in watching):
            return trio.current_time() - began
        if trio.current_time() - began > SEEN_S:
            missing = [
                len(busy - peer.service.seat.advising.topology.peers.keys()) for peer in watching
            ]
            raise Violated(f"{SEEN_S} s after the heal their pictures lack {missing} peers")
        await _watched(world, STEP_S)


def alone(seconds: float) -> dict[str, Any]:
    """One elector in a swarm of its own, for so long: whether it leads, decides, and how often it
    wakes."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_alone, seconds, clock=clock)


async def _alone(seconds: float) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        world = World(nursery, Random(1))
        service = world.add(scheduler=True, busy=True).service
        ticks = _count_calls(service)
        await nursery.start(service.run)
        await trio.sleep(seconds)
        picture = service.leadership().picture
        told = {
            "leads": service.seat.leads(),
            "decisions": picture.decisions if picture is not None else 0,
            "wakes": len(ticks),
        }
        nursery.cancel_scope.cancel()
    return told


def _count_calls(service: SchedulerService) -> list[float]:
    """The times at which its advising was looked after."""
    times: list[float] = []
    tick = service.seat.advising.tick

    def counted(now: float) -> None:
        times.append(now)
        tick(now)

    service.seat.advising.tick = counted  # type: ignore[method-assign]
    return times
