"""`python -m tools.sim list`, `… run SCENARIO`: the real cores, many peers, one process.

Always: the JSON object is the last line of stdout, what is for people comes before it.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

from peerd.errors import UsageError
from peerd.units import parse_size
from tools.sim import scheduled
from tools.sim.compare import difference, run_at
from tools.sim.elections import Violated, elect_often
from tools.sim.gossip import idle
from tools.sim.nodes import run_nodes
from tools.sim.policies import POLICIES, compare
from tools.sim.policies import table as policy_table
from tools.sim.report import result, table
from tools.sim.scenario import Scenario, load, names, path_of
from tools.sim.trace import Trace
from tools.sim.world import World


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the scenarios that are known by name")
    run = commands.add_parser("run", help="run one; example: run flash-crowd --peers 64 --seed 1")
    run.add_argument("scenario", nargs="+", help="names, or paths of files")
    run.add_argument("--peers", type=int, help="instead of the scenario's own number")
    run.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                     help="another value for a field, as in peers.up_mbit_s=1000")  # fmt: skip
    run.add_argument("--trace", metavar="FILE", help="write what came to pass, line by line")
    run.add_argument("--compare", metavar="REV", help="also at that commit; prints what differs")
    each = commands.add_parser("policies", help="each policy of a swarm, with and without it")
    each.add_argument("--peers", type=int, default=16)
    each.add_argument("--seeds", type=int, default=3, help="so many runs each; the means are told")
    each.add_argument("--size", default="64MiB")
    each.add_argument("--only", metavar="WORD", default="", help="those with it in their name")
    beside = commands.add_parser("scheduled", help="scenarios with a scheduler and without")
    beside.add_argument(
        "--seeds", type=int, default=3, help="so many runs each; the means are told"
    )
    beside.add_argument("--only", metavar="WORD", default="", help="those with it in their name")
    talk = commands.add_parser("gossip", help="the gossip cores alone, idle; --peers 1000")
    talk.add_argument("--peers", type=int, default=100)
    whole = commands.add_parser("nodes", help="whole nodes under a clock that jumps; --peers 16")
    whole.add_argument("--peers", type=int, default=16)
    whole.add_argument("--size", type=parse_size, default="8MiB")
    whole.add_argument("--kill", type=int, default=0, metavar="N", help="so many die meanwhile")
    vote = commands.add_parser(
        "elections", help="scheduler services under that clock: partitions and heals"
    )
    vote.add_argument("--peers", type=int, default=24)
    vote.add_argument("--electors", type=int, default=5)
    vote.add_argument("--partitions", type=int, default=200, metavar="N", help="one seed each")
    for command in (run, talk, whole, vote):
        command.add_argument("--seed", type=int, default=1)
    for command in (run, each, beside, talk, whole, vote):
        command.add_argument("--json", action="store_true", help="one object, on the last line")
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        for name in names():
            sys.stdout.write(f"{name:16} {load(name).description}\n")
        return 0
    if arguments.command == "gossip":
        told = idle(arguments.peers, arguments.seed)
        words = "{gossip_peers} idle peers: {gossip_bytes_per_peer_s} B/s a peer"
        return _say(words, told, arguments.json)
    if arguments.command == "elections":
        return _elections(arguments)
    if arguments.command == "nodes":
        told = run_nodes(arguments.peers, arguments.size, arguments.kill, arguments.seed)
        words = "{right} of {peers} right, {failed} failed, {origin_copies} copies"
        return _say(words, told, arguments.json)
    gc.disable()  # Hardly any cycles, and walking millions of objects takes minutes.
    try:
        match arguments.command:
            case "policies":
                return _policies(arguments)
            case "scheduled":
                return _scheduled(arguments)
        return _run(arguments)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        gc.enable()


def _say(words: str, told: dict[str, Any], as_json: bool) -> int:
    sys.stdout.write(words.format(**told) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _elections(arguments: argparse.Namespace) -> int:
    try:
        told = elect_often(
            arguments.partitions, arguments.seed,
            peers=arguments.peers, electors=arguments.electors,
        )  # fmt: skip
    except Violated as violated:
        sys.stderr.write(f"{violated}\n")
        return 1
    words = (
        "{partitions} partitions of {peers} peers: each side led within {elected_s} s, all follow "
        "within {split_s} s; healed within {healed_s} s, all seen {seen_s} s later"
    )
    return _say(words, told, arguments.json)


def _policies(arguments: argparse.Namespace) -> int:
    """A line each; the first number is with the policy, the second without."""
    changes = {"peers.count": str(arguments.peers), "size": arguments.size}
    lines = []
    for policy in POLICIES:
        if arguments.only not in policy.name:
            continue
        lines.append(compare(policy, changes, arguments.seeds))
        sys.stderr.write(f"{policy.name}: {lines[-1].worse():.3f} x without it\n")
    sys.stdout.write(policy_table(lines) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps({"policies": [line.told() for line in lines]}) + "\n")
    return 0


def _scheduled(arguments: argparse.Namespace) -> int:
    """A line for each scenario, both ways."""
    lines = []
    for name in scheduled.SCENARIOS:
        if arguments.only not in name:
            continue
        lines.append(scheduled.compare(name, arguments.seeds))
        sys.stderr.write(f"{name}: {lines[-1].mean_ratio:.3f} x with a scheduler\n")
    sys.stdout.write(scheduled.table(lines) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps({"scheduled": [line.told() for line in lines]}) + "\n")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    rows = {}
    for name in arguments.scenario:
        rows[name] = _one(name, arguments)
    if arguments.json:
        said = rows[arguments.scenario[0]] if len(rows) == 1 else {"rows": rows}
        sys.stdout.write(json.dumps(said) + "\n")
    return 0


def _one(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    changes = dict(_change(text) for text in arguments.set)
    if arguments.peers is not None:
        changes["peers.count"] = str(arguments.peers)
    row = simulate(load(name, changes), arguments.seed, arguments.trace)
    sys.stdout.write(table(name, row) + "\n")
    if arguments.compare is not None:
        options = [f"--set={key}={value}" for key, value in changes.items()]
        path = str(path_of(name).resolve())
        before = run_at(arguments.compare, [path, "--seed", str(arguments.seed), *options])
        sys.stdout.write(difference(before, row, arguments.compare) + "\n")
        row["before"] = before
    sys.stdout.flush()
    return row


def _change(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: write FIELD=VALUE")
    return key, value


def simulate(scenario: Scenario, seed: int, trace_file: str | None = None) -> dict[str, Any]:
    """One run from begin to end."""
    with ExitStack() as stack:
        out = None
        if trace_file is not None:
            out = stack.enter_context(open(trace_file, "w", encoding="utf-8"))
        begin_s = time.process_time()
        world = World(scenario, seed, Trace(out))
        world.run()
        return result(world, time.process_time() - begin_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
