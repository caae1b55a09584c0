"""A download's part in the scopes of its zone, as swarm/scopes.py has it.

Always: enrolled while the version is the one that is downloaded; once all is held, the scopes'
keepers are left to remember it; what ended early is withdrawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peerd.ids import PeerId, TaskId
from peerd.link import messages as msg
from peerd.link.messages import Access, LeaseKind, Message
from peerd.manifest import VersionInfo
from peerd.scheduler.ports import EnrolState
from peerd.swarm import events as ev
from peerd.zones import scopes, seat_id

if TYPE_CHECKING:
    from tools.sim.running import Run


class ScopeMember:
    """One scope of one version (scheduler.service.SwarmMember)."""

    def __init__(self, run: Run, version: VersionInfo, scope: str) -> None:
        self._run, self._version, self.scope = run, version, scope
        self.task: TaskId = seat_id(version.version, scope)

    def enrolment(self) -> EnrolState:
        run = self._run
        return EnrolState(
            spec=None, shared=True, wants=not run.finished, access=Access.UNKNOWN,
            version=self._version, have=run.store.held.to_bytes(),
            leases=run.core.borders.standing(self.scope, run.world.clock.now),
        )  # fmt: skip

    def waiting(self) -> bool:
        run = self._run
        if run.finished:
            return False
        return run.core.borders.unmet(self.scope) and not any(
            parent.in_flight for parent in run.core.parents
        )

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
            case _:
                pass

    def report_held(self) -> None:
        held = self._run.store.held.to_bytes()
        self.tell(msg.Progress(self.task, self._version.version, held))

    def tell(self, message: Message) -> None:
        self._run.peer.keeping.tell(self.task, message)

    def term(self) -> int:
        return self._run.peer.keeping.term(self.task)


class Scopes:
    """All scopes of one download; none where the peer has no zone."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._names = scopes(run.peer.zone)
        self._members: dict[str, ScopeMember] = {}

    def enrol(self, version: VersionInfo) -> None:
        self.leave()
        for scope in self._names:
            member = self._members[scope] = ScopeMember(self._run, version, scope)
            self._run.peer.keeping.join(member)

    def ask(self, order: ev.AskBring) -> None:
        member = self._members[order.scope]
        seen = order.seen.to_bytes()
        member.tell(msg.BringAsk(member.task, member.term(), order.room, seen))

    def report(self, order: ev.ReportBring) -> None:
        member = self._members[order.scope]
        member.tell(
            msg.LeaseReport(member.task, member.term(), order.lease, order.outcome, (), "", "")
        )

    def progress(self) -> None:
        for member in self._members.values():
            member.report_held()

    def complete(self) -> None:
        """All is held, and stays: the keepers are told, and left alone."""
        for member in self._members.values():
            member.report_held()
            member.tell(msg.BringAsk(member.task, member.term(), 0, b""))
            self._run.peer.keeping.let_be(member.task)
        self._members.clear()

    def leave(self) -> None:
        for member in self._members.values():
            self._run.peer.keeping.leave(member.task)
        self._members.clear()
