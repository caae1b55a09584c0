"""Reading from the origin under a lease, as swarm/reading.py does.

Always: nothing is read after the lease's deadline unless it was renewed; a piece is attested only
by who read it, once it is in the journal. A request costs a round trip to the origin; connections
to it are there already.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import structs

from peerd.link.messages import LeaseInfo, LeaseKind, LeaseReport, Outcome, Resolved
from peerd.manifest import Attestation
from peerd.pieces import PIECE_LENGTH_MIN_BYTES
from peerd.swarm.extents import runs_of
from peerd.swarm.read_turns import QUEUED
from peerd.swarm.reading import RENEW_MIN_S, REPORT_MAX
from tools.sim.clock import Timer

if TYPE_CHECKING:
    from tools.sim.running import Run


class ReadTurns:
    """Which of a download's leases are being read, as swarm/read_turns.py has it."""

    def __init__(self) -> None:
        self._waiting: deque[LeasedRead] = deque()
        self._reading: list[LeasedRead] = []

    def wait(self, lease: LeasedRead) -> None:
        self._waiting.append(lease)
        self._next()

    def over(self, lease: LeasedRead) -> None:
        for leases in (self._waiting, self._reading):
            if lease in leases:
                leases.remove(lease)
        self._next()

    def _next(self) -> None:
        held = len(self._waiting) + len(self._reading)
        while self._waiting and len(self._reading) < max(1, held - QUEUED):
            lease = self._waiting.popleft()
            self._reading.append(lease)
            lease.go_on()


_HEAD = -1
"""In place of a piece: the first bytes of a response to a resolver."""


class LeasedRead:
    """One lease being used. A flow of the origin's uplink while a body comes."""

    def __init__(self, run: Run, info: LeaseInfo, indices: tuple[int, ...]) -> None:
        self._run, self._peer, self._world = run, run.peer, run.world
        self.info = info
        self.flow_end = self.begun_at = 0.0
        self.flowing = False
        self.over = False
        self._runs = deque(runs_of(indices))
        self._body: deque[int] = deque()
        self._open_blocks = self._coming = 0
        self._made: list[Attestation] = []
        self._read_bytes = self._seen_bytes = 0
        self._until = 0.0
        self._deadline = Timer(run.world.clock, run.peer.guarded(self._ran_out))

    def start(self) -> None:
        self.renewed(self.info)
        self._renew_later()
        kind = self.info.kind
        if kind is LeaseKind.RESOLVE:
            self._open([_HEAD])
            return
        assert kind is not LeaseKind.STREAM, "simulated content has ranges"
        if kind is LeaseKind.AUDIT:
            self._runs = deque([(self.info.first, self.info.count)])
            self._next_run()
        else:
            self._run.read_turns.wait(self)

    def renewed(self, info: LeaseInfo) -> None:
        self.info = info
        self._until = self._world.clock.now + info.expires_in_s
        self._deadline.set(self._until)

    def revoke(self) -> None:
        self._end(Outcome.RETURNED)

    def stop(self) -> None:
        """The download is over: nothing is said any more."""
        self.over = True
        self._deadline.set(float("inf"))
        self._world.origin.stop(self)
        self._run.read_turns.over(self)

    def go_on(self) -> None:
        """It is this lease's turn."""
        if not self.over:
            self._next_run()

    def origin_lost(self) -> None:
        """What comes no more is not missed before the keeper, or the origin's limits, do."""
        self._world.origin.stop(self)

    def standing(self) -> LeaseInfo:
        left_s = max(0.0, self._until - self._world.clock.now)
        return structs.replace(self.info, expires_in_s=left_s)

    # --- bodies

    def _next_run(self) -> None:
        if not self._runs:
            self._end(Outcome.DONE)
            return
        first, count = self._runs.popleft()
        self._open(list(range(first, first + count)))

    def _open(self, blocks: list[int]) -> None:
        self._body = deque(blocks)
        self._open_blocks = self._coming = len(blocks)
        wait_s = 2 * self._world.origin_latency_s
        self._world.clock.after(wait_s, self._peer.guarded(self._begin))

    def _begin(self) -> None:
        if not self.over and not self._peer.cut_off:
            self._world.origin.start(self, self._size(self._body[0]))

    def _size(self, block: int) -> int:
        """Resolving reads the first 256 KiB; a larger piece 0 takes a second request."""
        if block == _HEAD:
            return min(PIECE_LENGTH_MIN_BYTES, self._run.content.length_bytes)
        return self._run.store.size_of(block)

    def block_sent(self) -> int:
        block = self._body.popleft()
        self._world.network.bring(
            self._world.scenario.origin.zone, None, self._peer, self._size(block),
            self.begun_at, self._world.origin_latency_s, self._came, (block,),
        )  # fmt: skip
        return self._size(self._body[0]) if self._body else 0

    def _came(self, block: int) -> None:
        if self.over:
            return
        self._read_bytes += self._size(block)
        self._run.origin_bytes()
        if block == _HEAD:
            self._resolved()
        elif self.info.kind is LeaseKind.AUDIT:
            self._made.append(self._run.content.attest(self._peer, block))
            self._block_done()
        else:
            self._peer.commit(self._committed, block)
            self._coming -= 1
            if not self._coming and not self._runs:
                self._run.read_turns.over(self)  # The next one's request goes out meanwhile.

    def _committed(self, index: int) -> None:
        if self.over or self._run.finished:
            return
        if index not in self._run.store:
            made = self._run.content.attest(self._peer, index)
            self._world.held(self._run.copy, self._peer, index, made, None)
            self._made.append(made)
            self._run.piece_read(index)
        self._block_done()

    def _block_done(self) -> None:
        self._open_blocks -= 1
        if not self._open_blocks and not self.over:
            self._next_run()

    def _resolved(self) -> None:
        known = self._run.store.version
        info = self._run.content.version_by(self._peer)
        unchanged = known is not None and known.version == info.version
        if not unchanged:
            self._run.open_version(info)
        self._run.confirmed = True
        said = known if unchanged and known is not None else info
        self._run.tell_keeper(
            Resolved(self._run.task, self._run.term(), self.info.lease, said, unchanged)
        )
        if unchanged:
            self._end(Outcome.DONE)
        elif info.piece_length_bytes > PIECE_LENGTH_MIN_BYTES:
            self._open([0])
        else:
            self._open_blocks = 1
            self._peer.commit(self._committed, 0)

    # --- the lease

    def _renew_later(self) -> None:
        wait_s = max(RENEW_MIN_S, self.info.expires_in_s / 3)
        self._world.clock.after(wait_s, self._peer.guarded(self._renew))

    def _renew(self) -> None:
        if self.over:
            return
        # Of a block under way some bytes came, whatever its size.
        if self.flowing or self._read_bytes > self._seen_bytes or not self._read_bytes:
            self._report(Outcome.PROGRESS)
        self._seen_bytes = self._read_bytes
        self._renew_later()

    def _ran_out(self) -> None:
        if not self.over:
            self._end(Outcome.RETURNED)

    def _end(self, outcome: Outcome) -> None:
        self.stop()
        self._report(outcome)
        self._run.lease_over(self.info.lease)

    def _report(self, outcome: Outcome) -> None:
        while True:
            batch = tuple(self._made[:REPORT_MAX])
            last = len(batch) == len(self._made)
            said = outcome if last else Outcome.PROGRESS
            self._run.tell_keeper(
                LeaseReport(self._run.task, self._run.term(), self.info.lease, said, batch, "", "")
            )
            del self._made[: len(batch)]
            if last:
                return
