"""Named disturbances of real daemons in the network lab, each ending in a verdict.

`python -m tools.chaos run keeper` is one; docs/chaos.md has them all. Linux, root.
"""
