"""A whole group of peers in one process: real cores and shells, in-memory links, store and origin.

Always: what one sends arrives at the other in order, after a moment; a peer that is cut off loses
all its links at once. Runs under trio's autojump clock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import trio

from peerd.cluster.admission import OpenAdmission
from peerd.errors import PeerUnreachable
from peerd.gossip.records import Member
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link.messages import Message
from peerd.link.ports import PieceSource
from peerd.manifest import Attestation
from peerd.origin.memory import MemoryOrigin
from peerd.scheduler.service import KEEPER_MESSAGES, KeeperService
from peerd.signing import SigningKey
from peerd.store.memory import MemoryStore
from peerd.swarm.incoming import Inbound
from peerd.swarm.service import SwarmService
from peerd.swarm.surroundings import Surroundings
from peerd.zones import scopes, within

LATENCY_S = 0.002
LATE_S = 3.0
FRAME_BYTES = 64 * 1024


class Net:
    """All peers; `cut` are those that nobody reaches, `late` those whose answers take seconds,
    `unaware` those of them that do not notice it themselves."""

    def __init__(self, origin: MemoryOrigin, nursery: trio.Nursery, seed: int = 1) -> None:
        self.origin, self.nursery, self.rng = origin, nursery, Random(seed)
        self.nodes: dict[PeerId, Node] = {}
        self.cut: set[PeerId] = set()
        self.late: set[PeerId] = set()
        self.unaware: set[PeerId] = set()
        self.entered_bytes: Counter[str] = Counter()

    async def add(
        self,
        *,
        seed: bool = False,
        origin: MemoryOrigin | None = None,
        capacity_bytes: int | None = None,
        zone: str = "",
    ) -> Node:
        """`origin`: what this node finds at the origin, where that is not what all others find."""
        key = SigningKey(self.rng.randbytes(32))
        node = Node(self, key, seed, origin or self.origin, MemoryStore(capacity_bytes), zone)
        self.nodes[node.own] = node
        await node.start()
        for each in self.nodes.values():
            each.members.changed()
        return node

    def entered(self, zone: str, into: str, size_bytes: int) -> None:
        """Piece bytes went from one zone into another: counted for each scope they entered."""
        for scope in scopes(into):
            if not within(zone, scope):
                self.entered_bytes[scope] += size_bytes

    def kill(self, node: Node) -> None:
        """Like kill -9: it stops, and its links break."""
        self.cut.add(node.own)
        node.scope.cancel()
        for each in self.nodes.values():
            if each is not node and node.own in each.links.up:
                each.links.down(node.own)
        node.links.up.clear()
        for each in self.nodes.values():
            each.members.changed()


class View:
    """What one peer sees of the group: all who are not cut, at once (gossip has its own tests)."""

    synced = True

    def __init__(self, net: Net, own: PeerId) -> None:
        self._net, self._own = net, own
        self.revision = 0
        self.listener: Callable[[], None] = lambda: None

    def changed(self) -> None:
        self.revision += 1
        self.listener()

    def live(self) -> Sequence[Member]:
        return [n.member for n in self._net.nodes.values() if n.own not in self._net.cut]

    def member(self, peer: PeerId) -> Member | None:
        node = self._net.nodes.get(peer)
        return node.member if node else None

    def unreachable(self, peer: PeerId) -> None:
        """All know it already."""

    def reachable(self, peer: PeerId) -> None:
        """All know it already."""

    def holders(self, task: TaskId) -> Sequence[PeerId]:
        return []

    def hold(self, tasks: Sequence[TaskId], active: Sequence[tuple[TaskId, float]]) -> None:
        """Nobody asks."""


class MemoryLinks:
    """Links of one node (swarm.ports.Links)."""

    def __init__(self, net: Net, node: Node) -> None:
        self._net, self._node = net, node
        self.up: set[PeerId] = set()
        self._sent_bytes = 0
        self._queues: dict[PeerId, deque[Message]] = {}

    async def connect(
        self, peer: PeerId, addresses: Sequence[str] = (), through: Sequence[PeerId] = ()
    ) -> None:
        await trio.sleep(LATENCY_S)
        other = self._net.nodes.get(peer)
        if other is None or peer in self._net.cut or self._node.own in self._net.cut:
            raise PeerUnreachable(f"no link to {peer}")
        self.up.add(peer)
        other.links.up.add(self._node.own)
        self._node.keepers.link_up(peer)
        other.keepers.link_up(self._node.own)

    def connected(self, peer: PeerId) -> bool:
        return peer in self.up or peer == self._node.own

    def send(self, peer: PeerId, message: Message) -> None:
        if not self.connected(peer):
            raise PeerUnreachable(f"no link to {peer}")
        queue = self._queues.get(peer)
        if queue is None:
            queue = self._queues[peer] = deque()
            self._net.nursery.start_soon(self._deliver, peer, queue)
        queue.append(message)

    async def _deliver(self, peer: PeerId, queue: deque[Message]) -> None:
        await trio.sleep(LATENCY_S)
        del self._queues[peer]
        node = self._net.nodes[peer]
        for message in queue:
            if self.connected(peer) and peer not in self._net.cut:
                node.message_arrived(self._node.own, message)

    async def send_piece(
        self,
        peer: PeerId,
        version: VersionId,
        index: PieceIndex,
        size_bytes: int,
        attestation: Attestation,
        source: PieceSource,
    ) -> None:
        data = bytearray(size_bytes)
        source.read_into(0, memoryview(data))
        self._node.spoil(data)
        for offset in range(0, size_bytes, FRAME_BYTES):
            await trio.sleep(LATENCY_S / 4)
            if not self.connected(peer):
                raise PeerUnreachable(f"no link to {peer}")
            other = self._net.nodes[peer]
            self._sent_bytes += min(FRAME_BYTES, size_bytes - offset)
            part = memoryview(data)[offset : offset + FRAME_BYTES]
            made = attestation if offset == 0 else None
            self._net.entered(self._node.member.zone, other.member.zone, len(part))
            outcome = other.swarm.chunk_arrived(
                self._node.own, version, index, size_bytes, offset, made, part
            )
            if outcome is not None:
                await other.swarm.chunk_done(self._node.own, outcome)

    def piece_bytes_sent(self) -> int:
        return self._sent_bytes

    def least_round_trip_s(self, peer: PeerId) -> float | None:
        return 2 * LATENCY_S

    def silent_s(self, peer: PeerId) -> float:
        return 0.0

    def late_s(self, peer: PeerId) -> float:
        late, own = self._net.late, self._node.own
        return LATE_S if peer in late or own in late - self._net.unaware else 2 * LATENCY_S

    async def close(self, peer: PeerId, code: str, words: str) -> None:
        self.down(peer)

    def down(self, peer: PeerId) -> None:
        self.up.discard(peer)
        self._node.keepers.link_down(peer)
        self._node.swarm.link_down(peer)


async def inline(work: Callable[..., Any], /, *arguments: Any) -> Any:
    """Instead of a worker thread, which an autojumping clock does not wait for."""
    await trio.lowlevel.checkpoint()
    return work(*arguments)


class Node:
    """One peer: keepers and swarm over the net."""

    def __init__(
        self,
        net: Net,
        key: SigningKey,
        seed: bool,
        origin: MemoryOrigin,
        store: MemoryStore,
        zone: str = "",
    ) -> None:
        self.net, self.key, self.own = net, key, key.peer_id
        self.member = Member(self.own, ("memory:1",), zone, seed, False, "")
        self.store = store
        self.links = MemoryLinks(net, self)
        self.members = View(net, self.own)
        self.keepers = KeeperService(
            self.own, self.members, self.links, net.rng, zone=zone, seed=seed, fresh_s=60.0
        )
        near = Surroundings(
            key, self.store, origin, self.links, self.keepers, Inbound(), net.rng,
            trio.current_time, 60.0, inline, zone,
        )  # fmt: skip
        self.swarm = SwarmService(near, key.seed, seed=seed)
        self.scope = trio.CancelScope()
        self.admission = OpenAdmission()

    def spoil(self, data: bytearray) -> None:
        """A liar overrides this."""

    async def start(self) -> None:
        self.members.listener = self.keepers.members_changed
        await self.net.nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.keepers.run)
                await nursery.start(self.swarm.run)
                task_status.started()

    def message_arrived(self, peer: PeerId, message: Message) -> None:
        if isinstance(message, KEEPER_MESSAGES):
            self.keepers.message_arrived(peer, message)
        else:
            self.swarm.message_arrived(peer, message)
