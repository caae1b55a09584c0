"""Who vouched for which pieces of one version, and which of them are read again by others.

Always: nobody checks a piece it vouched for itself; random checks stay within 1 % of the content;
of what is in dispute a sample of each attester's is read before all of it; a peer is a liar only if
two others agree against it, or one where its pieces failed the whole digest and no third can read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from peerd.errors import RemoteProtocolError
from peerd.ids import LeaseId, PeerId
from peerd.manifest import Attestation
from peerd.scheduler.keeper_events import KeeperConfig, Rng

SAMPLE = 2
"""Pieces of each attester that a dispute has read first. Guess: who lies mostly lies always, and a
single one may be the one that was read in spite of it."""
TRIES_MAX = 3
"""An audit that nobody carried out so often is given up. Guess."""


@dataclass(slots=True, eq=False)
class Check:
    """Pieces [first, first + count) to be read again; `claims` is who said what of each."""

    first: int
    count: int
    claims: dict[int, dict[PeerId, bytes]]
    dispute: bool
    signed: tuple[Attestation, ...] = ()
    tries: int = 0

    def vouched(self, peer: PeerId) -> bool:
        return any(peer in said for said in self.claims.values())

    def genuine(self) -> bool:
        """Whether what a dispute quotes was really said."""
        try:
            for attestation in self.signed:
                attestation.verified()
        except RemoteProtocolError:
            return False
        return True


@dataclass(slots=True, eq=False)
class Finding:
    """What a check came to."""

    liars: dict[PeerId, int] = field(default_factory=dict)
    settled: bool = True


class Audits:
    """Bookkeeping of checks for one version; leases for them are the keeper's to grant."""

    def __init__(self, config: KeeperConfig, rng: Rng) -> None:
        self.read_by: dict[PeerId, int] = {}
        self.pending: deque[Check] = deque()
        self.running: dict[LeaseId, Check] = {}
        self.disputers: dict[PeerId, None] = {}
        self._sampled: set[PeerId] = set()
        self._quoted: set[Attestation] = set()
        self._rest: dict[PeerId, list[Attestation]] = {}
        self.pieces_audited = 0
        self.pieces_disputed = 0
        self.pieces_hedged = 0
        self._budget = self._audits_left = 0
        self._dispute_budget = 0
        self._config = config
        self._rng = rng

    def begin(self, count: int | None, ranged: bool) -> None:
        """A version of so many pieces; without ranges a check would cost a whole read."""
        self.read_by = {}
        self._forget_disputes()
        self.pending.clear()
        self.running.clear()
        self._budget = int((count or 0) * self._config.audit_budget) if ranged else 0
        self._audits_left = round((count or 0) * self._config.audit_share)
        self._dispute_budget = 2 * (count or 0)

    def made(self, attestation: Attestation) -> None:
        """A piece was read; perhaps it shall be read again."""
        peer, index = attestation.attester, attestation.index
        self.read_by[peer] = self.read_by.get(peer, 0) | 1 << index
        waiting = len(self.pending) + len(self.running)
        if min(self._budget, self._config.audits_pending_max) > waiting and self._audits_left > 0:
            if self._rng.random() >= self._config.audit_share:
                return
            self._audits_left -= 1  # The other half is for what does not spread, and hedges.
            claims = {index: {peer: attestation.digest}}
            self.pending.append(Check(index, 1, claims, dispute=False))

    def dispute(self, peer: PeerId, made: Iterable[Attestation], ranged: bool) -> None:
        """The whole digest failed for `peer` with these pieces: check a sample of each attester's.

        The rest is checked only if all samples are right; what others quoted already is once.
        """
        by_attester: dict[PeerId, list[Attestation]] = {}
        for attestation in made:
            if self._dispute_budget <= 0:
                break
            if attestation in self._quoted:
                continue
            self._quoted.add(attestation)
            self._dispute_budget -= 1
            by_attester.setdefault(attestation.attester, []).append(attestation)
            attester = attestation.attester
            self.read_by[attester] = self.read_by.get(attester, 0) | 1 << attestation.index
        self.disputers.setdefault(peer)
        for attester, quoted in by_attester.items():
            line = self._rng.sample(quoted, len(quoted))
            if not ranged:
                self.pending.append(_whole(line))
                continue
            first = 0 if attester in self._sampled else SAMPLE
            self._sampled.add(attester)
            self.pending.extend(_whole([each]) for each in line[:first])
            self._rest.setdefault(attester, []).extend(line[first:])

    def widen(self) -> bool:
        """All samples were right: check the rest, attesters in turn. Whether there is any."""
        if not self._rest or self._disputing():
            return False
        lines = [line for line in self._rest.values() if line]
        self._rest = {}
        for turn in range(max(map(len, lines), default=0)):
            self.pending.extend(_whole([line[turn]]) for line in lines if turn < len(line))
        return bool(lines)

    def _disputing(self) -> bool:
        return any(check.dispute for check in [*self.pending, *self.running.values()])

    def _forget_disputes(self) -> None:
        self.disputers.clear()
        self._sampled.clear()
        self._quoted.clear()
        self._rest.clear()

    def spend(self, pieces: int) -> int:
        """So many of these may be read a second time, out of what is left of the budget."""
        spent = max(0, min(pieces, self._budget))
        self._budget -= spent
        return spent

    def start(self, check: Check, lease: LeaseId) -> None:
        self.pending.remove(check)
        self.running[lease] = check
        if check.dispute:
            self.pieces_disputed += check.count
        else:
            self._budget -= check.count
            self.pieces_audited += check.count

    def give_up(self, lease: LeaseId) -> None:
        """Whoever was to check did not."""
        check = self.running.pop(lease, None)
        if check is not None and (check.tries + 1) < TRIES_MAX:
            check.tries += 1
            self.pending.append(check)

    def heard(self, lease: LeaseId, made: Iterable[Attestation]) -> None:
        """The checker says what it read."""
        check = self.running[lease]
        for attestation in made:
            said = check.claims.get(attestation.index)
            if said is not None:
                said[attestation.attester] = attestation.digest

    def finish(self, lease: LeaseId) -> Finding:
        """Compare what was said; where two differ and none agrees, a third is to read."""
        check, finding = self.running.pop(lease), Finding()
        for index, said in check.claims.items():
            if len(set(said.values())) < 2:
                continue
            outvoted = _outvoted(said)
            for liar in outvoted:
                finding.liars[liar] = finding.liars.get(liar, 0) | 1 << index
            if not outvoted:
                finding.settled = False
                if len(said) <= TRIES_MAX:
                    self.pending.appendleft(Check(index, 1, {index: said}, check.dispute))
        return finding

    def undecidable(self, check: Check) -> PeerId | None:
        """Nobody is left who could check: drop it, unless the whole digest speaks against one.

        Returns the one who vouched first, if another read something else and a digest failed.
        """
        self.pending.remove(check)
        if check.dispute:
            for said in check.claims.values():
                if len(set(said.values())) > 1:
                    return next(iter(said))
        return None

    def convict(self, liar: PeerId) -> int:
        """Its pieces, which are to be read again; whatever else was in dispute can wait."""
        self.pending = deque(
            check for check in self.pending if not check.dispute and not check.vouched(liar)
        )
        self._forget_disputes()
        return self.read_by.pop(liar, 0)

    def disputes_over(self) -> list[PeerId]:
        """Those whose disputes ended without a liar; each is returned once."""
        if not self.disputers or self._disputing() or any(self._rest.values()):
            return []
        over = list(self.disputers)
        self._forget_disputes()
        return over


def _whole(line: list[Attestation]) -> Check:
    claims = {each.index: {each.attester: each.digest} for each in line}
    first = min(claims)
    return Check(first, max(claims) + 1 - first, claims, dispute=True, signed=tuple(line))


def _outvoted(said: dict[PeerId, bytes]) -> list[PeerId]:
    """Those who differ from what two or more agree on; nobody if no two agree."""
    votes: dict[bytes, int] = {}
    for digest in said.values():
        votes[digest] = votes.get(digest, 0) + 1
    best = max(votes.values())
    if best < 2 or list(votes.values()).count(best) > 1:
        return []
    return [peer for peer, digest in said.items() if votes[digest] < best]
