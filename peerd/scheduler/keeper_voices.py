"""Which version it is, where members who resolved the same content say different things of it.

Always: each member has one voice, its own reading of the origin; of content known by its digest
there is only one version, so whoever is outvoted by two or more vouched for what is not so (it
lies, or it was given a wrong URL: its bytes are worth as little). ADR 0005.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from peerd.ids import PeerId
from peerd.manifest import VersionInfo
from peerd.scheduler.keeper_state import Kept
from peerd.scheduler.roster import Entry

ENOUGH = 2
"""Voices that convict whoever says otherwise: as many as convict a reader of a wrong piece."""


class Ruling(Enum):
    BELIEVED = "it is the content from here on"
    OPEN = "as many say otherwise: another member is to resolve it"
    OVERRULED = "more members say otherwise"


def rule(kept: Kept, entry: Entry, version: VersionInfo) -> Ruling:
    """`entry` resolved the content as `version`: whether that is what it is.

    Of two that as many vouch for it is the keeper's own, else the newest: a liar among two readers
    may so be right for the keeper, and the other's download end with an error (ADR 0005).
    """
    known, voices = kept.version, kept.voices
    voices[entry.peer] = version.version
    if known is None or version.digest is None:
        return Ruling.BELIEVED  # Without a digest it may really have changed.
    votes = Counter(voices.values())
    mine = votes.pop(version.version)
    others = max(votes.values(), default=0)
    if mine != others:
        return Ruling.BELIEVED if mine > others else Ruling.OVERRULED
    if unheard(kept):
        return Ruling.OPEN
    decisive = voices.get(kept.own) or voices[next(reversed(voices))]
    return Ruling.BELIEVED if decisive == version.version else Ruling.OVERRULED


def outvoted(kept: Kept) -> list[PeerId]:
    """Those who vouched for another version than the one that most, and enough, vouch for."""
    if kept.version is None or kept.version.digest is None:
        return []
    ranking = Counter(kept.voices.values()).most_common(2)
    if len(ranking) < 2 or ranking[0][1] < ENOUGH or ranking[0][1] == ranking[1][1]:
        return []
    return [peer for peer, version in kept.voices.items() if version != ranking[0][0]]


def alone(kept: Kept, version: VersionInfo) -> bool:
    """Whether nobody but its attester vouched for it."""
    return [p for p, said in kept.voices.items() if said == version.version] == [version.attester]


def unheard(kept: Kept) -> bool:
    """Whether anybody who did not vouch for a version yet could resolve it, now or soon."""
    entries = (kept.roster.entries[x] for x in kept.roster.askers if x not in kept.voices)
    return any(entry.lost_at is None and not entry.failures for entry in entries)
