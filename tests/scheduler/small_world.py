"""Three eligible peers and one receiver: every way to a leader, within bounds.

What waits for one peer is handled in every order (what different peers do in one step commutes), in
the step in which it was said or, `late` of it, in the next; and, each as often as its budget says,
at any moment: a crash (noticed or not), a restart, a broken link, a forged term, a clock that runs
a step ahead or behind. Each state is visited once; in each the cores' own invariants hold, and so:

- a receiver never follows an older term after a newer one;
- a leader that heard nobody for a lease does not advise;

and from each last state, once all run and reach each other again, there comes to be exactly one
leader, whom all follow. A step is half a second.

    python -m tests.scheduler.small_world --steps 12 --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from peerd.ids import PeerId
from peerd.link.messages import Message
from peerd.link.scheduler_messages import LeaderLease, TermProof
from peerd.rendezvous import ranked
from peerd.scheduler.electing import (
    ElectingConfig,
    Event,
    Follow,
    GroupNow,
    Heard,
    Order,
    Party,
    Send,
    Unreachable,
)
from peerd.scheduler.election import Elector, State
from peerd.scheduler.fence import EPOCH_S, SEAT, Fence, order
from peerd.scheduler.following import Follower

CONFIG: Final = ElectingConfig(
    renew_s=2, lease_s=6, ask_s=1, learn_s=1, stand_s=2, bar_s=6, patience_s=2,
)  # fmt: skip
"""In steps of half a second."""
GENUINE: Final = b"s" * 64
ELECTORS: Final = tuple(ranked([PeerId(name) for name in "ABC"], SEAT))
RECEIVER: Final = PeerId("R")
ALL: Final = (*ELECTORS, RECEIVER)
GROUP: Final = GroupNow(ELECTORS, frozenset(ELECTORS), ELECTORS, True)
FAULTS: Final = ("late", "crash", "restart", "loss", "drift", "forge")
HIGHEST: Final = 1_000_000
"""What a liar's term may be at most for others to believe it."""
CALM_STEPS: Final = 60
"""So long a connected group may take; what is measured stands far below."""


def genuine(proof: TermProof) -> bool:
    return proof.signature == GENUINE


def signer(peer: PeerId) -> Any:
    return lambda term: TermProof(peer, term, GENUINE)


SIGNERS: Final = {peer: signer(peer) for peer in ALL}


class Node:
    """One peer: its core, its clock's offset, and the newest order that it ever followed."""

    def __init__(self, peer: PeerId, skew: int) -> None:
        fence = Fence(EPOCH_S + HIGHEST, genuine)
        self.core: Elector | Follower = (
            Follower(peer, fence, CONFIG) if peer == RECEIVER
            else Elector(peer, SIGNERS[peer], fence, CONFIG)
        )  # fmt: skip
        self.skew = skew
        self.followed: tuple[int, int, PeerId] = (0, 0, PeerId(""))
        self.seen: tuple[int, tuple[object, ...]] | None = None

    def fork(self) -> Node:
        copy = object.__new__(Node)
        copy.__dict__.update(self.__dict__)
        copy.seen = None
        core = copy.core = object.__new__(type(self.core))
        core.__dict__.update(self.core.__dict__)
        party = core.party = object.__new__(Party)
        party.__dict__.update(self.core.party.__dict__)
        party.subscribers, party.barred = dict(party.subscribers), dict(party.barred)
        party.heeding = dict(party.heeding)
        fence = party.fence = object.__new__(Fence)
        fence.__dict__.update(self.core.party.fence.__dict__)
        if isinstance(core, Elector):
            core._pending = set(core._pending)
            core._asked, core._there = set(core._asked), set(core._there)
        return copy

    def face(self, now: int) -> tuple[object, ...]:
        """All that it knows, its times from now."""
        if self.seen is None or self.seen[0] != now:
            self.seen = now, self._face(now)
        return self.seen[1]

    def _face(self, now: int) -> tuple[object, ...]:
        core, party, own = self.core, self.core.party, now + self.skew
        common = (
            self.skew, self.followed, party.fence.newest, party.leader, party.renewal,
            party.live_until - own, core._due - own,
            tuple(sorted((p, max(-13, at - own)) for p, at in party.subscribers.items())),
            tuple(sorted((p, until - own) for p, until in party.barred.items() if until > own)),
            tuple(sorted(party.heeding.items())),
        )  # fmt: skip
        if isinstance(core, Elector):
            heard = max(-7, core._heard_at - own)
            sets = [tuple(sorted(x)) for x in (core._asked, core._there, core._pending)]
            return (*common, core.state, *sets, core._hops, heard)
        return (*common, core.state, core.contact)


