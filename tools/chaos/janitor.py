"""A folder in memory for one run, which goes when its owner does, however that ends.

The janitor is a process in a session of its own that watches the owner by a process descriptor,
then unmounts what is mounted below the folder and removes it. The lab's own guardian ends the
daemons.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
"""A tmpfs on every Linux."""
ROOT: Final = Path(__file__).parents[2]


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=f"peerd-chaos-{os.getpid()}-", dir=MEMORY))
    janitor = subprocess.Popen(
        [sys.executable, "-m", __name__, str(made), str(os.getpid())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT,
        start_new_session=True,  # Ctrl-C ends the owner, and the janitor cleans up after it.
    )  # fmt: skip
    try:
        yield made
    finally:
        janitor.kill()
        janitor.wait()
        remove(made)


def remove(made: Path) -> None:
    """Lazily: a daemon that is being killed may still have a file open."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed(mounted):
        if place.startswith(f"{made}/"):
            subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(made, ignore_errors=True)


def mount(place: Path, size_bytes: int) -> None:
    """A small file system in memory; again, on the same place: another size."""
    again = "remount," if place.is_mount() else ""
    options = f"{again}size={size_bytes},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "peerd-chaos", str(place)], check=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    made, owner_pid = Path(sys.argv[1]), int(sys.argv[2])
    try:
        owner = os.pidfd_open(owner_pid)
    except ProcessLookupError:
        pass
    else:
        # Our parent is the owner, unless it ended before we looked.
        if os.getppid() == owner_pid:
            select.select([owner], [], [])
    remove(made)


if __name__ == "__main__":
    main()
