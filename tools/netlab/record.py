"""Which labs there are, and whose: one small file each, so that no lab outlives its owner.

Always: the record is there before the first namespace is, and goes after the last; so whatever a
killed owner left can be found and removed. An owner is a process id and when it started, since ids
come back. No owner: the lab stays until `destroy`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from peerd.errors import UsageError
from tools.netlab import kernel
from tools.netlab.spec import LabSpec, from_json, namespace, to_json

FOLDER: Final = Path("/run/peerd-netlab")


@dataclass
class Record:
    """What has to be known to change a lab or to remove it."""

    spec: LabSpec
    owner_pid: int | None = None
    owner_started_at: int | None = None
    lines: dict[str, int] = field(default_factory=dict)
    """Ports with a delay, and the process that carries their frames."""
    losses: dict[str, int] = field(default_factory=dict)
    pair_losses: list[tuple[list[int], list[int], int]] = field(default_factory=list)

    def orphaned(self) -> bool:
        if self.owner_pid is None:
            return False
        return kernel.started_at(self.owner_pid) != self.owner_started_at


def path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def log_path(name: str) -> Path:
    """What the lab's own processes say when they fail."""
    return FOLDER / f"{name}.log"


def save(record: Record, new: bool = False) -> None:
    """As a whole or not at all; `new` refuses a name that is in use."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    place = path(record.spec.name)
    if new and place.exists():
        raise UsageError(
            f"a lab {record.spec.name!r} is there already: take another name, or type "
            f"python -m tools.netlab destroy {record.spec.name}"
        )
    said = vars(record) | {"spec": to_json(record.spec)}
    draft = place.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(said))
    draft.replace(place)


def load(name: str) -> Record:
    try:
        said: dict[str, Any] = json.loads(path(name).read_text())
    except FileNotFoundError as error:
        known = ", ".join(names()) or "none"
        raise UsageError(f"there is no lab {name!r}; there are: {known}") from error
    return Record(**(said | {"spec": from_json(said["spec"])}))


def names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def remove(name: str) -> None:
    """Everything of a lab, however much of it there is."""
    kernel.remove(kernel.namespaces(namespace(name, "")))
    log_path(name).unlink(missing_ok=True)
    path(name).unlink(missing_ok=True)


def reap() -> list[str]:
    """Removes the labs whose owner has ended; their names."""
    gone = []
    for name in names():
        try:
            orphaned = load(name).orphaned()
        except UsageError:
            continue  # another process was faster
        if orphaned:
            remove(name)
            gone.append(name)
    return gone
