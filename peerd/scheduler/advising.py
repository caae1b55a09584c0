"""What goes up to a leader, and what comes down from it: reports, the picture, and advice.

Always: only who leads, or stands by, keeps a picture, and only who leads advises; advice of another
term, or not from above, is not passed on; what goes one way never goes back where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Final, Protocol, TypeVar

from peerd.ids import PeerId, TaskId
from peerd.link.messages import Message, RosterPeer
from peerd.link.scheduler_messages import (
    ADVISED_MAX,
    KEPT_MAX,
    Advice,
    AdvisedKeeper,
    AdvisedPeer,
    Report,
)
from peerd.scheduler.advisor import Advisor
from peerd.scheduler.contacts import standbys_of
from peerd.scheduler.election import Elector
from peerd.scheduler.evaluator import WORDS
from peerd.scheduler.following import Follower
from peerd.scheduler.ports import Group
from peerd.scheduler.reporting import Facts, Relay, Reporter, batches
from peerd.scheduler.topology import Topology

Kind = TypeVar("Kind", AdvisedPeer, AdvisedKeeper)

ADVICE_MAX_S: Final = 60.0
"""Nobody's advice is heeded for longer, whatever it says. Guess: what a leader sees changes."""

HANDED_MAX: Final = 8_192
"""Reports handed to a new standby at once: 1.5 MB, and a link may have 4 MiB waiting. The others
come as their peers report again, within five seconds."""


