"""The lab as a network: what passes, how fast, how late, and that nothing of it stays behind.

What needs namespaces needs root, and says so where it is skipped; CI is root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.errors import UsageError
from tools.netlab import (
    Counters,
    Lab,
    LabSpec,
    LineDied,
    PeerSpec,
    ZoneSpec,
    goodput_bytes_s,
    kernel,
    parse_rate,
    plan,
    record,
)
from tools.netlab.spec import burst_bytes, from_json, to_json

ROOT = Path(__file__).parents[2]
MBIT = 10**6


def unable() -> str:
    """Why no lab can be made here, or nothing."""
    try:
        kernel.check_able()
    except UsageError as error:
        return f"NOT TESTED: {error}"
    return "" if shutil.which("ping") else "NOT TESTED: type apt-get install -y iputils-ping"


needs_root = pytest.mark.skipif(bool(unable()), reason=unable())

SEND = """
import socket, sys
listener = socket.create_server((sys.argv[1], 7000))
print("ready", flush=True)
connection, _ = listener.accept()
block = bytes(1 << 16)
left = int(sys.argv[2])
while left > 0:
    left -= connection.send(block[:left])
"""
RECEIVE = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 7000), 10)
started, total = time.monotonic(), 0
while data := connection.recv(1 << 16):
    total += len(data)
print(total, time.monotonic() - started)
"""


def a_name() -> str:
    return f"t{os.getpid()}.{time.monotonic_ns() % 10**6}"


def a_spec(count: int = 4, rate_bit_s: int | None = 50 * MBIT) -> LabSpec:
    peers = tuple(PeerSpec(f"p{number}", rate_bit_s, rate_bit_s) for number in range(count))
    return LabSpec(a_name(), peers)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.create(a_spec()) as lab:
        yield lab


def ping(lab: Lab, one: str, other: str, count: int = 1) -> tuple[int, float]:
    """How many came back, and the shortest round trip in milliseconds."""
    command = ["ping", "-n", "-c", str(count), "-i", "0.02", "-W", "1", lab.address(other)]
    said = subprocess.run(lab.command(one, command), capture_output=True, text=True, check=False)
    times = [float(found) for found in re.findall(r"time=([\d.]+)", said.stdout)]
    return len(times), min(times, default=0.0)


def send(lab: Lab, source: str, target: str, size_bytes: int) -> float:
    """One TCP connection; content bytes a second."""
    address = lab.address(source)
    sender = lab.popen(
        source, [sys.executable, "-c", SEND, address, str(size_bytes)], stdout=subprocess.PIPE
    )
    with sender:
        assert sender.stdout is not None
        sender.stdout.readline()
        command = lab.command(target, [sys.executable, "-c", RECEIVE, address])
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[0]) == size_bytes
    return size_bytes / float(said[1])


def left_of(name: str) -> list[str]:
    return [
        *kernel.namespaces(f"peerd-{name}-"),
        *(file for file in record.names() if file == name),
    ]


@needs_root
def test_a_rate_is_what_passes(lab: Lab) -> None:
    """0.956 of it is content; a longer buffer than the burst hides nothing at 4 MB."""
    assert send(lab, "p0", "p1", 4_000_000) / goodput_bytes_s(50 * MBIT) == pytest.approx(1, 0.05)
    lab.rate("p0", 10 * MBIT, None)
    assert send(lab, "p0", "p1", 2_000_000) / goodput_bytes_s(10 * MBIT) == pytest.approx(1, 0.06)
    lab.rate("p0", None, None)
    lab.rate("p1", None, 20 * MBIT)
    assert send(lab, "p0", "p1", 2_000_000) / goodput_bytes_s(20 * MBIT) == pytest.approx(1, 0.06)


