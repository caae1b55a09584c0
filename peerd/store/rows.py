"""What the journal says, as SQL statements and rows; which of our values stand in which column.

Always: a list of statements is applied as a whole or not at all; what is read back has the type
and bounds of what was written, or it is StoreDamaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from peerd.codec import decode, encode
from peerd.errors import RemoteProtocolError, StoreDamaged
from peerd.ids import TaskId, VersionId
from peerd.manifest import Attestation, VersionInfo
from peerd.task import TaskSpec

SqlValue = str | bytes | int | float | None
Statement = tuple[str, tuple[SqlValue, ...]]
Row = tuple[Any, ...]

VERSIONS: Final = "SELECT number, info, complete, validated_at, used, era FROM versions"
ASKS: Final = "SELECT task, spec FROM asks"
ACCOUNT: Final = "SELECT account FROM versions WHERE number = ?"
COUNTERS: Final = "SELECT name, value FROM counters"
PIECES: Final = "SELECT idx, size, era FROM pieces WHERE number = ?"
ATTESTED: Final = (
    "SELECT idx, digest, attester, signature FROM pieces WHERE number = ? AND idx >= ? AND idx < ?"
)


class VersionRow(Struct, frozen=True):
    number: int
    info: VersionInfo
    complete: bool
    validated_at_wall_s: float
    used: int
    era: int


def version_row(row: Row) -> VersionRow:
    number, info, complete, validated_at, used, era = row
    known = _decoded(info, VersionInfo)
    return VersionRow(number, known, bool(complete), validated_at, used, era)


def spec_row(row: Row) -> tuple[TaskId, TaskSpec]:
    task, spec = row
    return TaskId(task), _decoded(spec, TaskSpec)


def attestation_row(version: VersionId, row: Row) -> Attestation:
    try:
        return msgspec.convert((version, *row), Attestation)
    except msgspec.ValidationError as error:
        raise StoreDamaged(f"an attestation in the journal makes no sense: {error}") from error


def _decoded(data: bytes, kind: Any) -> Any:
    try:
        return decode(data, kind)
    except RemoteProtocolError as error:
        raise StoreDamaged(f"a row of the journal makes no sense: {error}") from error


def ask_kept(task: TaskId, spec: TaskSpec) -> Statement:
    return "INSERT OR REPLACE INTO asks VALUES (?, ?)", (task, encode(spec))


def ask_gone(task: TaskId) -> Statement:
    return "DELETE FROM asks WHERE task = ?", (task,)


def version_made(number: int, info: VersionInfo, used: int, era: int) -> Statement:
    return (
        "INSERT INTO versions VALUES (?, ?, 0, 0.0, ?, ?, x'')",
        (number, encode(info), used, era),
    )


def version_told(number: int, info: VersionInfo) -> Statement:
    return "UPDATE versions SET info = ? WHERE number = ?", (encode(info), number)


def version_used(number: int, used: int) -> Statement:
    return "UPDATE versions SET used = ? WHERE number = ?", (used, number)


def version_complete(number: int, complete: bool) -> Statement:
    return "UPDATE versions SET complete = ? WHERE number = ?", (int(complete), number)


def version_validated(number: int, at_wall_s: float) -> Statement:
    return "UPDATE versions SET validated_at = ? WHERE number = ?", (at_wall_s, number)


def version_account(number: int, account: bytes) -> Statement:
    return "UPDATE versions SET account = ? WHERE number = ?", (account, number)


def version_proven(number: int, era: int) -> Statement:
    """No piece of it is older than `era`."""
    return "UPDATE versions SET era = ? WHERE number = ?", (era, number)


def version_gone(number: int) -> list[Statement]:
    return [
        ("DELETE FROM pieces WHERE number = ?", (number,)),
        ("DELETE FROM versions WHERE number = ?", (number,)),
    ]


def piece_held(number: int, size_bytes: int, made: Attestation, era: int) -> Statement:
    return (
        "INSERT OR REPLACE INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, made.index, size_bytes, made.digest, made.attester, made.signature, era),
    )


def piece_proven(number: int, index: int, era: int) -> Statement:
    return "UPDATE pieces SET era = ? WHERE number = ? AND idx = ?", (era, number, index)


def pieces_gone(number: int, indices: Iterable[int]) -> list[Statement]:
    return [("DELETE FROM pieces WHERE number = ? AND idx = ?", (number, i)) for i in indices]


def counted(name: str, amount: int) -> Statement:
    return (
        "INSERT INTO counters VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, amount),
    )
