"""What 10,000 peers cost, from what 300 cost."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

from peerd.codec import encode
from peerd.gossip.availability import ACTIVE_ENTRY_BYTES, ACTIVE_MAX, BLOOM_MAX_BYTES, Holdings
from peerd.gossip.events import Arrived, NeighbourUp
from peerd.gossip.messages import Deltas, batches, pack
from peerd.gossip.records import Kind, OwnFacts, Signed, sign
from peerd.units import MIB
from tests.gossip.builders import exchange, key, record, signed

PEERS = 300
STATE_MAX_BYTES = 64 * MIB


def test_the_state_of_ten_thousand_peers_with_full_holdings_fits_64_mib() -> None:
    rng = Random(1)
    items: list[Signed] = []
    for number in range(1, PEERS + 1):
        facts = OwnFacts(
            cluster="c",
            name=f"node-{number:04d}.example",
            zone="europe/paris/rack-12",
            overlay_addresses=(f"/ip4/10.0.0.{number}/tcp/4001",),
            link_addresses=(f"10.0.0.{number}:4002",),
        )
        items.append(signed(number, record(number, facts=facts)))
    for number in range(1, PEERS + 1):
        bloom = memoryview(rng.randbytes(BLOOM_MAX_BYTES))
        active = memoryview(rng.randbytes(ACTIVE_MAX * ACTIVE_ENTRY_BYTES))
        holdings = Holdings(key(number).peer_id, 1, 0, 7, bloom, active)
        items.append(sign(key(number), Kind.HOLDINGS, encode(holdings)))
    payloads = [pack(Deltas(batch)) for batch in batches(items)]
    core = exchange(0)
    source = key(999).peer_id
    core.handle(NeighbourUp(source), 1.0)
    items.clear()
    gc.collect()
    tracemalloc.start()
    for payload in payloads:
        core.handle(Arrived(source, payload), 1.0)
    assert len(core.membership.live()) == PEERS + 1
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{used / PEERS:.0f} bytes a peer, {used / PEERS * 10_000 / MIB:.1f} MiB for 10,000")
    assert len(core.availability.table) == PEERS
    assert used / PEERS * 10_000 <= STATE_MAX_BYTES
