"""A leader's decisions on one core: from the bytes of reports to the bytes of advice.

Always: what goes in and out is what goes over a link, in messages of 64; every peer reports and is
advised once a round; a round is five seconds of a leader's life, and takes as long as it takes. The
latency is of one report alone: from its bytes to the bytes of the advice that it made due.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from random import Random
from typing import Any, Final

from peerd.ids import PeerId, TaskId
from peerd.link.messages import decode_message, encode_message
from peerd.link.scheduler_messages import (
    ADVISED_MAX,
    Advice,
    AdvisedPeer,
    KeptReport,
    Report,
    Reports,
    SwarmReport,
    ZoneReport,
)
from peerd.scheduler.advisor import Advisor
from peerd.scheduler.reporting import batches
from peerd.scheduler.topology import Topology

ZONES: Final = tuple(f"r{region}/s{site}" for region in range(4) for site in range(2))
ROUND_S: Final = 5.0
SINGLES: Final = 2_000
"""Reports whose latency is measured one by one."""
STANDS: Final = 0.3
"""The share of a swarm of a hundred that stands at its keeper, where cells are of 44 (ADR 0015)."""
_DIGITS: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Group:
    """Peers that report; each is in one or two swarms and gets further. Each task has a keeper."""

    def __init__(self, peers: int, tasks: int, rng: Random) -> None:
        self.rng = rng
        self.zones = {
            PeerId("12D3KooW" + "".join(rng.choices(_DIGITS, k=44))): rng.choice(ZONES)
            for _ in range(peers)
        }
        names = [TaskId(f"{rng.getrandbits(256):064x}") for _ in range(tasks)]
        self.keepers = dict(zip(names, rng.sample(sorted(self.zones), tasks), strict=True))
        self.swarms = {peer: rng.sample(names, rng.choice((1, 1, 1, 2))) for peer in self.zones}

    def report(self, peer: PeerId, share: float) -> Report:
        rng = self.rng
        swarms = tuple(
            SwarmReport(
                task, 1_024, 1 << 20, int(1_000 * share * rng.random()) + 1, True,
                rng.random() < STANDS, 6, 12_000_000,
            )
            for task in self.swarms[peer]
        )  # fmt: skip
        zone = ZoneReport(rng.choice(ZONES), rng.randrange(10**6, 10**8), rng.randrange(1, 200))
        keeps = tuple(
            KeptReport(task, 1) for task, keeper in self.keepers.items() if keeper == peer
        )
        up = rng.choice((10**6, 10**7))
        return Report(
            peer, rng.randrange(100), up, up, up, rng.randrange(18), swarms, (), (zone,), keeps
        )


class Leader:
    """What handles a message of reports, as scheduling.SchedulerService does."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.seen = Topology()
        self.advisor = Advisor(Random(2))

    def hear(self, data: bytes, now: float) -> None:
        message = decode_message(data)
        assert isinstance(message, Reports)
        for report in message.reports:
            self.seen.report(report, self.group.zones[report.peer], now)
            for swarm in report.swarms:
                self.advisor.noticed(swarm.task, report.peer)

    def advise(self, now: float) -> int:
        """Bytes of all advice that is due."""
        size = 0
        while advised := self.advisor.advise(self.seen, now):
            size += sum(len(data) for data in _encoded(advised))
        for told in self.advisor.keepers(self.seen, now):
            size += len(encode_message(Advice(7, 10.0, (), (told,))))
        return size


def _encoded(advised: list[AdvisedPeer]) -> list[bytes]:
    return [
        encode_message(Advice(7, 10.0, tuple(advised[at : at + ADVISED_MAX]), ()))
        for at in range(0, len(advised), ADVISED_MAX)
    ]


def measure(peers: int, tasks: int, rounds: int) -> dict[str, Any]:
    group = Group(peers, tasks, Random(1))
    leader = Leader(group)
    rates, up, down = [], 0, 0
    for number in range(1, rounds + 1):
        now = number * ROUND_S
        reports = [group.report(peer, number / rounds) for peer in group.zones]
        wire = [encode_message(message) for message in batches(reports)]
        before = leader.advisor.decisions
        began = time.process_time()
        for data in wire:
            leader.hear(data, now)
        sent = leader.advise(now)
        rates.append((leader.advisor.decisions - before) / (time.process_time() - began))
        up, down = up + sum(map(len, wire)), down + sent
    leader.seen.validate()
    per_peer = ROUND_S * rounds * peers
    return {
        "decisions_per_s": round(statistics.median(rates)),
        "spread": [round(min(rates)), round(max(rates))],
        "p99_ms": round(1e3 * _p99(leader, (rounds + 1) * ROUND_S), 3),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "peers": peers,
        "tasks": tasks,
        "report_bytes_s_per_peer": round(up / per_peer, 1),
        "advice_bytes_s_per_peer": round(down / per_peer, 1),
    }


def _p99(leader: Leader, now: float) -> float:
    """Seconds from the bytes of one report to those of the advice for its peer."""
    group, took = leader.group, []
    for peer in group.rng.sample(sorted(group.zones), min(SINGLES, len(group.zones))):
        data = encode_message(Reports((group.report(peer, 1.0),)))
        now += ROUND_S
        began = time.perf_counter()
        leader.hear(data, now)
        for task in group.swarms[peer]:
            said = leader.seen.tasks[task][peer]
            _encoded([leader.advisor.decide(leader.seen, task, peer, said, now)])
        took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[98]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench scheduler", description=__doc__)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    told = measure(arguments.peers, arguments.tasks, arguments.rounds)
    sys.stdout.write(
        "{decisions_per_s} decisions a second on one core ({peers} peers, {tasks} tasks), p99 "
        "{p99_ms} ms, {rss_mb} MB; a peer reports {report_bytes_s_per_peer} B/s and is advised "
        "{advice_bytes_s_per_peer} B/s\n".format(**told)
    )
    if arguments.json:
        sys.stdout.write(json.dumps(told) + "\n")
    return 0
