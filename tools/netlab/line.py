"""A line with a delay: carries frames between two TAP devices and holds each one so long.

`python line.py A B DELAY_MS`, inside the hub's namespace, for kernels without netem. Needs the
standard library alone. Always: order is kept, the queue is bounded (what does not fit is dropped,
as at a router), and the process ends when a device goes away. One core carries about 300 Mbit/s.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import select
import struct
import sys
import time
from typing import Final

TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
FRAME_MAX_BYTES: Final = 2048
QUEUE_MAX_BYTES: Final = 64 << 20
"""A second and more at the rates that a line carries."""
TURN_FRAMES: Final = 64
"""Read at most so many in a turn, so that neither direction waits long for the other."""
GONE: Final = frozenset({errno.EBADFD, errno.EIO, errno.ENODEV})


class Way:
    """One direction: frames and when they are due."""

    def __init__(self, source: int, target: int, delay_s: float) -> None:
        self.source = source
        self._target = target
        self._delay_s = delay_s
        self._frames: collections.deque[tuple[float, bytes]] = collections.deque()
        self._held_bytes = 0

    def take(self) -> None:
        due_at = time.monotonic() + self._delay_s
        for _ in range(TURN_FRAMES):
            try:
                frame = os.read(self.source, FRAME_MAX_BYTES)
            except BlockingIOError:
                return
            if self._held_bytes + len(frame) <= QUEUE_MAX_BYTES:
                self._frames.append((due_at, frame))
                self._held_bytes += len(frame)

    def give(self, now: float) -> float:
        """Sends what is due; when the next one is."""
        while self._frames and self._frames[0][0] <= now:
            _, frame = self._frames.popleft()
            self._held_bytes -= len(frame)
            try:
                os.write(self._target, frame)
            except OSError as error:
                if error.errno in GONE - {errno.EIO}:
                    raise
                # Full, or the device is down for the moment (EIO): that frame is lost.
        return self._frames[0][0] if self._frames else now + 3600


def open_tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def carry(one: int, other: int, delay_s: float) -> None:
    ways = {one: Way(one, other, delay_s), other: Way(other, one, delay_s)}
    poll = select.epoll()
    for device in ways:
        poll.register(device, select.EPOLLIN)
    while True:
        now = time.monotonic()
        wait_s = min(way.give(now) for way in ways.values()) - now
        # epoll counts in milliseconds and rounds up: half a millisecond late on average.
        for device, events in poll.poll(max(0.0, wait_s)):
            if events & (select.EPOLLERR | select.EPOLLHUP):
                return
            ways[device].take()


def main() -> None:
    one, other, delay_ms = sys.argv[1:]
    with contextlib.suppress(OSError):  # a cable does not slow down while peers compute
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    devices = open_tap(one), open_tap(other)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.close(1)  # nobody waits for more
    try:
        carry(*devices, float(delay_ms) / 1000)
    except OSError as error:
        if error.errno not in GONE:
            raise


if __name__ == "__main__":
    main()
