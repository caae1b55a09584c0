"""Why one download went as it did: who decided what, where bytes came from, what it waited for.

Always: bounded, however long the download is: decisions that are alike are counted together, and
what does not fit is counted as more; times are seconds since the download began. It is kept with
the content, so that a download can be explained when it is long over (promise 9, ADR 0019).
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId

DECISIONS_MAX: Final = 64
"""Kinds of decisions that are told apart. Guess: some keepers, each with all kinds of leases."""
PARENTS_MAX: Final = 64
FOUND_MAX: Final = 512
"""As many as a download remembers to connect to (parents.KNOWN_MAX)."""
UNTOLD: Final = "it asked us, or another peer named it"
ADVISED: Final = "the scheduler's leader advised it"
WORDS_MAX: Final = 160
DATA_MAX_BYTES: Final = 48 * 1024

ALONE: Final = "this peer"
KEEPER_SOUGHT: Final = "finding the keeper"
VERSION_SOUGHT: Final = "learning the version"
RECEIVING: Final = "receiving from peers"
READING: Final = "reading the origin"
OWED: Final = "pieces that peers owe"
UNGRANTED: Final = "a lease, or somebody who holds the rest"
CHECKING: Final = "checking the whole"
"""What a download's time goes into; each moment counts as one of them."""

Words = Annotated[str, Meta(max_length=WORDS_MAX)]


class Decision(Struct, array_like=True):
    """Something that was decided `count` times, first and last at these times."""

    by: Words
    what: Words
    why: Words
    count: int
    first_s: float
    last_s: float


class Source(Struct, array_like=True):
    """A peer that pieces came from, and how it came to be asked."""

    peer: str
    why: Words
    size_bytes: int


class Told(Struct, array_like=True):
    """An account as it is kept."""

    state: Words
    seconds: float
    from_origin: int
    from_store: int
    reading_s: float
    waits: Annotated[dict[str, float], Meta(max_length=16)]
    decisions: Annotated[list[Decision], Meta(max_length=DECISIONS_MAX)]
    more: int
    sources: Annotated[list[Source], Meta(max_length=PARENTS_MAX)]
    others_bytes: int


class Account:
    """Of one download that began at `now`."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._seen_at = 0.0
        self._waits: dict[str, float] = {}
        self._decisions: dict[tuple[str, str, str], Decision] = {}
        self._more = 0
        self._came = 0
        self._reading_s = 0.0
        self._found: dict[PeerId, str] = {}
        self._advised: dict[PeerId, str] = {}

    def begin(self, now: float) -> None:
        self._began_at = self._seen_at = now

    def came_more(self, total_bytes: int) -> bool:
        """Whether more has come from peers than at the last call."""
        grew, self._came = total_bytes > self._came, total_bytes
        return grew

    def decided(self, by: str, what: str, why: str, now: float) -> None:
        at = now - (now if self._began_at is None else self._began_at)
        key = by[:WORDS_MAX], what[:WORDS_MAX], why[:WORDS_MAX]
        known = self._decisions.get(key)
        if known is not None:
            known.count, known.last_s = known.count + 1, at
        elif len(self._decisions) < DECISIONS_MAX:
            self._decisions[key] = Decision(*key, 1, at, at)
        else:
            self._more += 1

    def found(self, peer: PeerId, why: str) -> None:
        """How this peer came to be known here; the first counts."""
        if len(self._found) < FOUND_MAX:
            self._found.setdefault(peer, why)

    def advised(self, peer: PeerId, why: str) -> None:
        """The scheduler's leader named this peer; the last time counts."""
        if peer in self._advised or len(self._advised) < FOUND_MAX:
            self._advised[peer] = why

    def _why(self, peer: PeerId) -> str:
        words = [x[peer] for x in (self._found, self._advised) if peer in x]
        return "; ".join(words)[:WORDS_MAX] or UNTOLD

    def goes_on(self, what: str, now: float, *, reading: bool = False) -> None:
        """What the time since the last call went into. `reading`: the origin was read meanwhile."""
        past_s, self._seen_at = max(0.0, now - self._seen_at), now
        self._waits[what] = self._waits.get(what, 0.0) + past_s
        if reading:
            self._reading_s += past_s

    def told(
        self, state: str, from_origin: int, from_store: int, from_peers: dict[PeerId, int]
    ) -> Told:
        """Those who sent most are named."""
        most = sorted(from_peers.items(), key=lambda item: -item[1])
        named, others = most[:PARENTS_MAX], most[PARENTS_MAX:]
        return Told(
            state=state[:WORDS_MAX],
            seconds=0.0 if self._began_at is None else self._seen_at - self._began_at,
            from_origin=from_origin,
            from_store=from_store,
            reading_s=self._reading_s,
            waits=dict(self._waits),
            decisions=list(self._decisions.values()),
            more=self._more,
            sources=[Source(peer, self._why(peer), size) for peer, size in named],
            others_bytes=sum(size for _, size in others),
        )


def direct_s(told: Told, length_bytes: int | None) -> float | None:
    """What a plain download would have taken at the rate at which this peer read the origin, the
    way to the version included; None where it read nothing there."""
    if length_bytes is None or told.from_origin <= 0 or told.reading_s <= 0:
        return None
    began_s = told.waits.get(VERSION_SOUGHT, 0.0)
    return began_s + length_bytes * told.reading_s / told.from_origin


def kept(told: Told) -> bytes:
    return encode(told)


def read(data: bytes) -> Told | None:
    """What was kept; None where it makes no sense: it is for people, and nothing depends on it."""
    try:
        return decode(data, Told, max_bytes=DATA_MAX_BYTES)  # type: ignore[no-any-return]
    except RemoteProtocolError:
        return None
