"""What a peer says of itself: its record and its holdings, each signed by its owner and versioned.

Always: a signature covers the exact bytes of the body, so whoever relays it cannot change it; of
two bodies of one owner and kind the one with the greater Version is right, whatever order they
arrive in; what was decoded here keeps within the bounds its fields state. docs/adr/0009.
"""

from __future__ import annotations

from msgspec import Struct

from peerd.ids import PeerId


class Member(Struct, frozen=True):
    """A peer of the group as membership knows it. Addresses are host:port of its links."""

    peer: PeerId
    link_addresses: tuple[str, ...]
    zone: str
    seed: bool
    scheduler: bool
    name: str
