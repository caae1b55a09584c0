"""Keys, records and cores for tests, all from small numbers."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from peerd.codec import encode
from peerd.gossip.events import Drop, Order
from peerd.gossip.exchange import Exchange
from peerd.gossip.membership import Membership, Past
from peerd.gossip.records import Kind, OwnFacts, PeerRecord, Signed, sign
from peerd.ids import PeerId, TaskId
from peerd.signing import SigningKey
from tests.gossip.simnet import verify_once

WALL_S = 1_800_000_000.0
FACTS = OwnFacts(
    cluster="c",
    name="one",
    overlay_addresses=("/ip4/10.0.0.1/tcp/4001",),
    link_addresses=("10.0.0.1:4002",),
)


def key(number: int) -> SigningKey:
    return SigningKey((number + 1).to_bytes(32, "big"))


def boot(number: int) -> bytes:
    return number.to_bytes(16, "big")


def task(number: int) -> TaskId:
    return TaskId(sha256(str(number).encode()).hexdigest())


def membership(
    number: int = 0,
    *,
    boot_number: int = 1,
    past: Past | None = None,
    wall_s: float = WALL_S,
    now: float = 0.0,
    facts: OwnFacts = FACTS,
    members_max: int = 100,
) -> Membership:
    return Membership(
        key(number),
        facts,
        boot=boot(boot_number),
        past=past or Past(),
        wall_s=wall_s,
        now=now,
        rng=Random(number),
        verifier=verify_once,
        members_max=members_max,
    )


def record(
    number: int,
    generation: int = 1,
    counter: int = 0,
    *,
    left: bool = False,
    ttl_s: float = 300.0,
    boot_number: int = 1,
    facts: OwnFacts = FACTS,
) -> PeerRecord:
    return facts.record(key(number).peer_id, boot(boot_number), generation, counter, ttl_s, left)


def signed(number: int, said: PeerRecord, age_s: float = 0.0) -> Signed:
    item = sign(key(number), Kind.RECORD, encode(said))
    return Signed(item.kind, item.body, item.signature, age_s)


def own_item(one: Membership, now: float) -> Signed:
    item = one.table.signed(one.peer, now)
    assert item is not None
    return item


def exchange(
    number: int = 0,
    *,
    bootstrap: tuple[str, ...] = (),
    known: tuple[str, ...] = (),
    now: float = 0.0,
) -> Exchange:
    return Exchange(
        key(number),
        FACTS,
        boot=boot(number),
        past=Past(),
        wall_s=WALL_S,
        bootstrap=bootstrap,
        known=known,
        rng=Random(number),
        now=now,
        verifier=verify_once,
    )


def drops(orders: list[Order]) -> list[tuple[PeerId, str | None]]:
    return [(order.peer, order.words) for order in orders if isinstance(order, Drop)]
