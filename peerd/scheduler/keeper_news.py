"""What a cell's keeper hears of the content from the wider keeper, and passes on to its members.

Always: it counts only from one who can keep the wider seat, as the group is seen here, and of no
older term; what counts replaces what members said.
"""

from __future__ import annotations

from peerd.ids import PeerId
from peerd.link.messages import Enrolled, RosterUpdate, Unreadable, Verdict
from peerd.manifest import VersionInfo
from peerd.scheduler import keeper_cells as cells
from peerd.scheduler import keeper_grants as grants
from peerd.scheduler import keeper_members as members
from peerd.scheduler.keeper_events import News
from peerd.scheduler.keeper_state import Doubt, Kept


def news(kept: Kept, peer: PeerId, message: News, now: float) -> None:
    """RemoteProtocolError if a version does not fit, which then changes nothing."""
    if not cells.heard(kept, peer, message.term):
        return
    match message:
        case Enrolled(version=version, validated_s=age_s) if version is not None:
            _version(kept, version, age_s, now)
        case RosterUpdate(version=version) if version is not None:
            _version(kept, version, 0.0, now)
        case Verdict(attester=attester, words=words):
            _verdict(kept, message, attester, words, now)
        case Unreadable(code=code, words=words) if code != "origin-refused":
            # Who is refused is replaced: others may have credentials.
            grants.unreadable(kept, code, words, now)


def _version(kept: Kept, version: VersionInfo, age_s: float, now: float) -> None:
    version = kept.check_version(version)
    if kept.version != version:
        kept.set_version(version, now)
    kept.confirmed, kept.doubt = True, Doubt.NONE
    kept.validated_at = now - age_s
    if age_s <= kept.config.fresh_s:
        kept.push_version(now)
        return
    for entry in kept.roster.wanting():
        if entry.told_version != version:
            members.greet(kept, entry, version, now)  # With its age: nobody could confirm it.


def _verdict(kept: Kept, verdict: Verdict, liar: PeerId, words: str, now: float) -> None:
    version = kept.version
    if version is None or version.version != verdict.version or liar in kept.roster.liars:
        return
    kept.roster.convict(liar, 0, words, now)
    kept.say(now, f"{liar} lied: {words}")
    passed = Verdict(kept.task, kept.term, version.version, liar, words)
    for peer in [*kept.roster.entries, *kept.listeners()]:
        kept.send(peer, passed)
