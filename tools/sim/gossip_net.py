"""Many gossip cores in virtual time, without trio: seeded, and the same each run.

Always: a connection delivers in order after a constant delay; a dial to nobody is refused at once,
one across a partition fails after 3 s; after each step a core's deadline lies in the future.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from peerd.gossip.events import (
    Arrived,
    Connected,
    Dial,
    DialFailed,
    Drop,
    Event,
    Leave,
    NeighbourDown,
    NeighbourUp,
    Order,
    Remember,
    Send,
)
from peerd.gossip.exchange import Exchange
from peerd.gossip.membership import IdentityConflict, Past
from peerd.gossip.records import OwnFacts
from peerd.ids import PeerId
from peerd.signing import SigningKey, verify

DELAY_S = 0.02
DIAL_S = 0.25
WALL_S = 1_800_000_000.0

_verified: dict[tuple[PeerId, bytes, bytes], bool] = {}


def verify_once(peer: PeerId, purpose: str, payload: bytes, signature: bytes) -> bool:
    """The peers of a simulation share their verifications: N² of them would be all it does."""
    key = (peer, payload, signature)
    if key not in _verified:
        _verified[key] = verify(peer, purpose, payload, signature)
    return _verified[key]


class Node:
    def __init__(self, number: int, key: SigningKey, core: Exchange) -> None:
        self.number = number
        self.key = key
        self.peer = key.peer_id
        self.core = core
        self.alive = True
        self.sent_bytes = 0
        self.sent_messages = 0
        self.dials = 0
        self.remembered: Remember | None = None
        self.conflicts: list[IdentityConflict] = []

    @property
    def address(self) -> str:
        return f"10.0.{self.number >> 8}.{self.number & 255}:4001"

    def sees(self) -> set[PeerId]:
        return {member.peer for member in self.core.membership.live()}

    def knows(self) -> set[PeerId]:
        return {record.peer for record in self.core.membership.others()} | {self.peer}


class SimNet:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 1000.0
        self.nodes: list[Node] = []
        self.sides: dict[int, int] = {}
        self._runs: dict[PeerId, list[Node]] = {}
        self._links: set[frozenset[int]] = set()
        self._steps: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    # --- who is there

    def start(
        self,
        number: int,
        bootstrap: Sequence[str] = (),
        *,
        past: Past | None = None,
        known: Sequence[str] = (),
        wall_s: float | None = None,
        key_of: int | None = None,
    ) -> Node:
        """A new run of peer `number` (with the identity of `key_of`, if it is a clone)."""
        seed = (number if key_of is None else key_of) + 1
        key = SigningKey(seed.to_bytes(32, "big"))
        address = f"10.0.{number >> 8}.{number & 255}"
        facts = OwnFacts(
            cluster="production",
            name=f"node-{number:04d}.example",
            zone="europe/paris/rack-12",
            overlay_addresses=(f"/ip4/{address}/tcp/4001/p2p/{key.peer_id}",),
            link_addresses=(f"{address}:4002",),
        )
        core = Exchange(
            key,
            facts,
            boot=self.rng.randbytes(16),
            past=past or Past(),
            wall_s=WALL_S + self.now if wall_s is None else wall_s,
            bootstrap=bootstrap,
            known=known,
            rng=Random(self.rng.random()),
            now=self.now,
            verifier=verify_once,
        )
        node = Node(number, key, core)
        self.nodes.append(node)
        self._runs.setdefault(node.peer, []).append(node)
        self._carry_out(node, core.expire(self.now))
        return node

    def kill(self, node: Node) -> None:
        node.alive = False
        for other in self.alive():
            self._unlink(node, other)

    def leave(self, node: Node) -> None:
        self.tell(node, Leave())
        self.after(3 * DELAY_S, lambda: self.kill(node))

    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.alive]

    def split(self, *sides: Sequence[Node]) -> None:
        self.sides = {node.number: side for side, nodes in enumerate(sides) for node in nodes}
        for one in self.alive():
            for other in self.alive():
                if not self._same_side(one, other):
                    self._unlink(one, other)

    def heal(self) -> None:
        self.sides = {}

    def _same_side(self, one: Node, other: Node) -> bool:
        return self.sides.get(one.number, 0) == self.sides.get(other.number, 0)

    # --- time

    def after(self, delay_s: float, step: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._steps, (self.now + delay_s, self._count, step))

    def run(self, duration_s: float) -> None:
        self.run_until(lambda: False, duration_s)

    def run_until(self, done: Callable[[], bool], limit_s: float) -> float:
        """Seconds until `done()`, looked at each 50 ms; `limit_s` if it never was."""
        begin = self.now
        look_at = begin
        while self.now < begin + limit_s:
            if self.now >= look_at:
                if done():
                    return self.now - begin
                look_at = self.now + 0.05
            if not self._steps or self._steps[0][0] > begin + limit_s:
                break
            at, _, step = heapq.heappop(self._steps)
            self.now = max(self.now, at)
            step()
        self.now = begin + limit_s
        return limit_s

    def tell(self, node: Node, event: Event) -> None:
        if node.alive:
            self._carry_out(node, node.core.handle(event, self.now))

    def _carry_out(self, node: Node, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Send(peer=peer, payload=payload):
                    node.sent_bytes += len(payload)
                    node.sent_messages += 1
                    self.after(DELAY_S, lambda p=peer, b=payload: self._deliver(node, p, b))  # type: ignore[misc]
                case Dial(address=address):
                    node.dials += 1
                    self._dial(node, address)
                case Drop(peer=peer):
                    for other in self._by_peer(peer):
                        self.after(
                            2 * DELAY_S,
                            lambda o=other: self._unlink(node, o),  # type: ignore[misc]
                        )
                case Remember():
                    node.remembered = order
                case IdentityConflict():
                    node.conflicts.append(order)
        self._arm(node)

    def _arm(self, node: Node) -> None:
        deadline = node.core.deadline()
        assert deadline > self.now, f"seed {self.seed}: a core that wants to be called for ever"
        if deadline < float("inf"):
            self.after(deadline - self.now, lambda: self._wake(node, deadline))

    def _wake(self, node: Node, deadline: float) -> None:
        # Only the newest timer of a node counts; those before it are void.
        if node.alive and node.core.deadline() <= self.now:
            self._carry_out(node, node.core.expire(self.now))

    # --- connections

    def _by_peer(self, peer: PeerId) -> list[Node]:
        return [node for node in self._runs.get(peer, ()) if node.alive]

    def _deliver(self, node: Node, peer: PeerId, payload: bytes) -> None:
        for other in self._by_peer(peer):
            if frozenset((node.number, other.number)) in self._links:
                self.tell(other, Arrived(node.peer, payload))

    def _dial(self, node: Node, address: str) -> None:
        host, _, expected = address.partition("/p2p/")
        text = host.removeprefix("/ip4/").replace("/tcp/", ":")
        found = [
            other
            for other in self.alive()
            if other.address == text and expected in ("", other.peer) and other is not node
        ]
        if found and self._same_side(node, found[0]):
            self.after(DIAL_S, lambda: self._connect(node, found[0], address))
        else:
            hang_s = 3.0 if found else 0.01
            self.after(hang_s, lambda: self.tell(node, DialFailed(address)))

    def _connect(self, node: Node, other: Node, address: str) -> None:
        if not (node.alive and other.alive and self._same_side(node, other)):
            self.tell(node, DialFailed(address))
            return
        link = frozenset((node.number, other.number))
        if link not in self._links and node.peer != other.peer:
            # By the id two clones are one peer: its newer connection takes the older one's place.
            for one, two in ((node, other), (other, node)):
                for clone in self._by_peer(two.peer):
                    self._unlink(one, clone)
            self._links.add(link)
            self.tell(other, NeighbourUp(node.peer))
            self.tell(node, NeighbourUp(other.peer))
        self.tell(node, Connected(address, other.peer))

    def _unlink(self, one: Node, other: Node) -> None:
        link = frozenset((one.number, other.number))
        if link in self._links:
            self._links.discard(link)
            self.tell(one, NeighbourDown(other.peer))
            self.tell(other, NeighbourDown(one.peer))


def grown(count: int, seed: int) -> SimNet:
    """A group of `count` that joined one after the other by the first, and knows itself."""
    net = SimNet(seed)
    first = net.start(0)
    for number in range(1, count):
        net.after(number * 0.1, partial(net.start, number, [first.address]))
    net.run(count * 0.1 + 30.0)
    return net
