"""The real cores in virtual time: `python -m tools.sim` (docs/simulation.md)."""
