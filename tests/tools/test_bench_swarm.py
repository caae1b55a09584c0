"""The swarm benchmark: its bound, its arithmetic, and one small run of everything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from peerd.errors import UsageError
from tools.bench.swarm_case import Case, Outcome, bound_s, parse_zone, row
from tools.netlab import kernel

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
MBIT = 10**6
GOODPUT = 1448 / 1514


def unable() -> str:
    """Why no swarm can be run here, or nothing."""
    try:
        kernel.check_able()
    except UsageError as error:
        return f"NOT TESTED: {error}"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in ("nginx", "aria2c", "curl") if not shutil.which(name, path=path)]
    missing += ["libtorrent"] if find_spec("libtorrent") is None else []
    return f"NOT TESTED: type make setup-lab for {', '.join(missing)}" if missing else ""


needs_lab = pytest.mark.skipif(bool(unable()), reason=unable())


def test_the_bound_is_the_origin_the_slowest_peer_or_all_together() -> None:
    assert bound_s(100, 10, [10, 10]) == 10, "the origin sends it once, peers pass it on meanwhile"
    assert bound_s(100, 100, [10, 5]) == 20, "the slowest has to get it"
    assert bound_s(100, 2, [10] * 8) == 50, "a slow origin"
    assert bound_s(100, 5, [5] * 9) == 20
    assert bound_s(100, 20, [20, 20, 20]) == 5
    assert bound_s(100, 100, [1, 200]) == 100


def test_with_equal_rates_the_bound_is_one_copy_at_goodput() -> None:
    case = Case(8, 50 * MBIT, 50 * MBIT, 64 * MIB)
    assert case.bound_s() == pytest.approx(64 * MIB * 8 / (50 * MBIT * GOODPUT))
    fast = Case(8, 100 * MBIT, 1000 * MBIT, 64 * MIB)
    assert fast.bound_s() == pytest.approx(64 * MIB * 8 / (100 * MBIT * GOODPUT))


def test_a_slow_zone_link_is_a_bound_of_its_own() -> None:
    zones = (parse_zone("near:4"), parse_zone("far:4:20mbit:40:1"))
    case = Case(8, 50 * MBIT, 50 * MBIT, 64 * MIB, zones)
    assert case.bound_s() == pytest.approx(64 * MIB * 8 / (20 * MBIT * GOODPUT))
    spec = case.lab("x")
    assert [peer.zone for peer in spec.peers] == ["near"] * 5 + ["far"] * 4, "the origin is near"
    assert (spec.zones[1].delay_ms, spec.zones[1].loss_percent) == (40, 1)
    with pytest.raises(UsageError, match="NAME:PEERS"):
        parse_zone("far")


def test_a_row_has_medians_and_their_spread() -> None:
    case = Case(2, 50 * MBIT, 50 * MBIT, MIB)
    runs = [
        Outcome(case.bound_s() * ratio, int(MIB * copies), {}, cpu, 0.5, verified=True)
        for ratio, copies, cpu in ((1.3, 1.0, 3.0), (1.1, 1.01, 1.0), (1.2, 1.5, 2.0))
    ]
    told = row("peerd", case, runs)
    assert (told["time_over_bound"], told["origin_copies"], told["cpu_s"]) == (1.2, 1.01, 2.0)
    assert told["spread"]["time_over_bound"] == [1.1, 1.2, 1.3]
    assert told["verified"]
    wrong = Outcome(1.0, MIB, {}, 1.0, 0.5, verified=False)
    assert not row("peerd", case, [*runs, wrong])["verified"]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.bench", "swarm", *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip


@needs_lab
@pytest.mark.e2e
def test_a_small_swarm_of_every_system(tmp_path: Path) -> None:
    picture = tmp_path / "swarm.png"
    done = bench(
        "--peers", "3", "--rate", "50mbit", "--size", "8MiB", "--repeat", "1",
        "--against", "curl,libtorrent,aria2", "--plot", str(picture), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    rows = {one["system"]: one for one in told["rows"]}
    assert set(rows) == {"peerd", "curl", "libtorrent", "aria2"}
    assert all(one["verified"] for one in rows.values())
    assert rows["peerd"]["origin_copies"] <= 1.1
    assert 2.9 <= rows["curl"]["origin_copies"] <= 3.1
    assert all(one["time_over_bound"] >= 0.99 for one in rows.values()), "faster than physics"
    assert all(one["cpu_s"] > 0 for one in rows.values())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert kernel.namespaces("peerd-bench") == []


@needs_lab
@pytest.mark.e2e
def test_zones_are_counted() -> None:
    done = bench(
        "--zone", "near:1", "--zone", "far:2:20mbit:5:0", "--rate", "50mbit", "--size", "4MiB",
        "--repeat", "1", "--without-peerd", "--against", "curl", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [told] = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert told["zone_copies"]["far"] == pytest.approx(2, abs=0.05)
    assert told["origin_copies"] == pytest.approx(3, abs=0.05)


@needs_lab
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "gnutella"], "there are peerd, curl"),
        (["--rate", "none"], "no bound"),
        (["--zone", "a:2", "--zone", "b:2", "--peers", "9"], "the zones have 4 peers"),
    ],
)
def test_what_is_wrong_is_said_in_words(words: list[str], said: str) -> None:
    done = bench(*words)
    assert done.returncode == 2
    assert said in done.stderr
