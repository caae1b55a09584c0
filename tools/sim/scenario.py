"""A scenario: who is there, over what network, and what happens to them; read from TOML.

Always: what `load` returns has every field within its bounds, or it raised UsageError with the
file's name and the field at fault. Rates are megabits per second, as people say them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from peerd.errors import UsageError
from peerd.units import parse_size

FOLDER: Final = Path(__file__).parent / "scenarios"
"""The scenarios that are known by name."""
BYTES_PER_MBIT: Final = 125_000

Rate = Annotated[float, Meta(gt=0, le=1e6)]
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
Millis = Annotated[float, Meta(ge=0, le=10_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=100_000)]


class Peers(Struct, frozen=True, forbid_unknown_fields=True):
    """`seeds` of them stay to read origins and serve; somebody reads along in order with the last
    `readers`, as soon as the next piece is there. `schedulers` of them may lead; 0: degraded.
    All were up for `up_s` before the first arrival. `rates`: what of the uplink's rate one peer
    after the other has, from the first again at the end."""

    count: Annotated[int, Meta(ge=1, le=100_000)] = 64
    up_mbit_s: Rate = 100.0
    down_mbit_s: Rate = 100.0
    seeds: Count = 0
    readers: Count = 0
    schedulers: Count = 0
    up_s: Seconds = 0.0
    rates: list[Annotated[float, Meta(gt=0, le=1)]] = []


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    """`zone`: where it stands; "": outside of all."""

    up_mbit_s: Rate = 100.0
    latency_ms: Millis = 1.0
    zone: str = ""


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """One way latencies. `zones` equal parts; `zone_mbit_s` into and out of each, of which one zone
    after the other has what `zone_rates` says, from the first again at the end; `zone_loss` of the
    packets between them, which bounds each connection (flows.mathis_bytes_s)."""

    latency_ms: Millis = 0.2
    zones: Annotated[int, Meta(ge=1, le=64)] = 1
    zone_latency_ms: Millis = 10.0
    zone_mbit_s: Rate | None = None
    zone_rates: list[Annotated[float, Meta(gt=0, le=1)]] = []
    zone_loss: Annotated[float, Meta(ge=0, le=0.1)] = 0.0


class Arrivals(Struct, frozen=True, forbid_unknown_fields=True):
    """flash: at random within the time; staggered: evenly; poisson: with that mean rate."""

    kind: Literal["flash", "staggered", "poisson"] = "flash"
    within_s: Seconds = 1.0


class Membership(Struct, frozen=True, forbid_unknown_fields=True):
    """`booting` of the peers have no membership at first, and get it within `booting_s`.

    Newcomers are known to each other peer within `spread_s`.
    """

    booting: Share = 0.0
    booting_s: Seconds = 5.0
    spread_s: Seconds = 1.0


class Costs(Struct, frozen=True, forbid_unknown_fields=True):
    """CPU of one core, as measured (design.md, section 5: 45 µs a request and its answer)."""

    charged: bool = True
    message_us: Annotated[float, Meta(ge=0, le=1e5)] = 22.5
    handshake_ms: Millis = 1.6


class Task(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several contents, or `times` that are alike: those of a `share` of the peers, by
    chance, want it `at_s` after they arrived."""

    size: str = "64MiB"
    at_s: Seconds = 0.0
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    times: Annotated[int, Meta(ge=1, le=1_000)] = 1
    priority: Annotated[int, Meta(ge=1, le=6)] = 6

    @property
    def size_bytes(self) -> int:
        return parse_size(self.size)