@needs_root
def test_the_counters_tell_content_from_headers(lab: Lab) -> None:
    sent, received = lab.sent("p0"), lab.received("p1")
    send(lab, "p0", "p1", 2_000_000)
    assert lab.sent("p0").since(sent).content_bytes() == pytest.approx(2_000_000, rel=0.01)
    assert lab.received("p1").since(received).content_bytes() == pytest.approx(2_000_000, rel=0.01)
    assert lab.sent("p0").bytes > 2_000_000, "the headers were there"


@needs_root
def test_a_partition_blocks_and_heals(lab: Lab) -> None:
    assert ping(lab, "p0", "p2")[0] == 1
    lab.partition(["p0", "p1"], ["p2"])
    assert ping(lab, "p0", "p1")[0] == 1
    assert ping(lab, "p0", "p2")[0] == 0
    assert ping(lab, "p2", "p1")[0] == 0
    assert ping(lab, "p3", "p0")[0] == ping(lab, "p3", "p2")[0] == 1, "in no group: hears all"
    lab.partition(["p0"], ["p1"], ["p2"])
    assert ping(lab, "p0", "p1")[0] == 0
    lab.heal()
    assert ping(lab, "p0", "p1")[0] == ping(lab, "p0", "p2")[0] == 1
    lab.unplug("p0")
    assert ping(lab, "p1", "p0")[0] == 0
    lab.plug("p0")
    assert ping(lab, "p1", "p0")[0] == 1


@needs_root
def test_a_delay_is_added_changed_and_taken_away(lab: Lab) -> None:
    assert ping(lab, "p0", "p1", 3)[1] < 5
    lab.delay("p0", 30)
    assert 60 <= ping(lab, "p0", "p1", 5)[1] < 70
    assert ping(lab, "p1", "p2", 3)[1] < 5
    lab.delay("p0", 10)
    assert 20 <= ping(lab, "p0", "p1", 5)[1] < 30
    lab.delay("p0", 0)
    assert ping(lab, "p0", "p1", 3)[1] < 5


@needs_root
def test_a_line_that_died_is_told(lab: Lab) -> None:
    lab.delay("p0", 5)
    lab.check()
    [pid] = record.load(lab.name).lines.values()
    kernel.end(pid)
    with pytest.raises(LineDied, match="h0"):
        lab.check()


@needs_root
def test_loss_drops_so_many(lab: Lab) -> None:
    """At 30 % each way a ping in two returns; at 0 all do."""
    assert ping(lab, "p0", "p1")[0] == 1  # Else what asks for addresses is lost, too.
    lab.loss("p0", 30)
    came, _ = ping(lab, "p0", "p1", 40)
    assert 5 <= came <= 35, "this side of one in a million"
    assert ping(lab, "p1", "p2", 20)[0] == 20
    lab.loss("p0", 0)
    assert ping(lab, "p0", "p1", 20)[0] == 20
    lab.loss_between(["p0"], ["p1", "p2"], 100)
    assert ping(lab, "p0", "p1")[0] == ping(lab, "p2", "p0")[0] == 0
    assert ping(lab, "p0", "p3")[0] == ping(lab, "p1", "p2")[0] == 1


@needs_root
def test_zones_share_a_slow_link_that_counts() -> None:
    peers = [PeerSpec("origin", 50 * MBIT, 50 * MBIT)]
    peers += [PeerSpec(f"n{i}", 50 * MBIT, 50 * MBIT, "near") for i in range(2)]
    peers += [PeerSpec(f"f{i}", 50 * MBIT, 50 * MBIT, "far") for i in range(2)]
    zones = (ZoneSpec("near"), ZoneSpec("far", 10 * MBIT, delay_ms=20))
    with Lab.create(LabSpec(a_name(), tuple(peers), zones)) as lab:
        assert 40 <= ping(lab, "n0", "f0", 5)[1] < 50
        assert 40 <= ping(lab, "origin", "f1", 5)[1] < 50
        assert ping(lab, "n0", "n1", 3)[1] < 5
        assert ping(lab, "f0", "f1", 3)[1] < 5
        near, far = lab.entered("near"), lab.entered("far")
        speed = send(lab, "n0", "f0", 2_000_000)
        assert speed / goodput_bytes_s(10 * MBIT) == pytest.approx(1, 0.2), "slow start counts"
        passed = lab.entered("far").since(far).content_bytes()
        assert passed == pytest.approx(2_000_000, rel=0.02)
        assert lab.entered("near").since(near).content_bytes() < 100_000
        lab.loss("far", 100)
        assert ping(lab, "n0", "f0")[0] == 0


