"""`python -m tools.netlab`: a lab by hand. Each command's --help has an example."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from peerd.errors import PeerdError, UsageError
from tools.netlab import kernel, record
from tools.netlab.lab import Lab, summary
from tools.netlab.spec import LabSpec, PeerSpec, ZoneSpec, format_rate, parse_rate


def create(said: argparse.Namespace) -> None:
    zones = tuple(_zone(text) for text in said.zone)
    names = [zone.name for zone in zones]
    peers = [PeerSpec("origin", said.origin_rate, said.origin_rate)] if said.origin else []
    for number in range(said.peers):
        # Zones get neighbours: the first half in the first of two.
        zone = names[number * len(names) // said.peers] if names else ""
        peers.append(PeerSpec(f"p{number}", said.rate, said.rate, zone))
    lab = Lab.create(LabSpec(said.lab, tuple(peers), zones), owned=False)
    told = summary(lab)
    if said.json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    for peer in told["peers"]:
        sys.stdout.write(f"{peer['name']:8} {peer['address']:12} {peer['zone']}\n")
    sys.stdout.write(f"type: python -m tools.netlab exec {lab.name} p0 -- COMMAND\n")


def execute(said: argparse.Namespace) -> None:
    words = said.command[1:] if said.command[:1] == ["--"] else said.command
    if not words:
        raise UsageError("say what to run: exec LAB PEER -- COMMAND")
    command = Lab.open(said.lab).command(said.peer, words)
    os.execvp(command[0], command)


def rate(said: argparse.Namespace) -> None:
    lab = Lab.open(said.lab)
    if said.target in {zone.name for zone in lab.spec.zones}:
        lab.zone_rate(said.target, said.up)
    else:
        lab.rate(said.target, said.up, said.up if said.down == 0 else said.down)


def delay(said: argparse.Namespace) -> None:
    lab = Lab.open(said.lab)
    if said.ms is not None:
        lab.delay(said.target, said.ms)
    if said.loss is not None:
        lab.loss(said.target, said.loss)


def partition(said: argparse.Namespace) -> None:
    lab = Lab.open(said.lab)
    if said.unplug:
        for name in said.groups:
            lab.unplug(name)
    else:
        lab.partition(*(group.split(",") for group in said.groups))


def heal(said: argparse.Namespace) -> None:
    lab = Lab.open(said.lab)
    lab.heal()
    for peer in lab.spec.peers:
        lab.plug(peer.name)


def destroy(said: argparse.Namespace) -> None:
    kernel.check_able()
    if not said.all and not said.lab:
        raise UsageError("name a lab, or say --all")
    for name in record.names() if said.all else [said.lab]:
        if not said.all:
            record.load(name)  # says which there are, when it is not one of them
        record.remove(name)


def show(said: argparse.Namespace) -> None:
    lab = Lab.open(said.lab)
    lab.check()
    rows = []
    for peer in lab.spec.peers:
        sent, received = lab.sent(peer.name), lab.received(peer.name)
        rows.append(vars(peer) | {
            "address": lab.address(peer.name), "sent_bytes": sent.bytes,
            "sent_content_bytes": sent.content_bytes(), "received_bytes": received.bytes,
            "received_content_bytes": received.content_bytes(),
        })  # fmt: skip
    zones = [vars(zone) | {"entered_content_bytes": lab.entered(zone.name).content_bytes()}
             for zone in lab.spec.zones]  # fmt: skip
    if said.json:
        sys.stdout.write(json.dumps({"name": lab.name, "peers": rows, "zones": zones}) + "\n")
        return
    for row in rows:
        up, down = format_rate(row["up_bit_s"]), format_rate(row["down_bit_s"])
        sys.stdout.write(
            f"{row['name']:8} {row['address']:12} {up:>10} up {down:>10} down  "
            f"{row['sent_bytes']:>12} sent {row['received_bytes']:>12} received\n"
        )


def _zone(text: str) -> ZoneSpec:
    """NAME[:RATE[:DELAY_MS[:LOSS_PERCENT]]]"""
    words = text.split(":")
    try:
        name, rate_text, delay_text, loss_text = words + ["none", "0", "0"][len(words) - 1 :]
        return ZoneSpec(name, parse_rate(rate_text), float(delay_text), int(loss_text))
    except ValueError as error:
        raise UsageError(f"--zone {text!r}: write NAME:RATE:DELAY_MS:LOSS_PERCENT") from error


def _rate(text: str) -> int | None:
    try:
        return parse_rate(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.netlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, carry_out: Callable[[argparse.Namespace], None], words: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=words, description=words,
            epilog=f"Example: python -m tools.netlab {example}",
        )  # fmt: skip
        sub.set_defaults(carry_out=carry_out)
        return sub

    sub = command(
        "create",
        create,
        "Make a lab; it stays until destroy.",
        "create demo --peers 8 --rate 50mbit --origin --zone near --zone far:20mbit:40:1",
    )
    sub.add_argument("lab")
    sub.add_argument("--peers", type=int, default=4, help="named p0, p1, …; 4 unless given")
    sub.add_argument("--rate", type=_rate, help="each peer's, each way")
    sub.add_argument("--origin", action="store_true", help="one more, named origin, at the core")
    sub.add_argument("--origin-rate", type=_rate, help="none unless given")
    sub.add_argument(
        "--zone",
        action="append",
        default=[],
        metavar="NAME:RATE:DELAY_MS:LOSS",
        help="peers are spread over the zones in order; what is given is its link's",
    )
    sub.add_argument("--json", action="store_true")
    sub = command(
        "exec",
        execute,
        "Run a command in a peer's namespace.",
        "exec demo p0 -- ping -c 3 10.77.0.2",
    )
    sub.add_argument("lab")
    sub.add_argument("peer")
    sub.add_argument("command", nargs=argparse.REMAINDER)
    sub = command(
        "rate",
        rate,
        "Change the rates of a peer, or of a zone's link.",
        "rate demo p0 10mbit 50mbit",
    )
    sub.add_argument("lab")
    sub.add_argument("target")
    sub.add_argument("up", type=_rate, help="50mbit, 1gbit, none")
    sub.add_argument("down", type=_rate, nargs="?", default=0, help="the same unless given")
    sub = command(
        "delay",
        delay,
        "Delay, one way, and loss of a peer or of a zone's link.",
        "delay demo far --ms 40 --loss 1",
    )
    sub.add_argument("lab")
    sub.add_argument("target")
    sub.add_argument("--ms", type=float, help="each way; 0 takes it away")
    sub.add_argument("--loss", type=int, metavar="PERCENT", help="each way; 0 takes it away")
    sub = command(
        "partition",
        partition,
        "Separate groups of peers; who is in none hears all.",
        "partition demo p0,p1 p2,p3",
    )
    sub.add_argument("lab")
    sub.add_argument("groups", nargs="+", metavar="GROUP", help="p0,p1")
    sub.add_argument("--unplug", action="store_true", help="these peers' cables, instead")
    sub = command("heal", heal, "End partitions, plug everybody in.", "heal demo")
    sub.add_argument("lab")
    sub = command("show", show, "Rates, and what has passed.", "show demo --json")
    sub.add_argument("lab")
    sub.add_argument("--json", action="store_true")
    sub = command("destroy", destroy, "End what runs inside, remove the lab.", "destroy demo")
    sub.add_argument("lab", nargs="?")
    sub.add_argument("--all", action="store_true", help="every lab on this machine")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    said: Any = _parser().parse_args(argv)
    try:
        said.carry_out(said)
    except PeerdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