@dataclass(frozen=True, slots=True)
class PeerAdvice:
    """Advice for this peer, of one task: who leads with which term, until when it is good.

    To who downloads or serves it: its place among this peer's tasks; parents to try, the best
    first, and why each; and who is to be sent first what is read here. To its keeper: see
    AdvisedKeeper.
    """

    task: TaskId
    leader: PeerId
    term: int
    until: float
    place: int = 0
    parents: tuple[RosterPeer, ...] = ()
    why: Mapping[PeerId, str] = field(default_factory=dict)
    first: tuple[RosterPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class KeeperAdvice:
    """Advice for this peer as a task's keeper (messages.AdvisedKeeper)."""

    task: TaskId
    leader: PeerId
    term: int
    until: float
    last: tuple[PeerId, ...]
    readers: int


class LeaderSeat(Protocol):
    """Where this peer stands among those who elect (scheduling.SchedulerService)."""

    core: Elector | Follower
    electors: tuple[PeerId, ...]

    def leads(self) -> bool: ...
    def advises(self, now: float) -> bool:
        """Whether it leads, and somebody followed it lately."""
        ...

    def sees(self, now: float) -> bool:
        """Whether it leads, or is one of the two that would be next."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """What a leader, or a standby, sees. `age_s`: since the newest report; None: none came yet."""

    peers: int
    tasks: int
    borders: int
    reports: int
    decisions: int
    decisions_per_s: float
    age_s: float | None


class Advising:
    """One peer's part. `send` queues a message to a peer."""

    def __init__(
        self, own: PeerId, seat: LeaderSeat, members: Group, advisor: Advisor, reporter: Reporter,
        facts: Callable[[], Facts], send: Callable[[PeerId, Message], None],
    ) -> None:  # fmt: skip
        self._own, self._seat, self._members = own, seat, members
        self._facts, self._send = facts, send
        self.topology = Topology()
        self.on_advice: Callable[[PeerAdvice], None] = lambda advice: None
        self.on_keeper_advice: Callable[[KeeperAdvice], None] = lambda advice: None
        self._reporter, self._advisor = reporter, advisor
        self._relay = Relay()
        self._handed: tuple[PeerId, ...] = ()
        self._led = False
        self._told_to: tuple[PeerId | None, PeerId | None] = (None, None)

    def picture(self, now: float) -> Picture | None:
        seen = self.topology
        if not self._seat.sees(now):
            return None
        return Picture(
            len(seen.peers), len(seen.tasks), len(seen.borders), seen.reports,
            self._advisor.decisions, self._advisor.per_s(now),
            now - seen.heard_at if seen.peers else None,
        )  # fmt: skip

    @property
    def decisions(self) -> int:
        """Made here, from the start."""
        return self._advisor.decisions

    def began(self, now: float) -> None:
        """A download here found its keeper, or is kept here."""
        self._reporter.began(now)

    def lost(self, peer: PeerId) -> None:
        """The link to it is down."""
        self._relay.lost(peer)

    def _audience(self, now: float) -> tuple[PeerId | None, PeerId | None]:
        """Who leads, and who hears what is reported here."""
        core = self._seat.core
        leader = core.leader(now)
        return leader, leader if isinstance(core, Elector) else core.contact

    def deadline(self, now: float) -> float:
        if self._audience(now) != self._told_to:
            return -inf
        advises_at = self._advisor.deadline() if self._seat.advises(now) else inf
        return min(self._reporter.deadline(), self._relay.due, self.topology.deadline(), advises_at)

    # --- up

    def reported(self, peer: PeerId, reports: tuple[Report, ...], now: float) -> None:
        """Of those who subscribed here; to a leader, of electors; of it, to one that stands by."""
        leader = self._seat.core.leader(now)
        if peer == leader and self._seat.sees(now):
            self._see(reports, now)
        elif peer in self._seat.core.party.subscribers or (
            self._seat.leads() and peer in self._seat.electors
        ):
            self._pass_on(peer, reports, now)

    def _pass_on(self, child: PeerId, reports: tuple[Report, ...], now: float) -> None:
        if self._seat.leads():
            self._see(reports, now)
        self._relay.take(child, reports, now, self._seat.core.party.subscribers)

    def _see(self, reports: tuple[Report, ...], now: float) -> None:
        for report in reports:
            member = self._members.member(report.peer)
            if member is None:
                continue
            self.topology.report(report, member.zone, now, seed=member.seed)
            for swarm in report.swarms if self._seat.leads() else ():
                self._advisor.noticed(swarm.task, report.peer)
            if report.keeps and self._seat.leads():
                self._advisor.kept(each.task for each in report.keeps)

    def _hearers(self, now: float) -> tuple[PeerId, ...]:
        """To whom reports go from here: the standbys from who leads, else one step further up."""
        leader = self._seat.core.leader(now)
        if leader == self._own:
            return standbys_of(self._seat.electors, leader)
        if isinstance(self._seat.core, Follower):
            return (self._seat.core.contact,) if leader and self._seat.core.contact else ()
        return (leader,) if leader else ()

    def tick(self, now: float) -> None:
        """What is due of this peer's own reports and of those that it passes on."""
        leader, _ = audience = self._audience(now)
        if audience != self._told_to:
            self._told_to = audience
            if leader is None:
                self._reporter.stop()
            else:
                self._reporter.anew(now)
            if not self._seat.sees(now):
                self.topology.clear()
        if self._reporter.deadline() <= now:
            report = self._reporter.look(self._facts(), now)
            if report is not None:
                self._pass_on(self._own, (report,), now)
        self._hand_over(now)
        self._advise(now)
        if self._relay.due <= now:
            for message in self._relay.flush():
                for peer in self._hearers(now):
                    self._send(peer, message)
        self.topology.expire(now)

    def _hand_over(self, now: float) -> None:
        """All that is seen to who stands by from now on."""
        heeds = self._seat.core.party.heeds
        standbys = tuple(filter(heeds, self._hearers(now))) if self._seat.leads() else ()
        for peer in standbys:
            if peer not in self._handed:
                reports = islice(self.topology.as_reports(), HANDED_MAX)
                for message in batches(list(reports)):
                    self._send(peer, message)
        self._handed = standbys

    # --- down

    def _advise(self, now: float) -> None:
        """What is due of it, where this peer leads and is heard."""
        leads = self._seat.leads()
        if leads and not self._led:
            for task, members in self.topology.tasks.items():
                for peer in members:
                    self._advisor.noticed(task, peer)
        elif not leads and self._led:
            self._advisor.clear()
        self._led = leads
        if self._seat.advises(now) and self._advisor.deadline() <= now:
            advised = self._advisor.advise(self.topology, now)
            keepers = self._advisor.keepers(self.topology, now)
            term, for_s = self._seat.core.term, self._advisor.config.for_s
            self._spread(advised, keepers, term, for_s, self._own, now)

    def advised(self, peer: PeerId, advice: Advice, now: float) -> None:
        """From above: for this peer, or for one that reports over it."""
        leader = self._seat.core.leader(now)
        above = self._seat.core.contact if isinstance(self._seat.core, Follower) else leader
        if leader is not None and peer in (leader, above) and advice.term == self._seat.core.term:
            self._spread(advice.advised, advice.keepers, advice.term, advice.for_s, peer, now)

    def _spread(
        self, advised: Sequence[AdvisedPeer], keepers: Sequence[AdvisedKeeper], term: int,
        for_s: float, source: PeerId, now: float,
    ) -> None:  # fmt: skip
        """To each over whoever its reports come from; never back to where it came from."""
        peers = self._ways(advised, source)
        for each in peers.pop(self._own, ()):
            self._heed(each, term, for_s, now)
        for hop, some in peers.items():
            for at in range(0, len(some), ADVISED_MAX):
                self._send(hop, Advice(term, for_s, tuple(some[at : at + ADVISED_MAX]), ()))
        to_keepers = self._ways(keepers, source)
        for told in to_keepers.pop(self._own, ()):
            self._heed_as_keeper(told, term, for_s, now)
        for hop, kept in to_keepers.items():
            for at in range(0, len(kept), KEPT_MAX):
                self._send(hop, Advice(term, for_s, (), tuple(kept[at : at + KEPT_MAX])))

    def _ways(self, advised: Sequence[Kind], source: PeerId) -> dict[PeerId, list[Kind]]:
        """By the next hop; what nobody is known for is left out."""
        over: dict[PeerId, list[Kind]] = {}
        for each in advised:
            hop = self._own if each.peer == self._own else self._relay.ways.get(each.peer)
            if hop is not None and (each.peer == self._own or hop not in (source, self._own)):
                over.setdefault(hop, []).append(each)
        return over

    def _heed_as_keeper(self, advised: AdvisedKeeper, term: int, for_s: float, now: float) -> None:
        leader = self._seat.core.leader(now)
        if leader is not None:
            until = now + min(for_s, ADVICE_MAX_S)
            self.on_keeper_advice(
                KeeperAdvice(advised.task, leader, term, until, advised.last, advised.readers)
            )

    def _heed(self, advised: AdvisedPeer, term: int, for_s: float, now: float) -> None:
        leader = self._seat.core.leader(now)
        if leader is None:
            return
        parents = self._named(parent.peer for parent in advised.parents)
        why = {x.peer: WORDS[x.why] for x in advised.parents if x.why in WORDS}
        until = now + min(for_s, ADVICE_MAX_S)
        self.on_advice(
            PeerAdvice(
                advised.task, leader, term, until, advised.place, parents, why,
                self._named(advised.first),
            )
        )  # fmt: skip

    def _named(self, peers: Iterable[PeerId]) -> tuple[RosterPeer, ...]:
        """Those of them that are members, and somebody else."""
        members = (self._members.member(peer) for peer in peers)
        return tuple(
            RosterPeer(each.peer, each.link_addresses[:8], each.zone, 1, False, each.seed)
            for each in members
            if each is not None and each.peer != self._own
        )
