"""How bytes travel: shared uplinks, and pipes that they run through.

Always: the flows of one Uplink share its rate evenly at every moment (processor sharing, by a
virtual time: each step costs O(log flows)); the blocks of one flow go one after the other; a Pipe
never passes more bytes in a time than its rate allows, in the order in which they came.

The model's known errors: a flow that is held up further on still takes its share of the uplink
(no back pressure but the window of requests); a Pipe serves blocks by when they are whole, each of
them from when it began to be sent, so that what was sent side by side comes side by side; no slow
start, no headers; of loss only what it makes of a connection's rate, not what is sent again.
"""

from __future__ import annotations

import heapq
from math import sqrt
from typing import Final, Protocol

from tools.sim.clock import Clock, Timer

SEGMENT_BYTES: Final = 1448
"""Of TCP over Ethernet."""


def mathis_bytes_s(loss: float, round_trip_s: float) -> float:
    """What one connection carries at most where a share of its packets is lost: √(3/2) segments
    over √loss a round trip (Mathis, Semke, Mahdavi and Ott, «The macroscopic behavior of the TCP
    congestion avoidance algorithm», 1997). Linux's CUBIC is no faster at 1 % and 80 ms: its own
    window is 5 segments there, so that it goes by Reno's (RFC 9438, section 4.3)."""
    return SEGMENT_BYTES / round_trip_s * sqrt(1.5 / loss)


class Flow(Protocol):
    """Who sends blocks one after the other through an uplink."""

    flow_end: float
    begun_at: float
    flowing: bool

    def block_sent(self) -> int:
        """The block in hand is sent; returns the size of the next one in bytes, 0 for none."""
        ...


class Uplink:
    """One sender's rate, shared by its flows."""

    __slots__ = (
        "_active", "_carried_bytes", "_clock", "_heap", "_seq", "_timer", "_updated_at", "_virtual",
        "rate_bytes_s", "sent_bytes",
    )  # fmt: skip

    def __init__(self, clock: Clock, rate_bytes_s: float) -> None:
        self._clock = clock
        self.rate_bytes_s = rate_bytes_s
        self.sent_bytes = 0
        self._carried_bytes = 0.0
        self._virtual = 0.0  # Bytes that a flow that was always there would have sent.
        self._updated_at = clock.now
        self._active = 0
        self._heap: list[tuple[float, int, Flow]] = []
        self._seq = 0
        self._timer = Timer(clock, self._due)

    def start(self, flow: Flow, size_bytes: int) -> None:
        """`flow` has something to send again."""
        assert not flow.flowing
        assert size_bytes > 0
        self._advance()
        flow.flowing = True
        self._active += 1
        self._push(flow, self._virtual + size_bytes, size_bytes)
        self._arm()

    def stop(self, flow: Flow) -> None:
        """Its block in hand is given up."""
        if flow.flowing:
            self._advance()
            flow.flowing = False
            self._active -= 1
            self._arm()

    def set_rate(self, rate_bytes_s: float) -> None:
        self._advance()
        self.rate_bytes_s = rate_bytes_s
        self._arm()

    def carried_bytes(self) -> float:
        """What has left by now, of blocks that are not whole yet, too."""
        self._advance()
        return self._carried_bytes

    def _push(self, flow: Flow, end: float, size_bytes: int) -> None:
        flow.flow_end, flow.begun_at = end, self._clock.now
        self._seq += 1
        self.sent_bytes += size_bytes
        heapq.heappush(self._heap, (end, self._seq, flow))

    def _advance(self) -> None:
        now = self._clock.now
        if self._active:
            carried_bytes = (now - self._updated_at) * self.rate_bytes_s
            self._carried_bytes += carried_bytes
            self._virtual += carried_bytes / self._active
        self._updated_at = now

    def _arm(self) -> None:
        heap = self._heap
        while heap and not (heap[0][2].flowing and heap[0][2].flow_end == heap[0][0]):
            heapq.heappop(heap)
        if heap and self.rate_bytes_s > 0:
            left = max(0.0, heap[0][0] - self._virtual)
            self._timer.set(self._clock.now + left * self._active / self.rate_bytes_s)
        else:
            self._timer.set(float("inf"))

    def _due(self) -> None:
        self._advance()
        heap = self._heap
        limit = self._virtual + 1e-3  # A thousandth of a byte: what floats lose.
        while heap and heap[0][0] <= limit:
            end, _, flow = heapq.heappop(heap)
            if flow.flowing and flow.flow_end == end:
                self._go_on(flow, end, flow.block_sent())
        self._arm()

    def _go_on(self, flow: Flow, end: float, size_bytes: int) -> None:
        if not flow.flowing:
            return  # Stopped by what followed from the block before.
        if size_bytes:
            self._push(flow, end + size_bytes, size_bytes)
        else:
            flow.flowing = False
            self._active -= 1


class Pipe:
    """A downlink, or a link between zones: blocks in the order they came, at one rate."""

    __slots__ = ("carried_bytes", "free_at", "rate_bytes_s")

    def __init__(self, rate_bytes_s: float) -> None:
        self.rate_bytes_s = rate_bytes_s
        self.free_at = 0.0
        self.carried_bytes = 0

    def through(self, size_bytes: int, sent_at: float, begun_at: float) -> float:
        """When a block is through whose bytes came from `begun_at` to `sent_at`."""
        self.free_at = max(self.free_at, begun_at) + size_bytes / self.rate_bytes_s
        self.carried_bytes += size_bytes
        return max(self.free_at, sent_at)
