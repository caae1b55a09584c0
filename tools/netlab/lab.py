"""A lab that stands: made, changed, measured, removed.

    with Lab.create(LabSpec("demo", (PeerSpec("a", 50_000_000, 50_000_000), PeerSpec("b")))) as lab:
        lab.popen("a", ["ping", "-c", "1", lab.address("b")]).wait()
        lab.partition([["a"], ["b"]])

Always: what is inside is ended and removed when the block is left, or when its owner, the process
that made it, ends in any way; a lab without an owner stays until `destroy`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from peerd.errors import UsageError
from tools.netlab import guardian, kernel, plan, record
from tools.netlab.spec import Counters, LabSpec, address, namespace

LINE: Final = str(Path(__file__).with_name("line.py"))
AT_ONCE: Final = 4
"""Commands at a time; each is a start of `ip`, and the kernel's lock orders them anyway."""


class LineDied(kernel.LabError):
    """A line of the lab died, so that what was measured means nothing."""


class Lab:
    """One lab, from this process's point of view; another may have made it."""

    def __init__(self, kept: record.Record) -> None:
        self._kept = kept
        self._guardian: subprocess.Popen[bytes] | None = None
        self._lines: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def create(cls, spec: LabSpec, owned: bool = True) -> Lab:
        """Makes it, and removes labs whose owners are gone. `owned`: it ends with this process."""
        spec.check()
        kernel.check_able()
        record.reap()
        kept = record.Record(spec)
        if owned:
            kept.owner_pid, kept.owner_started_at = os.getpid(), kernel.started_at(os.getpid())
        record.save(kept, new=True)
        lab = cls(kept)
        try:
            if owned:
                lab._guardian = guardian.start(spec.name)
            lab._build()
        except BaseException:
            lab.destroy()
            raise
        return lab

    @classmethod
    def open(cls, name: str) -> Lab:
        kernel.check_able()
        return cls(record.load(name))

    @property
    def spec(self) -> LabSpec:
        return self._kept.spec

    @property
    def name(self) -> str:
        return self.spec.name

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def destroy(self) -> None:
        """Ends what runs inside, removes everything. Again: nothing."""
        if self._guardian is not None:
            self._guardian.kill()
            self._guardian.wait()
            self._guardian = None
        record.remove(self.name)
        for line in self._lines.values():
            line.wait()
        self._lines.clear()

    # Where things run.

    def address(self, peer: str) -> str:
        return address(self.spec.peer_index(peer))

    def namespace(self, peer: str) -> str:
        self.spec.peer_index(peer)
        return namespace(self.name, peer)

    def command(self, peer: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command there."""
        return kernel.inside(self.namespace(peer), command)

    def popen(self, peer: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(peer, command), **options)

    # Changes.

    def rate(self, peer: str, up_bit_s: int | None, down_bit_s: int | None) -> None:
        """What the peer sends and receives at most, from now on."""
        index = self.spec.peer_index(peer)
        old = self.spec.peers[index]
        self._set_rate(self.namespace(peer), "eth0", old.up_bit_s, up_bit_s)
        self._set_rate(self._hub, plan.peer_port(index), old.down_bit_s, down_bit_s)
        new = replace(old, up_bit_s=up_bit_s, down_bit_s=down_bit_s)
        self._keep(self.spec.with_peer(index, new))

    def zone_rate(self, zone: str, rate_bit_s: int | None) -> None:
        """What the zone's link carries at most, each way."""
        index = self.spec.zone_index(zone)
        old = self.spec.zones[index]
        for port in plan.zone_ports(index):
            self._set_rate(self._hub, port, old.rate_bit_s, rate_bit_s)
        self._keep(self.spec.with_zone(index, replace(old, rate_bit_s=rate_bit_s)))

    def delay(self, target: str, delay_ms: float) -> None:
        """Holds each frame of a peer, or of a zone's link, so long, each way; 0: no more."""
        port, old_bridge = self._port(target)
        if port in self._kept.lines:
            self._end_line(port)
            kernel.ip(plan.no_line(port, old_bridge), self._hub)
        if delay_ms > 0:
            self._start_line(port, old_bridge, delay_ms)

    def loss(self, target: str, percent: int) -> None:
        """Drops so many percent of a peer's frames, or of a zone link's, in each direction."""
        port, _ = self._port(target)
        self._kept.losses[port] = _checked(percent)
        self._write_losses()

    def loss_between(self, one: Sequence[str], other: Sequence[str], percent: int) -> None:
        """The same between two groups of peers; replaces what was set between any."""
        groups = [[self.spec.peer_index(name) for name in group] for group in (one, other)]
        self._kept.pair_losses = [(groups[0], groups[1], _checked(percent))] if percent else []
        self._write_losses()

    def partition(self, *groups: Sequence[str]) -> None:
        """These groups do not hear each other, who is in none hears all; instead of the last."""
        named = [name for group in groups for name in group]
        if len(groups) < 2 or len(set(named)) < len(named) or not all(groups):
            raise UsageError("a partition has two or more groups, and no peer is in two of them")
        kernel.nft(plan.partition(self.spec, groups), self._hub)

    def heal(self) -> None:
        kernel.nft(plan.no_table("partition"), self._hub)

    def unplug(self, peer: str) -> None:
        """Pulls the cable: the peer's own interface says so."""
        self._plug(peer, "down")

    def plug(self, peer: str) -> None:
        self._plug(peer, "up")

    # What passed.

    def sent(self, peer: str) -> Counters:
        return kernel.counters(self.namespace(peer), "eth0")[1]

    def received(self, peer: str) -> Counters:
        return kernel.counters(self.namespace(peer), "eth0")[0]

    def entered(self, zone: str) -> Counters:
        """What came into a zone over its link, behind rate, loss and delay."""
        inner, _ = plan.zone_ports(self.spec.zone_index(zone))
        return kernel.counters(self._hub, inner)[0]

    def check(self) -> None:
        """Raises LineDied when a delay line died: its port is cut off since."""
        for port, pid in self._kept.lines.items():
            if kernel.started_at(pid) is None:
                words = record.log_path(self.name).read_text()[-500:]
                raise LineDied(f"the delay line of {port} in lab {self.name} died: {words}")

    # Inside.

    @property
    def _hub(self) -> str:
        return namespace(self.name, "hub")

    def _build(self) -> None:
        spec = self.spec
        kernel.ip(plan.wiring(spec))
        kernel.ip(plan.hub(spec), self._hub)
        kernel.tc(plan.hub_rates(spec), self._hub)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(self._build_peer, range(len(spec.peers))):
                pass
        for zone in spec.zones:
            if zone.delay_ms:
                self.delay(zone.name, zone.delay_ms)
            if zone.loss_percent:
                self.loss(zone.name, zone.loss_percent)

    def _build_peer(self, index: int) -> None:
        peer = self.spec.peers[index]
        inside = namespace(self.name, peer.name)
        kernel.ip(plan.peer(index), inside)
        kernel.tc(plan.rate("eth0", peer.up_bit_s), inside)

    def _port(self, target: str) -> tuple[str, str]:
        """The hub's port of a peer or, for a zone, the core's end of its link; and its bridge."""
        zones = [zone.name for zone in self.spec.zones]
        if target in zones:
            return plan.zone_ports(zones.index(target))[1], plan.CORE
        index = self.spec.peer_index(target)
        return plan.peer_port(index), plan.bridge_of(self.spec, index)

    def _set_rate(self, inside: str, device: str, old: int | None, new: int | None) -> None:
        if new is None and old is not None:
            kernel.tc([plan.unlimited(device)], inside)
        kernel.tc(plan.rate(device, new), inside)

    def _start_line(self, port: str, old_bridge: str, delay_ms: float) -> None:
        command = [sys.executable, "-I", LINE, f"a{port}", f"b{port}", str(delay_ms)]
        with record.log_path(self.name).open("ab") as log:
            line = subprocess.Popen(
                kernel.inside(self._hub, command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the lab in order, not its lines first
            )
        self._lines[port] = line
        self._kept.lines[port] = line.pid
        record.save(self._kept)
        assert line.stdout is not None
        with line.stdout:
            if line.stdout.readline() != b"ready\n":
                words = record.log_path(self.name).read_text()[-500:]
                raise kernel.LabError(f"the delay line of {port} does not start: {words}")
        kernel.ip(plan.line(port, old_bridge), self._hub)

    def _end_line(self, port: str) -> None:
        pid = self._kept.lines.pop(port)
        line = self._lines.pop(port, None)
        if line is not None:
            line.kill()
            line.wait()
        else:
            kernel.end(pid)
        record.save(self._kept)

    def _write_losses(self) -> None:
        for peer in self.spec.peers:
            kernel.ip([plan.single_frames()], namespace(self.name, peer.name))
        losses = {port: percent for port, percent in self._kept.losses.items() if percent}
        kernel.nft(plan.loss(losses, self._kept.pair_losses), self._hub)
        record.save(self._kept)

    def _plug(self, peer: str, state: str) -> None:
        kernel.ip([f"link set dev {plan.peer_port(self.spec.peer_index(peer))} {state}"], self._hub)

    def _keep(self, spec: LabSpec) -> None:
        self._kept.spec = spec
        record.save(self._kept)


def summary(lab: Lab) -> Mapping[str, Any]:
    """What `create --json` prints: where everything is."""
    return {
        "name": lab.name,
        "peers": [
            {"name": peer.name, "address": lab.address(peer.name), "zone": peer.zone,
             "namespace": lab.namespace(peer.name)}
            for peer in lab.spec.peers
        ],
    }  # fmt: skip


def _checked(percent: int) -> int:
    if not 0 <= percent <= 100:
        raise UsageError(f"{percent} is no percentage")
    return percent
