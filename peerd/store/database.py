"""Opening the journal's database: made once, as a whole; refused with words when it is not ours.

Always: a database that is there is never replaced or repaired; a new one appears by rename, with
its tables in it. Blocking: for worker threads.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

from peerd.errors import NoSpace, PeerdError, StoreDamaged, UsageError
from peerd.store.layout import (
    CONTENT_NAME,
    DIRECTORY_MODE,
    FILE_MODE,
    JOURNAL_NAME,
    LOCK_NAME,
    NEW_SUFFIX,
    SCHEMA,
    SCHEMA_VERSION,
)

APPLICATION_ID: Final = 0x70656572
""" "peer": SQLite keeps it in the header, and `file` shows it."""
BUSY_MAX_S: Final = 5.0
"""SQLite's own lock, held by a backup tool at most; the daemon's lock keeps other daemons out."""
WAL_KEPT_MAX_BYTES: Final = 16 << 20
"""What is left of the write-ahead log after a checkpoint. Guess: four automatic checkpoints."""


def prepare_directory(data_dir: Path) -> None:
    """Makes it and content/, 0700; UsageError says why it cannot."""
    try:
        data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        (data_dir / CONTENT_NAME).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for directory in (data_dir, data_dir / CONTENT_NAME):
            if directory.stat().st_mode & 0o777 != DIRECTORY_MODE:
                directory.chmod(DIRECTORY_MODE)
    except OSError as error:
        raise UsageError(
            f"the data directory {data_dir} cannot be used: {error.strerror}; "
            "choose another --data-dir, or run as its owner"
        ) from error


def lock_directory(data_dir: Path) -> int:
    """A descriptor that holds the directory until it is closed; StoreDamaged names who has it."""
    path = data_dir / LOCK_NAME
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreDamaged(
            f"another daemon (pid {owner}) uses {data_dir}; stop it, or choose another --data-dir"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"the file system of {data_dir} cannot lock files: {error.strerror}; "
            "choose another --data-dir"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def open_database(data_dir: Path) -> sqlite3.Connection:
    """The journal's database, made if there is none and nothing that it would have to know of."""
    path = data_dir / JOURNAL_NAME
    try:
        if not path.exists():
            _make(path)
        connection = connect(path)
        try:
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection
    except sqlite3.Error as error:
        raise as_ours(error, path) from error


def connect(path: Path) -> sqlite3.Connection:
    """To an existing database; used by one thread at a time."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_MAX_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_MAX_BYTES}")
    return connection


def as_ours(error: sqlite3.Error, path: Path) -> PeerdError:
    """The same in our words: the disk is full, or the journal cannot be used."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return NoSpace(f"no space for the journal {path}; remove something (peerd task rm)")
    return _damaged(path, str(error))


def _make(path: Path) -> None:
    content = path.with_name(CONTENT_NAME)
    wal = path.with_name(f"{JOURNAL_NAME}-wal")
    if wal.exists() or any(content.iterdir()):
        raise _damaged(path, f"it is gone, but {wal if wal.exists() else content} is there")
    new = path.with_name(JOURNAL_NAME + NEW_SUFFIX)
    for suffix in ("", "-wal", "-shm"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    connection = connect(new)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.executescript(f"BEGIN; {SCHEMA} INSERT INTO machine VALUES (0, '', 1); COMMIT;")
    connection.close()
    _sync(new)
    os.rename(new, path)
    _sync(path.parent)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise _damaged(path, "it is not a journal of peerd")
    if schema != SCHEMA_VERSION:
        raise _damaged(path, f"it has schema {schema}, this peerd knows {SCHEMA_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, str(verdict))
    if len(connection.execute("SELECT * FROM machine").fetchall()) != 1:
        raise _damaged(path, "it does not say which machine it was written on")


def _damaged(path: Path, why: str) -> StoreDamaged:
    return StoreDamaged(
        f"the journal {path} cannot be used: {why}; restore it, or move {path.parent} away and "
        "start anew (what it held is then fetched again)"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
