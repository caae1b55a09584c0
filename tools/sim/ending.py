"""How a simulated download ends, as swarm/ending.py does it.

Always: it is complete only when every piece is held and, where a digest is known, the whole has it;
a condemned attester's pieces are dropped before anything else is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerd.ids import PeerId
from peerd.link import messages as msg
from peerd.swarm import events as ev
from peerd.swarm.ending import CONFIRM_WAIT_S, DISPUTE_LEASES, DISPUTE_MAX, DISPUTE_WAIT_S

if TYPE_CHECKING:
    from tools.sim.running import Run


def all_held(run: Run, order: ev.AllHeld) -> None:
    run.state = "checking"
    run.tell_progress()
    if run.content.spec.digest is not None and not run.content.right(run.store.made):
        _dispute(run)
    elif run.confirmed:
        _complete(run)
    else:
        run.world.clock.after(CONFIRM_WAIT_S, run.peer.guarded(_complete), run)


def _complete(run: Run) -> None:
    store = run.store
    if run.finished or run.state != "checking" or not store.held.complete():
        return
    assert store.version is not None
    run.state = "complete"
    run.world.completed(run.copy, run.peer)
    run.peer.keeping.holds(store.version)
    run.scopes.complete()
    run.end()


def _dispute(run: Run) -> None:
    """The whole digest is wrong: the keeper finds out whose pieces are."""
    store = run.store
    assert store.version is not None
    others = [made for made in store.made if made.attester != run.peer.own]
    run.state = "in dispute"
    made = tuple(others[:DISPUTE_MAX])
    run.tell_keeper(msg.Dispute(run.task, run.term(), store.version.version, made))
    run.ask_leases(DISPUTE_LEASES)
    found = len(run.culprits)

    def over() -> None:
        if run.state == "in dispute" and len(run.culprits) == found:
            run.fail("the content does not have its digest")

    run.world.clock.after(DISPUTE_WAIT_S, run.peer.guarded(over))


def condemn(run: Run, attester: PeerId, words: str) -> None:
    """Its pieces go, and it is believed no more."""
    store = run.store
    spoilt = [index for index, made in enumerate(store.made) if made.attester == attester]
    if attester != run.peer.own:
        run.culprits[attester] = words
    for index in spoilt:
        store.held.discard(index)
        store.made[index] = run.content.nobody
        run.lost(index)
    if attester != run.peer.own:
        run.post(ev.PeerCondemned(attester, words))
    run.state = "fetching"


def ask_hedge(run: Run, order: ev.AskHedge) -> None:
    """What is left would come late."""
    run.tell_keeper(order.message(run.task, run.term()))
