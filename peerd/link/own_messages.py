"""What links say about themselves: handled inside link/, none of it reaches a handler.

Always: a circuit message is about one circuit of the link that it came on, named by the number
that whoever opened it there chose. messages.py has all the others, and the union of all.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from peerd.codec import WireAddress, WireCount, WirePeerId, WireWords
from peerd.units import KIB, MIB

CIRCUIT_DATA_MAX_BYTES: Final = 64 * KIB
"""Sealed and opened in some 30 µs; a hop to a thread for less costs more than the work in it."""
WINDOW_BYTES: Final = MIB
"""What may be on its way in one direction of a circuit. Guess: 20 MB/s at a round trip of 50 ms."""
CREDIT_MIN_BYTES: Final = WINDOW_BYTES // 4
"""So that credits, which a relay passes on, are few whatever the ends do."""

Addresses = Annotated[tuple[WireAddress, ...], Meta(max_length=8)]
Credit = Annotated[int, Meta(ge=CREDIT_MIN_BYTES, le=WINDOW_BYTES)]


class LinkMessage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every message of a link."""


class Hello(LinkMessage, frozen=True, tag=0):
    """First message each way, sealed. `boot` names this run of the daemon."""

    wire: WireCount
    cluster: WireWords
    boot: Annotated[bytes, Meta(min_length=16, max_length=16)]
    agent: WireWords
    listens: Addresses


class Refused(LinkMessage, frozen=True, tag=1):
    """The last message before a close: why, in words."""

    code: WireWords
    words: WireWords


class Ping(LinkMessage, frozen=True, tag=2):
    nonce: WireCount


class Pong(LinkMessage, frozen=True, tag=3):
    nonce: WireCount


# --- a link through a third peer


class CircuitOpen(LinkMessage, frozen=True, tag=50):
    """Join me with `peer`, to which you have a link. Answered by CircuitOpened or CircuitClose."""

    circuit: WireCount
    peer: WirePeerId


class CircuitOffer(LinkMessage, frozen=True, tag=51):
    """`peer`, to which I have a link, wants to speak with you. The same two answers."""

    circuit: WireCount
    peer: WirePeerId


class CircuitOpened(LinkMessage, frozen=True, tag=52):
    """The circuit stands: from here on both its ends may send."""

    circuit: WireCount


class CircuitData(LinkMessage, frozen=True, tag=53):
    """Bytes for the other end, which only the ends can read; none: no more will come."""

    circuit: WireCount
    data: Annotated[bytes, Meta(max_length=CIRCUIT_DATA_MAX_BYTES)]


class CircuitCredit(LinkMessage, frozen=True, tag=54):
    """So much of what you sent was taken at the other end: as much more may be on its way."""

    circuit: WireCount
    size_bytes: Credit


class CircuitClose(LinkMessage, frozen=True, tag=55):
    """The last that the sender says of this circuit: why it ends. Answered with the same, once."""

    circuit: WireCount
    words: WireWords


CircuitMessage = (
    CircuitOpen | CircuitOffer | CircuitOpened | CircuitData | CircuitCredit | CircuitClose
)