class World:
    """Everybody, and what is on its way. `budget`: what may still go wrong, by name."""

    def __init__(self, budget: dict[str, int]) -> None:
        self.now = 0
        self.nodes: dict[PeerId, Node] = {}
        self.flying: dict[tuple[PeerId, PeerId], tuple[tuple[Message | None, int], ...]] = {}
        self.budget = budget
        self.held: frozenset[tuple[PeerId, PeerId]] = frozenset()
        for peer in ALL:
            self.start(peer)

    def fork(self) -> World:
        copy = object.__new__(World)
        copy.now, copy.flying, copy.budget = self.now, dict(self.flying), self.budget
        copy.nodes, copy.held = dict(self.nodes), self.held
        return copy

    def own(self, peer: PeerId) -> Node:
        """Its node, which no other world has any more."""
        node = self.nodes[peer] = self.nodes[peer].fork()
        return node

    def face(self) -> tuple[object, ...]:
        return (
            tuple((peer, node.face(self.now)) for peer, node in sorted(self.nodes.items())),
            tuple(sorted(
                (way, tuple((m, at - self.now) for m, at in queue))
                for way, queue in self.flying.items()
            )),
            self.held, tuple(self.budget.values()),
        )  # fmt: skip

    def spend(self, name: str) -> None:
        self.budget = self.budget | {name: self.budget[name] - 1}

    # --- what happens

    def start(self, peer: PeerId) -> None:
        self.nodes[peer] = Node(peer, 0)
        self.tell(peer, GROUP)

    def tell(self, peer: PeerId, event: Event) -> None:
        node = self.own(peer)
        self.carry_out(peer, node.core.handle(event, self.now + node.skew))
        self.check(peer)

    def carry_out(self, peer: PeerId, orders: list[Order]) -> None:
        for found in orders:
            match found:
                case Send(peer=to, message=message):
                    assert to != peer, f"{peer} speaks to itself"
                    # Nobody there: the dial fails, and that is heard like a message.
                    way = (peer, to) if to in self.nodes else (to, peer)
                    said = message if to in self.nodes else None
                    self.flying[way] = (*self.flying.get(way, ()), (said, self.now))
                case Follow(leader=leader) if leader is not None:
                    node = self.nodes[peer]
                    newest = node.core.party.fence.newest
                    assert newest is not None
                    assert newest.leader == leader
                    assert order(newest) >= node.followed, f"{peer} follows {newest} after newer"
                    node.followed = order(newest)

    def check(self, peer: PeerId) -> None:
        node = self.nodes[peer]
        node.core.validate(self.now + node.skew)

    def deliver(self, way: tuple[PeerId, PeerId]) -> None:
        (message, _), *rest = self.flying.pop(way)
        if rest:
            self.flying[way] = tuple(rest)
        one, other = way
        self.tell(other, Unreachable(one) if message is None else Heard(one, message))

    def tick(self) -> None:
        self.now += 1
        self.held = frozenset()
        for peer in tuple(self.nodes):
            self.expire(peer)

    def expire(self, peer: PeerId) -> None:
        now = self.now + self.nodes[peer].skew
        node = self.own(peer) if self.nodes[peer].core.deadline() <= now else self.nodes[peer]
        for _ in range(10):
            if node.core.deadline() > now:
                break
            self.carry_out(peer, node.core.expire(now))
        else:
            raise AssertionError(f"{peer} is due again at once, for ever")
        self.check(peer)
        if isinstance(node.core, Elector) and node.core._heard_at < now - CONFIG.lease_s:
            assert not node.core.advises(now), f"{peer} advises, though it hears nobody"

    def crash(self, peer: PeerId, noticed: bool) -> None:
        """Unnoticed, as behind a partition: what is said to it is lost without a word."""
        del self.nodes[peer]
        self.flying = {way: q for way, q in self.flying.items() if peer not in way}
        for other in self.nodes if noticed else ():
            self.flying[peer, other] = ((None, self.now),)

    def cut(self, one: PeerId, other: PeerId) -> None:
        """The link breaks: what was on its way is lost, both notice; the next word dials anew."""
        for way in ((one, other), (other, one)):
            self.flying[way] = ((None, self.now),)

    def forge(self, term: int) -> None:
        """The least of the electors signs a term that nobody gave it, and says so to the others."""
        liar = ELECTORS[-1]
        lie = LeaderLease(TermProof(liar, term, GENUINE), 1)
        for other in self.nodes:
            if other != liar:
                self.flying[liar, other] = (*self.flying.get((liar, other), ()), (lie, self.now))

    # --- all that may happen next

    def next(self) -> Iterator[World]:
        ways = sorted(
            (way for way in self.flying if way not in self.held), key=lambda way: (way[1], way[0])
        )
        for way in ways:
            if way[1] != ways[0][1]:
                continue
            yield self._after(None, lambda world, way=way: world.deliver(way))
            if self.budget["late"] and self.flying[way][0][1] == self.now:
                yield self._after("late", lambda world, way=way: world.hold(way))
        if not ways:
            yield self._after(None, World.tick)
        for peer in ALL:
            if peer not in self.nodes:
                if self.budget["restart"]:
                    yield self._after("restart", lambda world, peer=peer: world.start(peer))
                continue
            if self.budget["crash"] and peer != RECEIVER:
                yield self._after("crash", lambda world, peer=peer: world.crash(peer, True))
                yield self._after("crash", lambda world, peer=peer: world.crash(peer, False))
            if self.budget["drift"]:
                for by in (-1, 1):
                    yield self._after("drift", lambda w, peer=peer, by=by: w.drift(peer, by))
        if self.budget["loss"]:
            for i, one in enumerate(ALL):
                for other in ALL[i + 1 :]:
                    if one in self.nodes and other in self.nodes:
                        yield self._after("loss", lambda w, a=one, b=other: w.cut(a, b))
        if self.budget["forge"] and ELECTORS[-1] in self.nodes:
            for term in (HIGHEST, 1 << 52):
                yield self._after("forge", lambda world, term=term: world.forge(term))

    def hold(self, way: tuple[PeerId, PeerId]) -> None:
        """What is on this way comes in the next step."""
        self.held |= {way}

    def drift(self, peer: PeerId, by: int) -> None:
        """Its clock runs a step ahead or behind of all others."""
        self.own(peer).skew += by
        self.expire(peer)

    def _after(self, spent: str | None, act: Any) -> World:
        world = self.fork()
        if spent is not None:
            world.spend(spent)
        act(world)
        return world

    # --- when nothing goes wrong any more

    def calm_down(self) -> int:
        """Steps until one leads and all follow it, for a lease and more, or AssertionError."""
        for peer in ALL:
            if peer not in self.nodes:
                self.start(peer)
        agreed_since: int | None = None
        begun = self.now
        while self.now < begun + CALM_STEPS:
            for _ in range(400):
                if not self.flying:
                    break
                self.deliver(next(iter(self.flying)))
            else:
                raise AssertionError("they never stop talking")
            if not self.agreed():
                agreed_since = None
            elif agreed_since is None:
                agreed_since = self.now
            elif self.now - agreed_since > 2 * CONFIG.lease_s:
                return agreed_since - begun
            self.tick()
        seen = {peer: node.core.leader(self.now + node.skew) for peer, node in self.nodes.items()}
        raise AssertionError(f"after {CALM_STEPS} calm steps they follow {seen}")

    def agreed(self) -> bool:
        leaders = {node.core.leader(self.now + node.skew) for node in self.nodes.values()}
        leading = [n for n in self.nodes.values()
                   if isinstance(n.core, Elector) and n.core.state is State.LEADING]  # fmt: skip
        return len(leaders) == 1 and None not in leaders and len(leading) == 1


