"""Keeps a download's account while it runs, and with the content when it ends.

Always: each moment counts as one thing; what cannot be kept (no room) is said in the log, and is no
reason for a download to fail.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import trio

from peerd.errors import PeerdError
from peerd.ids import PeerId, TaskId
from peerd.swarm import account
from peerd.swarm.download import Download
from peerd.swarm.ports import PieceStore, StoredVersion
from peerd.swarm.surroundings import Tally

log = logging.getLogger(__name__)


class Accounted(Protocol):
    """What it needs from the run."""

    task: TaskId
    account: account.Account
    core: Download
    stored: StoredVersion | None
    state: str
    keeper: PeerId | None
    tally: Tally

    @property
    def reads(self) -> bool:
        """Whether it holds a lease now."""
        ...


def count_time(run: Accounted, received_bytes: Mapping[PeerId, int]) -> None:
    """What the time since the last look went into."""
    grew = run.account.came_more(sum(received_bytes.get(p, 0) for p in run.core.parents.joined))
    if run.stored is None:
        what = account.KEEPER_SOUGHT if run.keeper is None else account.VERSION_SOUGHT
    elif run.state != "fetching":
        what = account.CHECKING
    elif grew:
        what = account.RECEIVING
    elif run.reads:
        what = account.READING
    elif any(parent.in_flight for parent in run.core.parents):
        what = account.OWED
    else:
        what = account.UNGRANTED
    # The way to the version is counted as such: a plain download goes it, too, and once.
    reading = run.reads and run.stored is not None
    run.account.goes_on(what, trio.current_time(), reading=reading)


def told(run: Accounted) -> account.Told:
    """How it went so far."""
    tally = run.tally
    return run.account.told(run.state, tally.from_origin, tally.from_store, tally.from_peers)


async def keep(run: Accounted, store: PieceStore) -> None:
    """With the content, so that it can be explained later; without, it is forgotten sooner."""
    if run.stored is None:
        return
    try:
        await store.set_account(run.stored.info.version, account.kept(told(run)))
    except PeerdError as error:
        log.info("task %s: how it went is not kept: %s", run.task[:12], error)
