"""The network between simulated peers: links, dials, messages and pieces on their way.

Always: messages of one link arrive in the order they were sent, unless it goes down first; a link
is up on both sides or on none, but for the time until one of them notices; what crosses from one
zone to another goes through both zones' pipes, and is counted.

Known errors: a message never waits behind piece data (links send it first; kernels' buffers do
not); across a partition what is under way waits for the heal or for the end of the link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from peerd.ids import PeerId, VersionId
from peerd.link import messages as msg
from peerd.link.dialler import DIAL_MAX_S
from peerd.link.link import LinkLimits
from peerd.link.messages import Message, encode_message
from peerd.swarm.events import ParentHas
from tools.sim.clock import Clock
from tools.sim.flows import Pipe, mathis_bytes_s
from tools.sim.scenario import Scenario, zone_bytes_s

if TYPE_CHECKING:
    from random import Random

    from tools.sim.peer import SimPeer

FRAME_BYTES: Final = 4 + 16
"""Length and seal of a frame (link/frames.py)."""
VERSION_BYTES: Final = 72
"""Tag, version id and the start of a list, in a message about pieces."""
INDEX_BYTES: Final = 3
_INDEXED: Final = (msg.Have, msg.Request, msg.Cancel, msg.Reject)
TO_SELF_S: Final = 5e-5
"""A message to oneself: a step of the event loop, so that no answer comes before its question."""
REFUSED_S: Final = 0.002
"""A dial to a host where nobody listens any more."""


class Link:
    """Two peers that are connected."""

    __slots__ = ("held", "latency_s", "one", "to_one", "to_two", "two", "up")

    def __init__(
        self, one: SimPeer, two: SimPeer, latency_s: float, most_bytes_s: float | None
    ) -> None:
        """`most_bytes_s`: what its connection carries each way, where that is bounded."""
        self.one, self.two, self.latency_s = one, two, latency_s
        self.up = True
        self.to_one = Pipe(most_bytes_s) if most_bytes_s else None
        self.to_two = Pipe(most_bytes_s) if most_bytes_s else None
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def other(self, peer: SimPeer) -> SimPeer:
        return self.two if peer is self.one else self.one


class Network:
    """All links; `side` is the part of a partition that a peer is in."""

    def __init__(self, clock: Clock, scenario: Scenario, rng: Random) -> None:
        self.clock, self._rng = clock, rng
        self.peers: dict[PeerId, SimPeer] = {}
        self.side: dict[int, int] = {}
        self.limits = LinkLimits()
        costs, network = scenario.costs, scenario.network
        self._near_s, self._far_s = network.latency_ms / 1e3, network.zone_latency_ms / 1e3
        self.message_s = costs.message_us / 1e6 if costs.charged else 0.0
        self._handshake_s = costs.handshake_ms / 1e3 if costs.charged else 0.0
        rates = zone_bytes_s(scenario)
        self.into = {zone: Pipe(rate) for zone, rate in rates.items()}
        self.out_of = {zone: Pipe(rate) for zone, rate in rates.items()}
        self._lossy_bytes_s: float | None = None
        if network.zone_loss and self._far_s:
            self._lossy_bytes_s = mathis_bytes_s(network.zone_loss, 2 * self._far_s)
        self._dialling: dict[tuple[int, int, int], list[Callable[[bool], None]]] = {}

    def latency_s(self, one: SimPeer, two: SimPeer) -> float:
        return self._near_s if one.zone == two.zone else self._far_s

    def cut(self, one: SimPeer, two: SimPeer) -> bool:
        """Whether a partition is between them."""
        return bool(self.side) and self.side.get(one.number, 0) != self.side.get(two.number, 0)

    # --- links

    def dial(self, peer: SimPeer, to: PeerId, then: Callable[[bool], None]) -> None:
        """`then(True)` once a link is up, `then(False)` if none could be had. Dials are shared."""
        if to in peer.links or to == peer.own:
            then(True)
            return
        other = self.peers[to]
        key = (peer.number, peer.boot, other.number)
        if key in self._dialling:
            self._dialling[key].append(then)
            return
        self._dialling[key] = [then]
        lasts_s = REFUSED_S
        if self.cut(peer, other) or (other.silent and other.alive):
            lasts_s = DIAL_MAX_S
        elif other.alive:
            # TCP, then Noise: three one-way trips before the listener has its part to do.
            at = self.clock.now + 3 * self.latency_s(peer, other)
            peer.spend(self._handshake_s)
            lasts_s = other.spend(self._handshake_s, at) + self.latency_s(peer, other)
            lasts_s -= self.clock.now
        self.clock.after(lasts_s, self._dialled, peer, peer.boot, other)

    def _dialled(self, peer: SimPeer, boot: int, other: SimPeer) -> None:
        waiting = self._dialling.pop((peer.number, boot, other.number))
        if not peer.alive or peer.boot != boot:
            return
        up = other.own in peer.links
        if not up and other.alive and not other.silent and not self.cut(peer, other):
            most_bytes_s = self._lossy_bytes_s if peer.zone != other.zone else None
            link = Link(peer, other, self.latency_s(peer, other), most_bytes_s)
            peer.links[other.own] = other.links[peer.own] = link
            for end, far in ((peer, other), (other, peer)):
                end.views.reachable(far.own)
                end.keeping.link_up(far.own)
                if end.scheduler is not None:
                    end.scheduler.link_up(far.own)
            up = True
        for then in waiting:
            then(up)

    def down(self, link: Link, after_s: float = 0.0) -> None:
        """It is over; both sides notice `after_s` later."""
        if link.up:
            link.up = False
            link.held.clear()
            for peer, other in ((link.one, link.two), (link.two, link.one)):
                if peer.links.get(other.own) is link:
                    self.clock.after(after_s, self._noticed, peer, peer.boot, other, link)

    def _noticed(self, peer: SimPeer, boot: int, other: SimPeer, link: Link) -> None:
        if peer.alive and peer.boot == boot and peer.links.get(other.own) is link:
            del peer.links[other.own]
            peer.link_down(other.own)

    # --- messages

    def send(self, peer: SimPeer, to: PeerId, message: Message) -> bool:
        """False where no link is up."""
        if to == peer.own:
            self.clock.after(TO_SELF_S, peer.hear, peer.boot, peer.own, message)
            return True
        link = peer.links.get(to)
        if link is None or not link.up:
            return False
        size_bytes = size_of(message)
        peer.sent_control_bytes += size_bytes
        other = link.other(peer)
        if link.held or self.cut(peer, other):
            link.held.append((self._arrived, (link, peer, other, message)))
        else:
            self.clock.after(link.latency_s, self._arrived, link, peer, other, message)
        return True

    def _arrived(self, link: Link, peer: SimPeer, other: SimPeer, message: Message) -> None:
        if link.up and other.alive:
            done_at = other.spend(self.message_s)
            if done_at - self.clock.now > 1e-3:
                self.clock.at(done_at, other.hear, other.boot, peer.own, message)
            else:
                other.hear(other.boot, peer.own, message)

    def have(
        self, peer: SimPeer, to: Iterable[PeerId], version: VersionId, have: ParentHas
    ) -> list[PeerId]:
        """HAVE to many at once: one step for each latency. Returns those without a link.

        The bulk of all messages: every receiver gets the same object, already in its core's words.
        """
        lacking: list[PeerId] = []
        near: list[Link] = []
        far: list[Link] = []
        links, clock = peer.links, self.clock
        size_bytes = FRAME_BYTES + VERSION_BYTES + INDEX_BYTES * len(have.indices)
        for each in to:
            link = links.get(each)
            if link is None or not link.up:
                lacking.append(each)
                continue
            peer.sent_control_bytes += size_bytes
            if link.held or (self.side and self.cut(link.one, link.two)):
                link.held.append((self._have, ([link], peer, version, have)))
            else:
                (near if link.latency_s == self._near_s else far).append(link)
        for links_of, latency_s in ((near, self._near_s), (far, self._far_s)):
            if links_of:
                clock.after(latency_s, self._have, links_of, peer, version, have)
        return lacking

    def _have(self, links: list[Link], peer: SimPeer, version: VersionId, have: ParentHas) -> None:
        message_s = self.message_s
        for link in links:
            if link.up:
                other = link.two if link.one is peer else link.one
                if other.alive:
                    done_at = other.spend(message_s)
                    if done_at - self.clock.now > 1e-3:
                        # Behind what came before it: it may be the Join that it belongs to.
                        hear = other.guarded(other.hear_have)
                        self.clock.at(done_at, hear, version, have)
                    else:
                        other.hear_have(version, have)

    # --- partitions

    def partition(self, side: dict[int, int]) -> None:
        """Links across break when nothing was heard for too long, if it is not healed before."""
        self.side = side
        for link in self.links():
            if self.cut(link.one, link.two):
                wait_s = self.limits.silence_max_s + self._rng.random() * self.limits.ping_every_s
                self.clock.after(wait_s, self._silent, link)

    def _silent(self, link: Link) -> None:
        if link.up and (self.cut(link.one, link.two) or link.one.silent or link.two.silent):
            self.down(link)

    def silenced(self, peer: SimPeer) -> None:
        """It says nothing any more: its links break when the others had enough."""
        for link in list(peer.links.values()):
            wait_s = self.limits.silence_max_s + self._rng.random() * self.limits.ping_every_s
            self.clock.after(wait_s, self._silent, link)

    def heal(self) -> None:
        self.side = {}
        for link in self.links():
            held, link.held = link.held, []
            for step, arguments in held:
                self.clock.after(link.latency_s, step, *arguments)

    def links(self) -> list[Link]:
        """Each once."""
        return [
            link
            for peer in self.peers.values()
            for link in peer.links.values()
            if link.one is peer and link.up
        ]

    # --- pieces

    def carry(
        self, link: Link, peer: SimPeer, size_bytes: int, begun_at: float,
        then: Callable[..., None], *what: Any,
    ) -> None:  # fmt: skip
        """A block has left `peer`'s uplink: through zones and the other's downlink, then `then`."""
        other = link.other(peer)
        if link.held or (self.side and self.cut(peer, other)):
            link.held.append((self._into, (link, other, size_bytes, begun_at, then, what)))
            return
        way = link.to_one if other is link.one else link.to_two
        if way is None:
            self.bring(peer.zone, link, other, size_bytes, begun_at, link.latency_s, then, what)
            return
        at = way.through(size_bytes, self.clock.now, begun_at)
        begun_at = max(begun_at, at - size_bytes / way.rate_bytes_s)
        self.clock.at(
            at, self.bring, peer.zone, link, other, size_bytes, begun_at, link.latency_s, then, what
        )

    def bring(
        self, zone: str, link: Link | None, other: SimPeer, size_bytes: int, begun_at: float,
        latency_s: float, then: Callable[..., None], what: tuple[Any, ...],
    ) -> None:  # fmt: skip
        """From `zone` to a peer, sent from `begun_at` to now; without a link: from the origin."""
        now = self.clock.now
        if zone == other.zone:
            through_at = other.down.through(size_bytes, now + latency_s, begun_at + latency_s)
            self.clock.at(through_at, self._there, link, other, other.boot, then, what)
            return
        out = self.out_of.get(zone)
        at = out.through(size_bytes, now, begun_at) if out is not None else now
        begun_at += latency_s
        self.clock.at(at + latency_s, self._far, link, other, size_bytes, begun_at, then, what)

    def _far(
        self, link: Link | None, other: SimPeer, size_bytes: int, begun_at: float,
        then: Callable[..., None], what: tuple[Any, ...],
    ) -> None:  # fmt: skip
        at = self.into[other.zone].through(size_bytes, self.clock.now, begun_at)
        self.clock.at(at, self._into, link, other, size_bytes, begun_at, then, what)

    def _into(
        self, link: Link | None, other: SimPeer, size_bytes: int, begun_at: float,
        then: Callable[..., None], what: tuple[Any, ...],
    ) -> None:  # fmt: skip
        through_at = other.down.through(size_bytes, self.clock.now, begun_at)
        self.clock.at(through_at, self._there, link, other, other.boot, then, what)

    def _there(
        self, link: Link | None, other: SimPeer, boot: int, then: Callable[..., None],
        what: tuple[Any, ...],
    ) -> None:  # fmt: skip
        if (link is None or link.up) and other.alive and other.boot == boot:
            if other.silent:
                other.backlog.append((then, what))
            else:
                then(*what)


def size_of(message: Message) -> int:
    """Bytes on the wire; those that name pieces by count, for they are most of all."""
    if isinstance(message, _INDEXED):
        return FRAME_BYTES + VERSION_BYTES + INDEX_BYTES * len(message.indices)
    return FRAME_BYTES + len(encode_message(message))
