"""What befalls the peers of a scenario: kills, partitions, slow, silent and lying ones.

Always: each happening runs at its time or at its progress, as often as it says; never are more
than half of the peers down at once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from tools.sim.bounds import moment
from tools.sim.clock import START_S
from tools.sim.scenario import Happening

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer
    from tools.sim.world import World

HEAL_S: Final = 5.0
"""The overlay is whole again within so long (promised; tests/gossip measure it)."""


class Happenings:
    """`next_pieces`: how many pieces all hold together when something is due again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.next_pieces: float = inf
        self._by_progress: list[tuple[float, Happening]] = []

    def begin(self) -> None:
        world = self._world
        total = sum(content.count for _, content in world.wanted)
        for happening in world.scenario.events:
            if happening.at_s is not None:
                world.clock.at(START_S + happening.at_s, self._happen, happening, 1)
            elif happening.at_progress is not None:
                self._by_progress.append((happening.at_progress * total, happening))
        self._by_progress.sort(key=lambda each: each[0])
        self._arm()

    def progressed(self, pieces: int) -> None:
        while self._by_progress and self._by_progress[0][0] <= pieces:
            _, happening = self._by_progress.pop(0)
            self._world.clock.after(0.0, self._happen, happening, 1)
        self._arm()

    def _arm(self) -> None:
        self.next_pieces = self._by_progress[0][0] if self._by_progress else inf

    def _happen(self, happening: Happening, time: int) -> None:
        world = self._world
        world.trace.note(world.clock.now, 0, "event", time, happening.do)
        _DOERS[happening.do](self, happening)
        if happening.do in _OF_LEADERS:
            world.leaders.befell(happening.do)
        if time < happening.times:
            world.clock.after(happening.every_s, self._happen, happening, time + 1)

    # --- each

    def _kill(self, happening: Happening) -> None:
        world = self._world
        for peer in self._who(happening):
            down = sum(not each.alive for each in world.peers)
            if peer.alive and 2 * (down + 1) <= len(world.peers):
                peer.kill()
                world.trace.note(world.clock.now, peer.number, "killed", 0, "")
                peer.comes_back = happening.restart_after_s is not None
                if happening.restart_after_s is not None:
                    world.clock.after(happening.restart_after_s, self._restart, peer)
                else:
                    world.gone += sum(copy.done_at is None for copy in world.wanted_by(peer))

    def _restart(self, peer: SimPeer) -> None:
        if not peer.alive:
            self._world.restart(peer)

    def _partition(self, happening: Happening) -> None:
        peers = self._world.peers
        side = {peer.number: peer.number % happening.groups for peer in peers}
        if not isinstance(happening.who, str):
            side = {peer.number: int(peer.number in happening.who) for peer in peers}
        self._world.network.partition(side)
        self._world.moments.append(moment(self._world))

    def _heal(self, happening: Happening) -> None:
        world = self._world
        world.network.heal()
        world.moments.append(moment(world))
        for peer in world.peers:
            if peer.alive:
                world.clock.after(world.rng.random() * HEAL_S, peer.guarded(peer.views.heal))

    def _slow(self, happening: Happening) -> None:
        for peer in self._who(happening):
            peer.up.set_rate(peer.rate * self._world.up_bytes_s * happening.factor)
            peer.troubled = True

    def _silence(self, happening: Happening) -> None:
        for peer in self._who(happening):
            if peer.alive and not peer.silent:
                peer.silence()
                peer.troubled = True

    def _wake(self, happening: Happening) -> None:
        for peer in self._world.peers:
            peer.wake()

    def _hold(self, happening: Happening) -> None:
        world = self._world
        for peer in self._who(happening):
            for copy in peer.copies:
                content = copy.content
                copy.store.create(content.version_by(peer), content.nobody)
                for index in range(int(happening.factor * content.count)):
                    world.held(copy, peer, index, content.attest(peer, index), None)
            peer.refused = peer.troubled = True

    def _cut_off(self, happening: Happening) -> None:
        for peer in self._who(happening):
            peer.cut_off = True
            for run in (copy.run for copy in peer.copies if copy.run is not None):
                for lease in run.leases.values():
                    lease.origin_lost()

    def _lie(self, happening: Happening) -> None:
        for peer in self._who(happening):
            peer.lies = peer.troubled = True

    def _misread(self, happening: Happening) -> None:
        for peer in self._who(happening):
            peer.misreads = peer.troubled = True

    def _who(self, happening: Happening) -> list[SimPeer]:
        world, who = self._world, happening.who
        if not isinstance(who, str):
            return [world.peers[number] for number in who]
        if who == "seeds":
            return [peer for peer in world.peers if peer.seed]
        if who == "keeper":
            keeper = world.keeper()
            return [keeper] if keeper is not None else []
        if who == "schedulers":
            return [peer for peer in world.peers if peer.member.scheduler]
        able = [peer for peer in world.peers if peer.alive and not peer.silent]
        if who == "leader":
            return [x for x in able if x.scheduler is not None and x.scheduler.seat.leads()]
        if who == "reader":
            able = [p for p in able if any(x.run is not None and x.run.leases for x in p.copies)]
        return [world.rng.choice(able)] if able else []


_OF_LEADERS: Final = frozenset({"kill", "partition", "heal", "silence"})
_DOERS: Final[dict[str, Callable[[Happenings, Happening], None]]] = {
    "kill": Happenings._kill,
    "partition": Happenings._partition,
    "heal": Happenings._heal,
    "slow": Happenings._slow,
    "silence": Happenings._silence,
    "wake": Happenings._wake,
    "hold": Happenings._hold,
    "cut-off": Happenings._cut_off,
    "lie": Happenings._lie,
    "misread": Happenings._misread,
}