@needs_root
def test_many_peers_in_a_second() -> None:
    started_at = time.monotonic()
    with Lab.create(a_spec(32)) as lab:
        assert time.monotonic() - started_at < 2, "0.3 s alone; the suite shares two cores"
        assert ping(lab, "p0", "p31")[0] == 1
    assert left_of(lab.name) == []


OWNER = """
import sys, time
from tools.netlab import Lab, LabSpec, PeerSpec
lab = Lab.create(LabSpec(sys.argv[1], (PeerSpec("a"), PeerSpec("b"))))
lab.delay("a", 1)
lab.popen("b", ["sleep", "1000"])
print("ready", flush=True)
time.sleep(1000)
"""


def an_owner(name: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    assert left_of(name), "the lab stands"
    return owner


def gone_within(name: str, seconds: float) -> bool:
    ends_at = time.monotonic() + seconds
    while left_of(name):
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.02)
    return True


@needs_root
def test_a_killed_owner_leaves_nothing() -> None:
    """kill -9: namespaces, the delay line and what ran inside are gone in a moment."""
    name = a_name()
    with an_owner(name) as owner:
        owner.kill()
        assert gone_within(name, 5), left_of(name)


@needs_root
def test_the_next_lab_removes_what_owner_and_guardian_left() -> None:
    name = a_name()
    with an_owner(name) as owner:
        [guardian] = children_of(owner.pid, "tools.netlab.guardian")
        os.kill(guardian, signal.SIGKILL)
        owner.kill()
    assert left_of(name)
    with Lab.create(a_spec(1)):
        assert left_of(name) == []


def children_of(pid: int, word: str) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found if word in Path(f"/proc/{one}/cmdline").read_text()]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.netlab", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@needs_root
def test_the_command_makes_a_lab_that_stays_until_destroy() -> None:
    name = a_name()
    made = command("create", name, "--peers", "2", "--rate", "50mbit", "--zone", "z:20mbit:5:0",
                   "--origin", "--json")  # fmt: skip
    try:
        told = json.loads(made.stdout)
        assert [peer["name"] for peer in told["peers"]] == ["origin", "p0", "p1"]
        once = ["ping", "-n", "-c", "1", "-W", "1", told["peers"][2]["address"]]
        assert command("exec", name, "p0", "--", *once).returncode == 0
        assert command("partition", name, "p0", "p1").returncode == 0
        assert command("exec", name, "p0", "--", *once).returncode == 1
        assert command("heal", name).returncode == 0
        assert command("rate", name, "p0", "10mbit").returncode == 0
        assert command("delay", name, "p0", "--ms", "5", "--loss", "1").returncode == 0
        assert command("delay", name, "p0", "--ms", "0", "--loss", "0").returncode == 0
        assert command("exec", name, "p0", "--", *once).returncode == 0
        shown = json.loads(command("show", name, "--json").stdout)
        assert shown["peers"][1]["up_bit_s"] == 10 * MBIT
        again = command("create", name)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert "destroy" in again.stderr
    finally:
        assert command("destroy", name).returncode == 0
    assert left_of(name) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["destroy", "nothing"], "there is no lab"),
        (["create", "x", "--zone", "z:1:2:3:4"], "NAME:RATE:DELAY_MS:LOSS_PERCENT"),
        (["create", "UPPER"], "no name"),
        (["create", "x", "--rate", "fast"], "no rate"),
    ],
)
@needs_root
def test_what_is_wrong_is_said_in_words(words: list[str], said: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
def test_without_root_it_refuses_in_one_sentence() -> None:
    """In this process with its effective user changed: nobody may not even read the checkout."""
    os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="needs root"):
            Lab.create(a_spec())
    finally:
        os.seteuid(0)


