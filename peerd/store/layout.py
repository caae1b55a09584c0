"""Where everything lies below the data directory, how much of the disk may be used, and the tables.

    lock          held with flock by the one daemon that uses this directory; its pid stands inside
    journal.db    SQLite in WAL mode: what is acknowledged (docs/adr/0006)
    content/      one file for each version: <task>.<version>.<number>
                  <the same>.new while it is being made

Always: a number is given to one file only for as long as a daemon runs, so that a late write to a
removed version never finds a newer file under its name; what is in content/ and not in the journal
is nobody's, and is swept at the next start.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from peerd.ids import TaskId, VersionId
from peerd.units import MIB, format_size

LOCK_NAME: Final = "lock"
JOURNAL_NAME: Final = "journal.db"
CONTENT_NAME: Final = "content"
NEW_SUFFIX: Final = ".new"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600

GROW_STEP_BYTES: Final = 64 * MIB
"""Content of unknown length takes disk in such steps. Guess: four of the largest pieces, and few
enough calls that they cost nothing at 1 GB/s."""

SCHEMA_VERSION: Final = 2
SCHEMA: Final = """
CREATE TABLE machine (era INTEGER NOT NULL, boot_id TEXT NOT NULL, clean INTEGER NOT NULL);
CREATE TABLE asks (task TEXT PRIMARY KEY, spec BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (
    number INTEGER PRIMARY KEY, info BLOB NOT NULL, complete INTEGER NOT NULL,
    validated_at REAL NOT NULL, used INTEGER NOT NULL, era INTEGER NOT NULL,
    account BLOB NOT NULL DEFAULT x'');
CREATE TABLE pieces (
    number INTEGER NOT NULL, idx INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL,
    attester TEXT NOT NULL, signature BLOB NOT NULL, era INTEGER NOT NULL,
    PRIMARY KEY (number, idx)) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
"""`era` counts power losses: a piece of an older era than the machine's is suspect. `used` orders a
task's versions, the newest highest. `account`: how its download went (swarm/account.py)."""

_CONTENT_FILE = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}\.\d{1,19}(\.new)?")


def content_name(task: TaskId, version: VersionId, number: int) -> str:
    return f"{task}.{version}.{number}"


def is_content_name(name: str) -> bool:
    """Whether we made a file of that name; others in content/ are left alone."""
    return _CONTENT_FILE.fullmatch(name) is not None


class ReserveRule(Protocol):
    """How much of a file system stays free."""

    def of(self, file_system_bytes: int) -> int: ...


class Reserve(Struct, frozen=True):
    """Disk space that stays free: the larger of a share of the file system and a size."""

    share: float = 0.0
    size_bytes: int = 0

    def of(self, file_system_bytes: int) -> int:
        return max(self.size_bytes, int(self.share * file_system_bytes))


class Space(Struct, frozen=True):
    """A file system's size, and what is free for us on it."""

    total_bytes: int
    free_bytes: int


def lack_of_space(
    needed_bytes: int, space: Space, promised_bytes: int, reserve: ReserveRule, where: Path
) -> str | None:
    """None if that much may be taken; else the sentence that says why not.

    `promised_bytes` were granted to other versions and are not yet taken from the file system.
    """
    reserve_bytes = reserve.of(space.total_bytes)
    if needed_bytes <= space.free_bytes - reserve_bytes - promised_bytes:
        return None
    promised = f" and {format_size(promised_bytes)} promised" if promised_bytes else ""
    return (
        f"no space for {format_size(needed_bytes)} in {where}: {format_size(space.free_bytes)} "
        f"free, {format_size(reserve_bytes)} of it in reserve{promised}; remove something "
        "(peerd task rm), lower --disk-reserve, or choose another --data-dir"
    )
