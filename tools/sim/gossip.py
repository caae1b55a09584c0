"""What gossip costs, measured with the real membership and availability cores.

Always: every peer holds or fetches one task, as in a download; what is counted are the bytes that
the cores hand to the overlay, after the group is whole.
"""

from __future__ import annotations

from typing import Any, Final

from peerd.gossip.events import Hold
from peerd.gossip.membership import REFRESH_MIN_S, REFRESH_PER_MEMBER_S
from peerd.ids import TaskId
from tools.sim.gossip_net import SimNet, grown

SAMPLE_MAX: Final = 64
"""Peers in the sample that is measured beside a download: the whole group would cost more than the
download does. What grows with the group is bounded (tests/gossip/test_simulation.py)."""
SAMPLE_S: Final = 60.0
_TASK: Final = TaskId("5" * 64)


def bytes_per_peer_s(count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Of a group of `count` that is whole, over `seconds`: each finishes a download meanwhile."""
    net = grown(count, seed)
    before = _sent(net)
    for number, node in enumerate(net.nodes):
        net.tell(node, Hold((), ((_TASK, 0.5),)))
        at_s = seconds * (number + 1) / (count + 1)
        net.after(at_s, lambda node=node: net.tell(node, Hold((_TASK,), ())))  # type: ignore[misc]
    net.run(seconds)
    everybody = {node.peer for node in net.nodes}
    return {
        "gossip_bytes_per_peer_s": round((_sent(net) - before) / count / seconds, 1),
        "gossip_peers": count,
        "whole": all(node.sees() == everybody for node in net.nodes),
    }


def idle(count: int, seed: int) -> dict[str, Any]:
    """Of a group that joined within seconds, over the second time that all refresh their records.

    Before that they do so at once, for they came at once.
    """
    net = grown(count, seed)
    everybody = {node.peer for node in net.nodes}
    whole_s = net.run_until(lambda: all(node.sees() == everybody for node in net.nodes), 300.0)
    seconds = max(REFRESH_MIN_S, REFRESH_PER_MEMBER_S * count)
    net.run(seconds)
    before, messages = _sent(net), sum(node.sent_messages for node in net.nodes)
    net.run(seconds)
    said = sum(node.sent_messages for node in net.nodes) - messages
    return {
        "gossip_bytes_per_peer_s": round((_sent(net) - before) / count / seconds, 1),
        "gossip_messages_per_peer_s": round(said / count / seconds, 3),
        "gossip_peers": count,
        "whole": whole_s < 300.0,
        "seed": seed,
        "seconds": seconds,
    }


def _sent(net: SimNet) -> int:
    return sum(node.sent_bytes for node in net.nodes)
