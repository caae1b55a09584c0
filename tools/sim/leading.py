"""How soon all follow one leader again after something befell them, and how soon it sees all.

Always: it is looked at from outside, as `peerd status` of each peer would say; what is not so
before the next thing happens, or everything is done, has no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer
    from tools.sim.scheduling import Scheduler
    from tools.sim.world import World

LOOK_S: Final = 0.1
ROWS_MAX: Final = 64


@dataclass
class Row:
    """Seconds since it happened. `led_s`: each side follows one of its own, or nobody where none of
    it may lead; `seen_s`: who leads also sees everybody there who downloads."""

    after: str
    at: float
    led_s: float | None = None
    seen_s: float | None = None

    def told(self) -> dict[str, Any]:
        return {"after": self.after, "led_s": _rounded(self.led_s), "seen_s": _rounded(self.seen_s)}


class Leaders:
    """Of a world that has schedulers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: list[Row] = []

    def befell(self, what: str) -> None:
        if self._world.scenario.peers.schedulers and len(self.rows) < ROWS_MAX:
            self.rows.append(Row(what, self._world.clock.now))
            self._look(self.rows[-1])

    def _look(self, row: Row) -> None:
        now = self._world.clock.now
        sides = self._sides()
        leaders = [self._leader(side, now) for side in sides]
        if row.led_s is None and all(led for led, _ in leaders):
            row.led_s = now - row.at
        if row.led_s is not None and all(
            led and (by is None or _sees(by, side))
            for side, (led, by) in zip(sides, leaders, strict=True)
        ):
            row.seen_s = now - row.at
        elif row is self.rows[-1]:
            self._world.clock.after(LOOK_S, self._look, row)

    def _sides(self) -> list[list[SimPeer]]:
        """Who can reach whom."""
        sides: dict[int, list[SimPeer]] = {}
        for peer in self._world.peers:
            if peer.alive and not peer.silent and peer.views.synced:
                sides.setdefault(self._world.network.side.get(peer.number, 0), []).append(peer)
        return list(sides.values())

    @staticmethod
    def _leader(side: Sequence[SimPeer], now: float) -> tuple[bool, SimPeer | None]:
        """Whether it is settled who leads them, and who that is; None: nobody may."""
        told = {scheduler.seat.leader(now) for scheduler in _schedulers(side)}
        if not any(peer.member.scheduler for peer in side):
            return told == {None}, None
        by = next((peer for peer in side if told == {peer.own}), None)
        return by is not None, by


def _schedulers(side: Iterable[SimPeer]) -> list[Scheduler]:
    return [peer.scheduler for peer in side if peer.scheduler is not None]


def _sees(leader: SimPeer, side: Sequence[SimPeer]) -> bool:
    assert leader.scheduler is not None
    seen = leader.scheduler.seat.advising.topology.peers
    return all(peer.own in seen for peer in side if any(copy.going for copy in peer.copies))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
