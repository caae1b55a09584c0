"""The network of gossip cores that the tests share with the simulator (tools/sim)."""

from __future__ import annotations

from tools.sim.gossip_net import Node, SimNet, grown, verify_once

__all__ = ["Node", "SimNet", "grown", "verify_once"]
