"""Some electors and followers in virtual time, over a network that loses, delays and partitions.

Always: a message crosses the codec; of two peers that cannot reach each other a dial fails after
its time; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Iterable, Sequence

from peerd.ids import PeerId
from peerd.link.messages import Message, decode_message, encode_message
from peerd.link.scheduler_messages import TermProof
from peerd.rendezvous import ranked
from peerd.scheduler.electing import (
    ElectingConfig,
    Event,
    Follow,
    GroupNow,
    Heard,
    Order,
    Send,
    Unreachable,
)
from peerd.scheduler.election import Elector, State
from peerd.scheduler.fence import EPOCH_S, SEAT, Fence, order
from peerd.scheduler.following import Follower

LATENCY_S = 0.02
DIAL_S = 0.3
"""Until a dial to who is not there has failed (behind a partition)."""
SIGNATURE = b"s" * 64


def _name(kind: str, number: int) -> PeerId:
    """Such as the codec takes."""
    return PeerId(f"{kind}{number}".ljust(40, "x"))


class ElectingWorld:
    """`contacts`: whom a follower asks; all electors unless given."""

    def __init__(
        self, electors: int, followers: int, seed: int = 1,
        contacts: dict[PeerId, Sequence[PeerId]] | None = None,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.config = ElectingConfig()
        self.now = 0.0
        self.loss = 0.0
        self.electors = tuple(ranked([_name("E", n + 1) for n in range(electors)], SEAT))
        self.followers = tuple(_name("F", n + 1) for n in range(followers))
        self.contacts = contacts or {}
        self.sent = 0
        self._eligible: tuple[PeerId, ...] = self.electors
        self._cores: dict[PeerId, Elector | Follower] = {}
        self._due: list[tuple[float, int, PeerId, Event]] = []
        self._count = 0
        self._cuts: list[tuple[frozenset[PeerId], frozenset[PeerId]]] = []
        self._followed: dict[PeerId, tuple[int, int, PeerId]] = {}
        self._last: dict[tuple[PeerId, PeerId], float] = {}
        for peer in (*self.electors, *self.followers):
            self._make(peer)
        for peer in tuple(self._cores):
            self.tell(peer, self._group(peer))

    # --- what is to be seen

    def core(self, peer: PeerId) -> Elector | Follower:
        return self._cores[peer]

    def elector(self, peer: PeerId) -> Elector:
        core = self._cores[peer]
        assert isinstance(core, Elector)
        return core

    def follower(self, peer: PeerId) -> Follower:
        core = self._cores[peer]
        assert isinstance(core, Follower)
        return core

    def leaders(self, among: Collection[PeerId] | None = None) -> set[PeerId | None]:
        """Whom those who run heed."""
        return {
            core.leader(self.now) for peer, core in self._cores.items()
            if among is None or peer in among
        }  # fmt: skip

    def peers(self) -> Collection[PeerId]:
        """Those who run."""
        return self._cores.keys()

    def leading(self) -> list[PeerId]:
        return [
            peer for peer, core in self._cores.items()
            if isinstance(core, Elector) and core.state is State.LEADING
        ]  # fmt: skip

    def term(self) -> int:
        return max(core.term for core in self._cores.values())

    # --- what happens

    def start(self, peer: PeerId) -> None:
        """Runs again and knows the group; what it followed before it has forgotten."""
        self._make(peer)
        self.tell(peer, self._group(peer))

    def _make(self, peer: PeerId) -> None:
        fence = Fence(EPOCH_S + 1_000_000, lambda proof: proof.signature == SIGNATURE)
        self._cores[peer] = (
            Elector(peer, lambda term: TermProof(peer, term, SIGNATURE), fence, self.config)
            if peer in self.electors
            else Follower(peer, fence, self.config)
        )
        self._followed.pop(peer, None)

    def _group(self, peer: PeerId) -> GroupNow:
        contacts = self.contacts.get(peer, self._eligible)
        return GroupNow(self._eligible, frozenset(self._eligible), tuple(contacts), True)

    def electors_are(self, eligible: Iterable[PeerId]) -> None:
        """Membership says so to all."""
        self._eligible = tuple(eligible)
        for peer in self._cores:
            self.tell(peer, self._group(peer))

    def crash(self, peer: PeerId, noticed: bool = True) -> None:
        """Noticed: its links break, as after `kill -9`; not: it just says nothing more."""
        del self._cores[peer]
        self._due = [due for due in self._due if due[2] != peer]
        for other in self._cores if noticed else ():
            self._later(LATENCY_S, other, Unreachable(peer))

    def cut(self, one: Iterable[PeerId], other: Iterable[PeerId]) -> None:
        self._cuts.append((frozenset(one), frozenset(other)))

    def heal(self) -> None:
        self._cuts.clear()

    def tell(self, peer: PeerId, event: Event) -> list[Order]:
        core = self._cores.get(peer)
        if core is None:
            return []
        orders = core.handle(event, self.now)
        core.validate(self.now)
        self._carry_out(peer, orders)
        return orders

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            at = min((core.deadline() for core in self._cores.values()), default=end)
            at = min(at, self._due[0][0] if self._due else end)
            if at > end:
                break
            self.now = max(self.now, at)
            if self._due and self._due[0][0] <= self.now:
                _, _, peer, event = heapq.heappop(self._due)
                self.tell(peer, event)
                continue
            for peer, core in tuple(self._cores.items()):
                if core.deadline() <= self.now:
                    self._carry_out(peer, core.expire(self.now))
                    core.validate(self.now)
                    assert core.deadline() > self.now, f"{peer} is due again at once"
            if at == end:
                break
        self.now = end

    def _carry_out(self, peer: PeerId, orders: list[Order]) -> None:
        for found in orders:
            match found:
                case Send(peer=to, message=message):
                    self._send(peer, to, message)
                case Follow(leader=leader) if leader is not None:
                    newest = self._cores[peer].party.fence.newest
                    assert newest is not None
                    known = self._followed.get(peer)
                    assert known is None or order(newest) >= known, "an older term was followed"
                    self._followed[peer] = order(newest)

    def _send(self, peer: PeerId, to: PeerId, message: Message) -> None:
        self.sent += 1
        if to not in self._cores or self._are_cut(peer, to):
            self._later(DIAL_S, peer, Unreachable(to))
        elif self.rng.random() >= self.loss:
            said = decode_message(encode_message(message))
            at = self.now + LATENCY_S + self.rng.uniform(0.0, LATENCY_S)
            at = self._last[peer, to] = max(at, self._last.get((peer, to), 0.0))  # In order.
            self._later(at - self.now, to, Heard(peer, said))
        else:
            self._later(LATENCY_S, to, Unreachable(peer))
            self._later(LATENCY_S, peer, Unreachable(to))

    def _are_cut(self, one: PeerId, other: PeerId) -> bool:
        return any(
            (one in a and other in b) or (one in b and other in a) for a, b in self._cuts
        )  # fmt: skip

    def _later(self, seconds: float, peer: PeerId, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, peer, event))