def test_a_missing_command_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="apt-get install -y iproute2"):
        kernel.check_able()


def test_each_command_has_an_example() -> None:
    for name in ("create", "exec", "rate", "delay", "partition", "heal", "show", "destroy"):
        assert f"Example: python -m tools.netlab {name} demo" in " ".join(
            command(name, "--help").stdout.split()
        )


def test_rates_and_bursts() -> None:
    assert parse_rate("50mbit") == parse_rate("50M") == 50 * MBIT
    assert parse_rate("1.5Gbit/s") == 1500 * MBIT
    assert parse_rate("none") is None
    with pytest.raises(UsageError, match="no rate"):
        parse_rate("0")
    assert burst_bytes(50 * MBIT) == 16384, "2 ms are 12,500: too little for a frame of offload"
    assert burst_bytes(1000 * MBIT) == 250_000
    assert burst_bytes(100_000 * MBIT) == 1 << 20
    assert goodput_bytes_s(100 * MBIT) == pytest.approx(12_500_000 * 0.956, rel=1e-3)


def test_headers_come_off() -> None:
    """Ten full frames, or the same bytes as one that the device cuts; acknowledgements are none."""
    assert Counters(10 * 1514, 10).content_bytes() == 10 * 1448
    assert Counters(10 * 1448 + 66, 1).content_bytes() == 10 * 1448
    assert Counters(1000 * 66, 1000).content_bytes() == 0
    assert Counters(5000, 10).since(Counters(3000, 4)) == Counters(2000, 6)


def test_a_spec_survives_its_record_and_refuses_nonsense() -> None:
    spec = LabSpec("s", (PeerSpec("a", 1, 2, "z"), PeerSpec("b")), (ZoneSpec("z", 3, 4.5, 6),))
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec
    for wrong in (
        LabSpec("s", (PeerSpec("a"), PeerSpec("a"))),
        LabSpec("s", (PeerSpec("hub"),)),
        LabSpec("s", (PeerSpec("a", zone="q"),)),
        LabSpec("s", ()),
        LabSpec("no space", (PeerSpec("a"),)),
    ):
        with pytest.raises(UsageError):
            wrong.check()


def test_a_partition_names_ports_once_and_heals_by_name() -> None:
    spec = LabSpec("s", tuple(PeerSpec(name) for name in "abc"))
    text = plan.partition(spec, [["a"], ["b", "c"]])
    assert 'iifname { "h0" } ether daddr { 02:77:00:00:00:02, 02:77:00:00:00:03 } drop' in text
    assert 'iifname { "h1", "h2" } ether daddr { 02:77:00:00:00:01 } drop' in text
    assert plan.no_table("partition") in text


def test_a_line_keeps_order_and_ends_with_its_devices() -> None:
    """The line without devices: two pairs of sockets that carry datagrams stand for the TAPs."""
    from tools.netlab import line

    near, one = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setblocking(False)
    carrier = threading.Thread(target=line.carry, args=(one.fileno(), other.fileno(), 0.05))
    carrier.start()
    sent_at = time.monotonic()
    frames = [f"frame {number}".encode() for number in range(200)]
    for frame in frames:
        near.send(frame)
    assert [far.recv(2048) for _ in frames] == frames
    assert time.monotonic() - sent_at >= 0.05
    far.send(b"back")
    assert near.recv(2048) == b"back"
    near.close()
    carrier.join(5)
    assert not carrier.is_alive()
    for end in (one, other, far):
        end.close()
