"""A network on one machine: a namespace for each peer, with rates, delay, loss and partitions.

`Lab` is what scripts use; `python -m tools.netlab` is the same by hand. Linux, root, no netem.
"""

from tools.netlab.lab import Lab, LineDied
from tools.netlab.spec import Counters, LabSpec, PeerSpec, ZoneSpec, goodput_bytes_s, parse_rate

__all__ = [
    "Counters",
    "Lab",
    "LabSpec",
    "LineDied",
    "PeerSpec",
    "ZoneSpec",
    "goodput_bytes_s",
    "parse_rate",
]
