"""What every system's run shares: the lab, the origin's file, the meters, the check of the copies.

Always: a run has a lab and a folder of its own, so that nothing that one left (connection metrics,
files, processes) helps or hinders the next.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peerd.errors import TimedOut, UsageError
from peerd.units import GIB
from tools.bench.swarm_case import ORIGIN, Case, Outcome
from tools.machine import Processors
from tools.netlab import Lab

CHECKOUT: Final = Path(__file__).parents[2]
READY_S: Final = 60.0
BLOCK_BYTES: Final = 1 << 22
HTTP_PORT: Final = 8000


@dataclass(frozen=True)
class Source:
    """The content, in memory (a file of the bench's folder), and its digest."""

    path: Path
    size_bytes: int
    sha256: str

    @classmethod
    def make(cls, folder: Path, size_bytes: int) -> Source:
        path = folder / "served" / "content"
        path.parent.mkdir()
        digest = hashlib.sha256()
        with path.open("wb") as file:
            left = size_bytes
            while left:
                block = os.urandom(min(left, BLOCK_BYTES))
                digest.update(block)
                left -= file.write(block)
        return cls(path, size_bytes, digest.hexdigest())


@dataclass
class Run:
    """One run: where it takes place."""

    case: Case
    source: Source
    lab: Lab
    folder: Path

    def url(self) -> str:
        return f"http://{self.lab.address(ORIGIN)}:{HTTP_PORT}/{self.source.path.name}"

    def place(self, peer: str) -> Path:
        place = self.folder / peer
        place.mkdir(exist_ok=True)
        return place

    def limit_s(self) -> float:
        """Longer than anything that is worth a number: all by themselves takes N bounds."""
        return 60 + 3 * (self.case.peers + 1) * self.case.bound_s()

    def spawn(self, peer: str, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """In the peer's namespace, from this checkout, with what it says in its place's log."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PEERD_")
        }
        environment["PYTHONPATH"] = str(CHECKOUT)
        place = self.place(peer)
        with (place / "log").open("ab") as log:
            return self.lab.popen(
                peer, command, cwd=place, env=environment,
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | options,
            )  # fmt: skip

    def module(self, peer: str, name: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        return self.spawn(peer, [sys.executable, "-m", name, *words], **options)

    def log(self, peer: str) -> str:
        return (self.folder / peer / "log").read_text(errors="replace")

    def serve(self) -> None:
        """nginx in the origin's namespace, when it listens."""
        place = self.place(ORIGIN)
        # One worker serves eight; `user`: a worker that is nobody may not read the folder.
        (place / "nginx.conf").write_text(
            f"""daemon off; user root; worker_processes 1; pid {place}/pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush on; access_log {place}/access; client_body_temp_path {place}/body;
  proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u;
  scgi_temp_path {place}/s; keepalive_requests 100000;
  server {{ listen {self.lab.address(ORIGIN)}:{HTTP_PORT}; root {self.source.path.parent}; }}
}}
"""
        )
        nginx = self.spawn(
            ORIGIN, [command_path("nginx", "nginx-light"), "-c", str(place / "nginx.conf")]
        )
        self.wait_for(lambda: (place / "pid").exists(), "nginx", nginx)

    def wait_for(
        self, ready: Callable[[], bool], what: str, process: subprocess.Popen[Any] | None = None
    ) -> None:
        ends_at = time.monotonic() + READY_S
        while not ready():
            if process is not None and process.poll() is not None:
                raise TimedOut(f"{what} ended: {self.logs()}")
            if time.monotonic() > ends_at:
                raise TimedOut(f"{what}: not ready within {READY_S:.0f} s: {self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        names = [place.name for place in sorted(self.folder.iterdir()) if (place / "log").exists()]
        return "\n".join(f"{name}: {self.log(name)[-500:]}" for name in names)

    def right(self, files: Mapping[str, Callable[[], Any]]) -> bool:
        """Whether each of them, opened, has the content's digest."""
        with ThreadPoolExecutor(2) as pool:
            return all(list(pool.map(self._right, files.values())))

    def _right(self, opened: Callable[[], Any]) -> bool:
        with opened() as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.source.sha256


@contextmanager
def a_run(case: Case, source: Source, folder: Path, number: int) -> Iterator[Run]:
    place = folder / f"run{number}"
    place.mkdir()
    with Lab.create(case.lab(f"bench{os.getpid()}")) as lab:
        try:
            yield Run(case, source, lab, place)
        finally:
            lab.destroy()  # first: a daemon that writes would keep its folder
            shutil.rmtree(place)


def machine(name: str, argv: list[str]) -> dict[str, str]:
    """What stands beside every figure: how to get it again, when and where it was measured."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return {
        "command": shlex.join(["python", "-m", "tools.bench", name, *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} "
        f"{platform.release().split('-')[0]}, Python {platform.python_version()}",
    }


class Meter:
    """From the first request to the last copy: time, bytes, processors."""

    def __init__(self, run: Run, processes: list[subprocess.Popen[Any]]) -> None:
        """`processes` run already; those that start and end meanwhile count as our children."""
        self._run = run
        self._pids = [process.pid for process in processes]
        self._cpu_s = self._cpu()
        self._processors = Processors()
        self._origin = run.lab.sent(ORIGIN)
        self._zones = {one.zone.name: run.lab.entered(one.zone.name) for one in run.case.zones}
        self.started_at = time.monotonic()

    def add(self, processes: list[subprocess.Popen[Any]]) -> None:
        """Started since."""
        self._pids += [process.pid for process in processes]

    def stop(self, done_at: Mapping[str, float]) -> Callable[[bool], Outcome]:
        """Reads everything at once; what is left is to say whether the copies were right."""
        lab = self._run.lab
        lab.check()
        busy = self._processors.busy()
        done_s = {peer: at - self.started_at for peer, at in done_at.items()}
        origin = lab.sent(ORIGIN).since(self._origin).content_bytes()
        zones = {
            zone: lab.entered(zone).since(before).content_bytes()
            for zone, before in self._zones.items()
        }
        cpu_s = self._cpu() - self._cpu_s

        def outcome(verified: bool) -> Outcome:
            return Outcome(
                seconds=max(done_s.values()), origin_bytes=origin, zone_bytes=zones,
                cpu_s=cpu_s, machine_busy=busy, verified=verified, done_s=done_s,
            )  # fmt: skip

        return outcome

    def _cpu(self) -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(_cpu_s(pid) for pid in self._pids) + ended.ru_utime + ended.ru_stime


def _cpu_s(pid: int) -> float:
    """User and system time of a process, its threads, and the children that it waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_s(int(worker)) for worker in workers)


def command_path(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise UsageError(f"this needs {name}: type apt-get install -y {package}")
    return found
