"""How a download ends: the whole digest, the origin's word, and what to do when they disagree.

Always: a version is complete only when every piece is held and, where a digest is known, the whole
content has it; a condemned attester's pieces are dropped before anything else is done.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from peerd.errors import DigestMismatch, PeerdError, StoreDamaged
from peerd.ids import PeerId, PieceIndex, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.manifest import Attestation
from peerd.swarm import events as ev
from peerd.swarm.ports import PieceStore, StoredVersion
from peerd.swarm.whole import WholeDigest
from peerd.task import Ask

CONFIRM_WAIT_S: Final = 10.0
"""Wait for the group's revalidation; then the last known version is given, with its age said."""
DISPUTE_WAIT_S: Final = 60.0
"""Wait for the keeper's audits after the whole digest failed."""
CONDEMN_WAIT_S: Final = 1.0
"""A condemnation under way takes pieces from the store first, then asks for them anew."""
DISPUTE_MAX: Final = 1024
"""Attestations in one Dispute: about 230 KiB. Of more pieces the first are disputed first."""


DISPUTE_LEASES: Final = 4
"""Audits that a disputing peer offers to read at once."""


class Ending(Protocol):
    """What the end needs from the run."""

    task: TaskId
    ask: Ask
    stored: StoredVersion | None
    state: str
    stale: bool
    own: PeerId
    store: PieceStore
    confirmation: trio.Event
    whole: WholeDigest | None
    culprits: dict[PeerId, str]

    def tell_keeper(self, message: Message) -> bool: ...
    def term(self) -> int: ...
    def ask_leases(self, room: int) -> None: ...
    def post(self, event: ev.Event) -> None: ...
    def lost(self, index: PieceIndex) -> None: ...
    def going(self) -> bool: ...
    def count_time(self) -> None: ...
    def note(self, words: str) -> None: ...
    def complete(self) -> None: ...
    def fail(self, error: PeerdError) -> None: ...


async def finish(run: Ending) -> None:
    """All pieces are held: the whole digest, the origin's word, then it is complete."""
    stored = run.stored
    assert stored is not None
    if not run.going():
        return  # The store had all of it, and the run has ended since.
    run.count_time()
    run.state = "checking"
    run.tell_keeper(msg.Progress(run.task, stored.info.version, stored.held.to_bytes()))
    if run.whole is not None:
        wrong = await run.whole.result() != stored.info.digest
        if wrong and stored.held.complete():
            await _dispute(run, stored)
            return
        # Else a verdict came meanwhile, and took from the store what made it wrong: in dispute
        # would be what honest peers read.
    if stored.info.digest is None:
        with trio.move_on_after(CONFIRM_WAIT_S):
            await run.confirmation.wait()
        run.stale = run.stale or not run.confirmation.is_set()
    if stored is run.stored and stored.held.complete():
        await stored.finish()
        run.complete()
    elif stored is run.stored:
        await trio.sleep(CONDEMN_WAIT_S)
        lacking = len(stored.held.missing())
        if run.state == "checking" and lacking:
            # Said, not waited for: the keeper may believe that we hold it, and grant nothing.
            run.fail(StoreDamaged(f"{lacking} pieces went from the store meanwhile; get it again"))


async def _dispute(run: Ending, stored: StoredVersion) -> None:
    """The whole digest is wrong: the keeper finds out whose pieces are, by reading again."""
    others = [made for made in _attestations(stored) if made.attester != run.own]
    wrong = DigestMismatch(
        f"the content at {run.ask.spec.url} does not have the digest {stored.info.digest}; "
        "check the digest, or ask whoever publishes it"
    )
    if not others:
        await run.store.remove(stored.info.version)
        run.fail(wrong)
        return
    run.state = "in dispute"
    run.note(f"the whole digest is wrong; {len(others)} pieces of others are in dispute")
    made = tuple(others[:DISPUTE_MAX])
    run.tell_keeper(msg.Dispute(run.task, run.term(), stored.info.version, made))
    run.ask_leases(DISPUTE_LEASES)
    found = len(run.culprits)
    await trio.sleep(DISPUTE_WAIT_S)
    if run.state == "in dispute" and len(run.culprits) == found:
        # Kept, they would spoil the next download of it too.
        await stored.drop([PieceIndex(each.index) for each in others])
        run.fail(wrong)


def _attestations(stored: StoredVersion) -> list[Attestation]:
    count = stored.info.piece_count or 0
    known = [stored.attestation(PieceIndex(index)) for index in range(count)]
    return [made for made in known if made is not None]


async def condemn(run: Ending, attester: PeerId, words: str) -> None:
    """Its pieces go, and it is believed no more."""
    stored = run.stored
    assert stored is not None
    run.note(f"{attester} vouched for wrong bytes: {words}")
    if run.state == "checking":
        run.state = "fetching"
    spoilt = [PieceIndex(m.index) for m in _attestations(stored) if m.attester == attester]
    if attester != run.own:
        run.culprits[attester] = words
    await stored.drop(spoilt)
    for index in spoilt:
        run.lost(index)
    if attester != run.own:
        run.post(ev.PeerCondemned(attester, words))
    run.state = "fetching"
