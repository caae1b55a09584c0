"""The table of scenarios: what each does, in one sentence, and what it promises.

Always: a limit that is not given by design.md's promises or by a result of the acceptance list has
its reason beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from peerd.errors import UsageError
from tools.chaos import disturb
from tools.chaos.lab import Lab, Setting
from tools.chaos.verdict import PEERS_MIN, Limits, Shape

FAKETIME: Final = "faketime/libfaketimeMT.so.1"


@dataclass(frozen=True)
class Scenario:
    name: str
    does: str
    limits: Limits
    disturb: Callable[[Lab], Awaitable[None]]
    setting: Callable[[Shape], Setting] = lambda shape: Setting()
    seed_peers: int = 0
    known_digest: bool = False
    schedulers: int = 0

    def shape(self, asked: Shape) -> Shape:
        if asked.peers < PEERS_MIN:
            raise UsageError(f"{asked.peers} peers are too few: {PEERS_MIN} or more")
        return replace(
            asked, seed_peers=self.seed_peers, known_digest=self.known_digest,
            schedulers=self.schedulers,
        )  # fmt: skip


def _last(mode: str) -> Callable[[Shape], Setting]:
    """The last peer is one of tools.chaos.liar."""
    return lambda shape: Setting(modes={shape.peers - 1: mode})


def _small_disk(shape: Shape) -> Setting:
    return Setting(disks_bytes={shape.peers - 1: shape.size_bytes // 2})


def _roomy_disk(shape: Shape) -> Setting:
    return Setting(disks_bytes={shape.peers - 1: 2 * shape.size_bytes})


def _own_clock(shape: Shape) -> Setting:
    found = sorted(Path("/usr/lib").glob(f"*/{FAKETIME}"))
    if not found:
        raise UsageError("a clock that jumps needs libfaketime: type apt-get install -y faketime")
    environment = {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": "{home}/clock",
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return Setting(environments={shape.peers - 1: environment})


AS_BEFORE: Final = Limits(time_over_undisturbed_max=1.10)
SURVIVED: Final = Limits(time_over_undisturbed_max=1.25)
"""As for peers that are killed: whoever is gone feeds nobody."""
OUTAGE: Final = Limits(time_over_undisturbed_max=1.10, time_added_max_s=2 * disturb.FAULTY_S)
"""The outage itself, and as long again until whoever waited has asked again. Guess."""

SCENARIOS: Final = (
    Scenario(
        "churn",
        "kills a random peer every 2 s and starts it again 2 s later; never over half are down",
        SURVIVED,
        disturb.churn,
    ),
    Scenario(
        "keeper",
        "kills the task's keeper three times in one download; it comes back 2 s later",
        Limits(time_over_undisturbed_max=1.05),
        disturb.keeper,
    ),
    Scenario(
        "seeds",
        "kills every seed peer at 50 %, for good",
        SURVIVED,
        disturb.seeds,
        seed_peers=2,
    ),
    Scenario(
        "partition-2",
        "splits the peers into two from 15 % to 75 %; all reach the origin",
        Limits(copies_max=2 * 1.02),
        disturb.two_sides,
    ),
    Scenario(
        "partition-3",
        "splits the peers into three from 15 % to 75 %; all reach the origin",
        Limits(copies_max=3 * 1.02),
        disturb.three_sides,
    ),
    Scenario(
        "origin-to-one",
        "cuts the origin off from all but one peer at 25 %, for good",
        # The others' reads are found to hang before the one reads in their place. Guess.
        Limits(time_over_undisturbed_max=1.5),
        disturb.origin_to_one,
    ),
    Scenario("slow", "leaves one peer 1 % of its rate at 20 %", AS_BEFORE, disturb.slow),
    Scenario(
        "slow-keeper",
        "leaves the task's keeper 1 % of its rate at 20 %",
        # It is found out after some 2 s; members leave it one by one, and two keepers grant. Guess.
        Limits(time_over_undisturbed_max=1.25, copies_max=1.05),
        disturb.slow_keeper,
    ),
    Scenario(
        "corrupt",
        "one peer sends wrong bytes of each piece, from the start",
        Limits(),
        disturb.lies,
        setting=_last("corrupt"),
    ),
    Scenario(
        "lying-reader",
        "one peer vouches for bytes that are not the origin's; the digest is known",
        # A whole digest does not say which piece is wrong: at worst each is read a second time.
        Limits(copies_max=2 * 1.02),
        disturb.lies,
        setting=_last("attest"),
        known_digest=True,
    ),
    Scenario("stopped", "stops one peer (SIGSTOP) for 20 s at 30 %", SURVIVED, disturb.stopped),
    Scenario(
        "full-disk",
        "one peer's disk holds half of the content, until the others are done",
        SURVIVED,
        disturb.full_disk,
        setting=_small_disk,
    ),
    Scenario(
        "disk-fills",
        "one peer's disk is filled by something else at 30 %, until the others are done",
        SURVIVED,
        disturb.disk_fills,
        setting=_roomy_disk,
    ),
    Scenario(
        "origin-cuts",
        "for 3 s the origin cuts each answer after 100 kB",
        OUTAGE,
        disturb.origin_cuts,
    ),
    Scenario(
        "origin-stalls",
        "for 3 s the origin goes silent in each answer after 100 kB",
        OUTAGE,
        disturb.origin_stalls,
    ),
    Scenario(
        "origin-busy",
        "for 3 s the origin answers 429 and asks to come again in 1 s",
        OUTAGE,
        disturb.origin_busy,
    ),
    Scenario("origin-errors", "for 3 s the origin answers 500", OUTAGE, disturb.origin_errors),
    Scenario(
        "origin-changes",
        "the origin's content becomes another at 50 %",
        # Half is read twice: of the old version, and of the new.
        Limits(time_over_undisturbed_max=1.75),
        disturb.origin_changes,
    ),
    Scenario(
        "clock",
        "one peer's wall clock jumps 6 h ahead at 20 % and 12 h back at 50 %",
        AS_BEFORE,
        disturb.clock,
        setting=_own_clock,
    ),
    Scenario(
        "leader",
        "kills the scheduler's leader at 50 %; it comes back once the others are done",
        Limits(time_over_undisturbed_max=1.05),
        disturb.leader,
        schedulers=3,
    ),
    Scenario(
        "leader-stopped",
        "stops the scheduler's leader (SIGSTOP) for 20 s at 30 %",
        SURVIVED,
        disturb.leader_stopped,
        schedulers=3,
    ),
    Scenario(
        "leader-apart",
        "splits the peers into two from 15 % to 75 %; both sides have peers that may lead",
        Limits(copies_max=2 * 1.02),
        disturb.leader_apart,
        schedulers=4,
    ),
    Scenario(
        "leader-rubbish",
        "the only leader advises what it draws by chance, and peers that there are not",
        # It costs time, and nothing else: one or two readers take twice the bound (design.md, 4.4).
        Limits(time_over_undisturbed_max=2.0),
        disturb.advised,
        setting=_last("rubbish"),
        schedulers=1,
    ),
    Scenario(
        "leader-late",
        "the only leader's advice comes 2 s later",
        AS_BEFORE,
        disturb.advised,
        setting=_last("late"),
        schedulers=1,
    ),
)


def named(name: str) -> Scenario:
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    known = ", ".join(scenario.name for scenario in SCENARIOS)
    raise UsageError(f"there is no scenario {name!r}; there are: {known}")
