"""A download's part in the scopes of its zone: enrolled with each scope's keeper, it asks for and
reports leases to bring (ADR 0013).

Always: enrolled while the version is the one that is downloaded; once all is held, the scopes'
keepers are left to remember it; what ended early is withdrawn.
"""

from __future__ import annotations

from typing import Protocol

import trio

from peerd.ids import PeerId, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseKind, Message
from peerd.scheduler.ports import EnrolState
from peerd.swarm import events as ev
from peerd.swarm.download import Download
from peerd.swarm.ports import Keepers, StoredVersion
from peerd.zones import scopes, seat_id


class Host(Protocol):
    """What it needs from the run."""

    core: Download

    def post(self, event: ev.Event) -> None: ...
    def going(self) -> bool: ...


class ScopeMember:
    """One scope of one version (scheduler.service.SwarmMember)."""

    def __init__(self, run: Host, stored: StoredVersion, scope: str, keepers: Keepers) -> None:
        self._run, self._stored, self._keepers = run, stored, keepers
        self.scope = scope
        self.task: TaskId = seat_id(stored.info.version, scope)

    def enrolment(self) -> EnrolState:
        return EnrolState(
            spec=None,
            shared=True,
            wants=self._run.going(),
            access=Access.UNKNOWN,
            version=self._stored.info,
            have=self._stored.held.to_bytes(),
            leases=self._run.core.borders.standing(self.scope, trio.current_time()),
        )

    def waiting(self) -> bool:
        """Whether something is asked for, nothing granted, and nothing arrives."""
        if not self._run.going():
            return False
        core = self._run.core
        return core.borders.unmet(self.scope) and not any(p.in_flight for p in core.parents)

    def keeper_found(self, keeper: PeerId, term: int) -> None:
        self._run.post(ev.ScopeKept(self.scope))

    def cell_found(self, keeper: PeerId) -> None:
        """Its keeper lets us know if we are to bring."""

    def keeper_says(self, message: Message) -> None:
        match message:
            case msg.LeaseGrant(info=info) if info.kind is LeaseKind.BRING:
                self._run.post(ev.BringGranted(self.scope, info))
            case msg.LeaseRevoked(lease=lease):
                self._run.post(ev.BringRevoked(self.scope, lease))

    def report_held(self) -> None:
        held = self._stored.held.to_bytes()
        self.tell(msg.Progress(self.task, self._stored.info.version, held))

    def tell(self, message: Message) -> None:
        self._keepers.tell(self.task, message)


class Scopes:
    """All scopes of one run; none where the peer has no zone, or the content is its own."""

    def __init__(self, run: Host, keepers: Keepers, zone: str) -> None:
        self._run, self._keepers = run, keepers
        self._names = scopes(zone)
        self._members: dict[str, ScopeMember] = {}

    def enrol(self, stored: StoredVersion) -> None:
        """With each scope's keeper, for this version from now on."""
        self.leave()
        for scope in self._names:
            member = self._members[scope] = ScopeMember(self._run, stored, scope, self._keepers)
            self._keepers.join(member)

    def ask(self, order: ev.AskBring) -> None:
        member = self._members[order.scope]
        term = self._keepers.term(member.task)
        member.tell(msg.BringAsk(member.task, term, order.room, order.seen.to_bytes()))

    def report(self, order: ev.ReportBring) -> None:
        member = self._members[order.scope]
        term = self._keepers.term(member.task)
        member.tell(msg.LeaseReport(member.task, term, order.lease, order.outcome, (), "", ""))

    def progress(self) -> None:
        """What is held now, said to each scope's keeper."""
        for member in self._members.values():
            member.report_held()

    def complete(self) -> None:
        """All is held, and stays: the keepers are told, and left alone."""
        for member in self._members.values():
            member.report_held()
            member.tell(msg.BringAsk(member.task, self._keepers.term(member.task), 0, b""))
            self._keepers.let_be(member.task)
        self._members.clear()

    def leave(self) -> None:
        for member in self._members.values():
            self._keepers.leave(member.task)
        self._members.clear()