def explore(steps: int, budget: dict[str, int], calm_every: int = 1) -> dict[str, Any]:
    """Every state within so many steps; from each at the end, the calm."""
    full = dict.fromkeys(FAULTS, 0) | budget
    first = World(full)
    layer = {first.face(): first}
    visited, ends, calm_max = 0, 0, 0
    seen = set(layer)
    for step in range(steps + 1):
        todo = list(layer.values())
        later: dict[tuple[object, ...], World] = {}
        while todo:
            world = todo.pop()
            visited += 1
            if step == steps and not world.flying and not world.held:
                if ends % calm_every == 0:
                    calm_max = max(calm_max, world.fork().calm_down())
                ends += 1
            for after in world.next():
                if after.now > steps:
                    continue
                face = (after.now, after.face())
                if face in seen:
                    continue
                seen.add(face)
                if after.now > step:
                    later[face] = after
                else:
                    todo.append(after)
        layer = later
        seen = set(layer)
    return {"steps": steps, "budget": full, "states": visited, "ends": ends,
            "calm_steps_max": calm_max}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scheduler.small_world")
    parser.add_argument("--steps", type=int, default=10, help="half seconds")
    for name in FAULTS:
        parser.add_argument(f"--{name}", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    said = parser.parse_args()
    budget = {name: getattr(said, name) for name in FAULTS}
    began = time.monotonic()
    found = explore(said.steps, budget) | {"seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(found) if said.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