class Happening(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that happens, at a time after the start or once so much is held by all together.

    `who`: numbers, or the keeper, a random peer, one that reads, the seeds, who leads, all who
    may lead. Killed peers
    come back after `restart_after_s`; `times` with `every_s` between them. `groups` for a
    partition. `hold`: it has `factor` of the content from before, and the origin refuses it the
    rest. `cut-off`: the origin does not answer it any more, nor say so.
    """

    do: Literal[
        "kill", "partition", "heal", "slow", "silence", "wake", "lie", "misread", "hold", "cut-off"
    ]
    at_s: Seconds | None = None
    at_progress: Share | None = None
    who: Literal["keeper", "random", "reader", "seeds", "leader", "schedulers"] | list[Count] = (
        "random"
    )
    restart_after_s: Seconds | None = None
    times: Annotated[int, Meta(ge=1, le=10_000)] = 1
    every_s: Seconds = 1.0
    groups: Annotated[int, Meta(ge=2, le=16)] = 2
    factor: Annotated[float, Meta(gt=0, le=1)] = 0.01


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything but the seed. `tasks`: instead of the one of `size` that everybody wants."""

    description: str
    size: str = "64MiB"
    digest: bool = True
    limit_s: Seconds = 7200.0
    peers: Peers = Peers()
    origin: Origin = Origin()
    network: Network = Network()
    arrivals: Arrivals = Arrivals()
    membership: Membership = Membership()
    costs: Costs = Costs()
    tasks: list[Task] = []
    events: list[Happening] = []

    @property
    def all_tasks(self) -> list[Task]:
        tasks = self.tasks or [Task(self.size)]
        return [task for task in tasks for _ in range(task.times)]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def path_of(name: str) -> Path:
    """The file of a scenario known by name, or a file."""
    path = FOLDER / f"{name}.toml"
    return path if path.is_file() else Path(name)


def load(name: str, changes: dict[str, str] | None = None) -> Scenario:
    """A scenario by its name or path; `changes` are `part.field` and the TOML value for it."""
    path = path_of(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(names())
        raise UsageError(f"no scenario {name!r}: {error.strerror}; known are {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for key, value in (changes or {}).items():
        _set(table, key, value)
    try:
        scenario = msgspec.convert(table, Scenario)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
    _check(scenario, path)
    return scenario


def _set(table: dict[str, Any], key: str, value: str) -> None:
    *parts, last = key.split(".")
    for part in parts:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"{key}: {part} has no fields")
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value


def _check(scenario: Scenario, path: Path) -> None:
    """What the types cannot say."""
    for task in scenario.all_tasks:
        try:
            parse_size(task.size)
        except ValueError as error:
            raise UsageError(f"{path}: size: {error}") from error
    if scenario.peers.seeds > scenario.peers.count:
        raise UsageError(f"{path}: more seeds than peers")
    if scenario.peers.readers > scenario.peers.count:
        raise UsageError(f"{path}: more readers than peers")
    if scenario.peers.schedulers > scenario.peers.count:
        raise UsageError(f"{path}: more schedulers than peers")
    zones = zone_names(scenario)
    if scenario.origin.zone and scenario.origin.zone not in zones:
        raise UsageError(f"{path}: the origin's zone is none of {', '.join(zones)}")
    for number, happening in enumerate(scenario.events):
        place = f"{path}: events[{number}]"
        if happening.do == "partition" and len(scenario.all_tasks) > 1:
            raise UsageError(f"{place}: of a partition of several tasks no bound is known")
        if (happening.at_s is None) == (happening.at_progress is None):
            raise UsageError(f"{place}: say either at_s or at_progress")
        if isinstance(happening.who, list):
            beyond = [each for each in happening.who if each >= scenario.peers.count]
            if beyond:
                raise UsageError(f"{place}: there is no peer {beyond[0]}")


def zone_names(scenario: Scenario) -> list[str]:
    count = scenario.network.zones
    return [""] if count == 1 else [f"zone-{number}" for number in range(count)]


def zone_bytes_s(scenario: Scenario) -> dict[str, float]:
    """What each zone's link carries, each way."""
    network = scenario.network
    rate, rates = (network.zone_mbit_s or 1e9) * BYTES_PER_MBIT, network.zone_rates or [1.0]
    return {
        zone: rate * rates[number % len(rates)] for number, zone in enumerate(zone_names(scenario))
    }
