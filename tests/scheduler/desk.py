"""One keeper core on a test's desk: what peers send it, and what it sends them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TypeVar

from peerd.ids import PeerId, PieceIndex
from peerd.link import messages as m
from peerd.manifest import Attestation, VersionInfo
from peerd.rendezvous import ranked
from peerd.scheduler.keeper import KeeperCore
from peerd.scheduler.keeper_events import (
    Event,
    KeeperConfig,
    LinkLost,
    MembersChanged,
    MessageFrom,
    Send,
    Undelivered,
)
from peerd.task import Ask, TaskSpec, task_id
from tests.scheduler.world import SPEC, key, member, version_of

Kind = TypeVar("Kind")
AT_ONCE_MAX = 20
"""Times that a core may be due again at the same moment: one thing leads to another, and ends."""


class Desk:
    """`numbers` are the group; the core is that of the best-ranked unless `own` says otherwise."""

    def __init__(
        self, numbers: Iterable[int] = (1,), *, own: int | None = None, spec: TaskSpec = SPEC,
        config: KeeperConfig | None = None, seeds: Iterable[int] = (), rng_seed: int = 1,
    ) -> None:  # fmt: skip
        self.spec, self.task = spec, task_id(Ask(spec), b"")
        self.numbers, self.seeds = list(numbers), set(seeds)
        self.order = self.rank(self.numbers)
        self.own = own if own is not None else self.order[0]
        config = config or KeeperConfig(ramp_first=64)  # Most tests are not about the start.
        self.core = KeeperCore(self.id(self.own), random.Random(rng_seed), config)
        self.now = 100.0
        self.sent: list[Send] = []
        self.members(self.numbers)

    @staticmethod
    def id(number: int) -> PeerId:
        return key(number).peer_id

    def rank(self, numbers: Iterable[int]) -> list[int]:
        by_id = {self.id(n): n for n in numbers}
        return [by_id[peer] for peer in ranked(by_id, self.task)]

    # --- what happens

    def event(self, event: Event) -> list[Send]:
        orders = self.core.handle(event, self.now)
        self.core.validate()
        self.sent += orders
        return orders

    def later(self, seconds: float) -> None:
        """Time passes, and whatever falls due is done at its time."""
        end, at_once = self.now + seconds, 0
        while self.core.deadline() <= end:
            at_once = at_once + 1 if self.core.deadline() <= self.now else 0
            assert at_once < AT_ONCE_MAX, "what falls due again at once never ends"
            self.now = max(self.now, self.core.deadline())
            self.sent += self.core.expire(self.now)
            self.core.validate()
        self.now = end

    def members(self, numbers: Iterable[int], synced: bool = True) -> None:
        live = tuple(member(n, seed=n in self.seeds) for n in numbers)
        self.event(MembersChanged(live, synced))

    def hear(self, number: int, message: m.Message) -> list[Send]:
        return self.event(MessageFrom(self.id(number), message))

    def lost(self, number: int) -> None:
        self.event(LinkLost(self.id(number)))

    def undelivered(self, number: int) -> None:
        self.event(Undelivered(self.id(number)))

    def enrol(
        self, number: int, *, room: int | None = 4, version: VersionInfo | None = None,
        have: Iterable[int] | None = None, wants: bool = True, prior: int = 0,
        access: m.Access = m.Access.UNKNOWN, leases: tuple[m.LeaseInfo, ...] = (),
        unreachable: Iterable[int] = (), candidates: Iterable[int] = (), zone: str = "",
    ) -> None:  # fmt: skip
        """Enrol, and ask for `room` leases (None: do not ask)."""
        bitmap = b""
        if version is not None:
            count = version.piece_count or 0
            bits = sum(1 << i for i in (range(count) if have is None else have))
            bitmap = bits.to_bytes((count + 7) // 8, "little")
        self.hear(
            number,
            m.Enrol(
                self.task, self.spec, tuple(self.id(n) for n in candidates),
                tuple(self.id(n) for n in unreachable), prior, wants, access, zone,
                number in self.seeds, version, bitmap, leases,
            ),
        )  # fmt: skip
        if room is not None:
            self.ask(number, room)

    def ask(self, number: int, room: int, reader_at: int | None = None) -> None:
        kept = self.core.kept(self.task)
        self.hear(number, m.LeaseAsk(self.task, kept.term if kept else 0, room, reader_at))

    def hold_all(self, number: int) -> None:
        """It got all that others hold by now."""
        kept = self.core.kept(self.task)
        assert kept is not None
        assert kept.version is not None
        have = kept.roster.covered.to_bytes(((kept.count or 0) + 7) // 8, "little")
        self.hear(number, m.Progress(self.task, kept.version.version, have))

    def version(self, number: int, pieces: int, **facts: object) -> VersionInfo:
        return version_of(key(number), pieces, spec=self.spec, **facts)  # type: ignore[arg-type]

    def resolve(self, number: int, pieces: int, **facts: object) -> VersionInfo:
        """The holder of the RESOLVE lease finds `pieces` pieces and delivers piece 0."""
        grant = next(x for x in self.grants(number) if x.info.kind is m.LeaseKind.RESOLVE)
        version = self.version(number, pieces, **facts)
        self.hear(number, m.Resolved(self.task, grant.term, grant.info.lease, version, False))
        if version.ranged and version.piece_count:
            self.report(number, grant.info.lease, made=[0], version=version)
        return version

    def report(
        self, number: int, lease: int, outcome: m.Outcome = m.Outcome.DONE, *,
        made: Iterable[int] = (), version: VersionInfo | None = None, code: str = "",
        lie: bool = False,
    ) -> None:  # fmt: skip
        kept = self.core.kept(self.task)
        assert kept is not None
        info = version or kept.version
        attested = tuple(self.attest(number, info, i, lie) for i in made) if info else ()
        words = f"words of {code}" if code else ""
        report = m.LeaseReport(self.task, kept.term, lease, outcome, attested, code, words)
        self.hear(number, report)

    @staticmethod
    def attest(number: int, version: VersionInfo, index: int, lie: bool = False) -> Attestation:
        digest = (b"\xff" if lie else b"\x00") + index.to_bytes(31, "big")
        return Attestation.made(key(number), version.version, PieceIndex(index), digest)

    def finish(self, number: int, lease: m.LeaseInfo, lie: bool = False) -> None:
        """The holder reads all of a lease."""
        self.report(number, lease.lease, made=range(lease.first, lease.first + lease.count),
                    lie=lie)  # fmt: skip

    # --- what is to be seen

    def to(self, number: int, kind: type[Kind]) -> list[Kind]:
        """The messages of a kind sent to `number` so far."""
        return [
            x.message for x in self.sent
            if x.peer == self.id(number) and isinstance(x.message, kind)
        ]  # fmt: skip

    def grants(self, number: int) -> list[m.LeaseGrant]:
        return self.to(number, m.LeaseGrant)

    def leases(self, number: int | None = None) -> list[m.LeaseInfo]:
        """Outstanding ones."""
        found = self.core.leases(self.task, self.now)
        return [x for x in found if number is None or x.holder == self.id(number)]

    def forget(self) -> None:
        self.sent.clear()
