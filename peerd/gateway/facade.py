"""The daemon as its control socket sees it: downloads for callers, and what there is to know.

Always: a caller that goes away withdraws its wish; a ticket gives one descriptor, once, within its
minute; what is told are copies, keyed as design.md, section 11 says.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any, Final

import trio

from peerd.errors import PeerdError, TaskNotFound, TimedOut, UsageError
from peerd.gateway.explaining import explained
from peerd.gateway.ports import (
    GetDone,
    GetEvent,
    GetFailed,
    GetProgress,
    GetRequest,
)
from peerd.gossip.service import GossipService
from peerd.ids import TaskId
from peerd.link.service import LinkService
from peerd.scheduler.scheduling import Leadership
from peerd.scheduler.scheduling_service import SchedulerService
from peerd.scheduler.service import KeeperService
from peerd.swarm.account import read
from peerd.swarm.accounting import told as told_of
from peerd.swarm.ports import StoredVersion
from peerd.swarm.run import TaskRun
from peerd.swarm.service import SwarmService
from peerd.task import ask_for

log = logging.getLogger(__name__)

PROGRESS_EVERY_S: Final = 0.25
ATTEMPTS_MAX: Final = 2
"""A caller who joined another's download, with another URL or other credentials, gets a try of its
own if that one failed."""
TICKET_S: Final = 60.0
TICKETS_MAX: Final = 1024
"""Downloads that ended and whose bytes were not fetched yet."""


class Facade:
    """Implements gateway.ports.Control over the real services."""

    def __init__(
        self,
        swarm: SwarmService,
        gossip: GossipService,
        links: LinkService,
        keepers: KeeperService,
        schedulers: SchedulerService,
        totals: Callable[[], dict[str, int]],
        about: dict[str, Any],
    ) -> None:
        self._swarm, self._gossip, self._links, self._keepers = swarm, gossip, links, keepers
        self._schedulers = schedulers
        self._totals, self._about = totals, about
        self._tickets: dict[str, tuple[StoredVersion, float]] = {}
        self.delivered_bytes = 0
        self.lingers: Callable[[], bool] = lambda: False

    # --- downloads

    async def get(self, request: GetRequest) -> AsyncIterator[GetEvent]:
        """Progress while it runs, then one GetDone or GetFailed."""
        started_at = trio.current_time()
        try:
            ask = ask_for(
                request.url,
                digest=request.digest,
                headers=request.headers,
                tag=request.tag,
                application=request.application,
            )
            ends_at = started_at + (request.timeout_s or float("inf"))
            for attempt in range(1, ATTEMPTS_MAX + 1):
                async with self._swarm.wanted(ask, request.priority) as run:
                    while not run.finished.is_set():
                        if trio.current_time() >= ends_at:
                            raise TimedOut(_late(run, request.timeout_s))
                        with trio.move_on_at(min(ends_at, trio.current_time() + PROGRESS_EVERY_S)):
                            await run.finished.wait()
                        yield _progress(run)
                    if run.error is None:
                        yield self._done(run, trio.current_time() - started_at)
                        return
                if run.ask == ask or attempt == ATTEMPTS_MAX:
                    raise run.error
        except PeerdError as error:
            yield GetFailed(None, error.code, str(error))

    def _done(self, run: TaskRun, seconds: float) -> GetDone:
        assert run.stored is not None, "a finished run without an error has its version"
        info = run.stored.info
        self.delivered_bytes += info.length_bytes or 0
        return GetDone(
            task=run.task,
            version=info.version,
            bytes=info.length_bytes or 0,
            seconds=seconds,
            from_origin=run.tally.from_origin,
            from_peers=sum(run.tally.from_peers.values()),
            from_store=run.tally.from_store,
            digest=info.digest,
            validated_s=run.age_s(),
            stale=run.stale,
            ticket=self._ticket(run.stored),
        )

    def needed(self) -> bool:
        """Whether a caller waits for a download, or has one to fetch."""
        now = trio.current_time()
        going = any(run.going() for run in self._swarm.runs().values())
        return going or any(until > now for _, until in self._tickets.values())

    def _ticket(self, stored: StoredVersion) -> str:
        now = trio.current_time()
        self._tickets = {t: held for t, held in self._tickets.items() if held[1] > now}
        while len(self._tickets) >= TICKETS_MAX:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = (stored, now + TICKET_S)
        return ticket

    def descriptor(self, ticket: str) -> int:
        stored, until = self._tickets.pop(ticket, (None, 0.0))
        if stored is None or trio.current_time() > until:
            raise TaskNotFound("that ticket is unknown, used or too old; get the content again")
        try:
            return stored.descriptor()
        except ValueError as error:
            raise TaskNotFound("that content was removed meanwhile; get it again") from error

    # --- what there is to know

    def status(self) -> dict[str, Any]:
        totals = self._totals()
        leads = self._schedulers.leadership()
        return {
            **self._about,
            "peers": sum(1 for view in self._gossip.peers() if view.reachable) - 1,
            "neighbours": len(self._gossip.neighbours),
            "links": len(self._links.links()),
            "mode": "degraded" if leads.leader is None else "scheduled",
            "leader": leads.leader,
            "term": leads.term,
            "scheduling": _scheduling(leads),
            "tasks": len({stored.info.task for stored in self._swarm.near.store.versions()}),
            "downloads": sum(1 for run in self._swarm.runs().values() if run.going()),
            "tasks_kept": self._keepers.tasks_kept(),
            "lingers": self.lingers(),
            **totals,
        }

    def scheduler(self) -> dict[str, Any]:
        leads = self._schedulers.leadership()
        return {
            "mode": "degraded" if leads.leader is None else "scheduled",
            "leader": leads.leader,
            "term": leads.term,
            "since_s": leads.since_s,
            "state": leads.state,
            "eligible": self._about["scheduler"],
            "electors": list(leads.electors),
            "standbys": list(leads.standbys),
            "contact": leads.contact,
            "subscribers": leads.subscribers,
            "advises": leads.advises,
            "picture": _picture(leads),
        }

    def peers(self) -> list[dict[str, Any]]:
        own = self._about["peer_id"]
        links = {state.peer: state for state in self._links.links()}
        rows = []
        for view in self._gossip.peers():
            member, link = view.member, links.get(view.member.peer)
            if member.peer == own:
                continue
            rows.append(
                {
                    "peer_id": member.peer,
                    "name": member.name,
                    "zone": member.zone,
                    "seed": member.seed,
                    "reachable": view.reachable,
                    "neighbour": view.neighbour,
                    "link": link is not None,
                    "via": link.relay if link else None,
                    "round_trip_s": link.round_trip_s if link else None,
                    "address": next(iter(member.link_addresses), None),
                    "addresses": [*view.overlay_addresses, *member.link_addresses],
                }
            )
        return rows

    def tasks(self) -> list[dict[str, Any]]:
        runs = self._swarm.runs()
        known = {stored.info.task for stored in self._swarm.near.store.versions()} | set(runs)
        return [self._row(task, runs.get(task)) for task in sorted(known)]

    def _row(self, task: TaskId, run: TaskRun | None) -> dict[str, Any]:
        versions = self._swarm.near.store.versions(task)
        stored = run.stored if run and run.going() and run.stored else next(iter(versions), None)
        ask = run.ask if run else self._swarm.near.store.asked(task)
        held = stored.info.bytes_of(stored.held) if stored else 0
        length = stored.info.length_bytes if stored else None
        return {
            "task": task,
            "state": _state(run, stored),
            "bytes": length,
            "bytes_held": held,
            "progress": held / length if length else float(bool(stored and stored.complete)),
            "version": stored.info.version if stored else None,
            "url": ask.spec.url if ask else None,
        }

    def task(self, task: str) -> dict[str, Any]:
        found = self._find(task)
        run = self._swarm.runs().get(found)
        row = self._row(found, run)
        stored = next(iter(self._swarm.near.store.versions(found)), None)
        if stored is not None:
            row |= {
                "digest": stored.info.digest,
                "piece_bytes": stored.info.piece_length_bytes,
                "pieces": stored.info.piece_count,
                "attesters": _attesters(stored),
            }
        if run is not None:
            row |= {
                "from_origin": run.tally.from_origin,
                "from_peers": sum(run.tally.from_peers.values()),
                "from_store": run.tally.from_store,
                "wasted_bytes": run.core.wasted_bytes,
                "keeper": run.keeper,
                "parents": [
                    {"peer_id": peer, "bytes": count}
                    for peer, count in sorted(run.tally.from_peers.items())
                ],
                "blocked": [
                    {"peer_id": peer, "reason": words}
                    for peer, words in sorted(run.blocked().items())
                ],
                "error": str(run.error) if run.error else None,
                "story": run.story(),
            }
        kept = self._keepers.story(found)
        return row | ({"keeper_story": list(kept)} if kept else {})

    def explain(self, task: str) -> dict[str, Any]:
        """Why it went as it did; TaskNotFound where nothing was kept of it."""
        found = self._find(task)
        run = self._swarm.runs().get(found)
        store = self._swarm.near.store
        stored = next(iter(store.versions(found)), None)
        if run is not None and run.going():
            run.count_time()
        told = told_of(run) if run is not None else None
        if told is None and stored is not None:
            told = read(store.account(stored.info.version))
        if told is None:
            raise TaskNotFound(f"nothing is known of how {found[:16]} was downloaded")
        length = stored.info.length_bytes if stored is not None else None
        ask = store.asked(found) if run is None else run.ask
        about = {"task": found, "url": ask.spec.url if ask else None, "bytes": length}
        return about | explained(told, length)

    async def remove(self, task: str) -> dict[str, Any]:
        found = self._find(task)
        return {"task": found, "versions_removed": await self._swarm.remove(found)}

    def _find(self, text: str) -> TaskId:
        known = {stored.info.task for stored in self._swarm.near.store.versions()}
        found = [task for task in known | set(self._swarm.runs()) if task.startswith(text)]
        if not found:
            raise TaskNotFound(f"no task {text}; `peerd tasks` lists them")
        if len(found) > 1:
            raise UsageError(f"{len(found)} tasks begin with {text}; write more digits")
        return found[0]


def _scheduling(leads: Leadership) -> str:
    if leads.leader is None:
        return "degraded: no scheduler"
    return f"scheduled by {leads.leader} (term {leads.term})"


def _picture(leads: Leadership) -> dict[str, Any] | None:
    return asdict(leads.picture) if leads.picture is not None else None


def _progress(run: TaskRun) -> GetProgress:
    return GetProgress(
        task=run.task,
        bytes_total=run.stored.info.length_bytes if run.stored else None,
        bytes_held=_held_bytes(run),
        from_origin=run.tally.from_origin,
        from_peers=sum(run.tally.from_peers.values()),
        from_store=run.tally.from_store,
        state=run.state,
    )


def _held_bytes(run: TaskRun) -> int:
    return run.stored.info.bytes_of(run.stored.held) if run.stored else 0


def _late(run: TaskRun, timeout_s: float | None) -> str:
    held = _held_bytes(run)
    return (
        f"not complete after {timeout_s:g} s ({held} bytes are here, state: {run.state}); "
        "get it again to go on from there, or allow more with --timeout"
    )


def _state(run: TaskRun | None, stored: StoredVersion | None) -> str:
    if run is not None and (run.going() or run.error is not None):
        return run.state
    return "complete" if stored is not None and stored.complete else "partial"


def _attesters(stored: StoredVersion) -> dict[str, int]:
    """Pieces by who vouches for them."""
    counts: dict[str, int] = {}
    for index in stored.held:
        made = stored.attestation(index)
        if made is not None:
            counts[made.attester] = counts.get(made.attester, 0) + 1
    return counts
