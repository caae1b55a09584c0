"""The network of whole nodes that the tests share with the simulator (tools/sim)."""

from __future__ import annotations

from tools.sim.nodes_net import MemoryLinks, Net, Node, View, inline

__all__ = ["MemoryLinks", "Net", "Node", "View", "inline"]
