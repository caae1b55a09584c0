"""This peer's identity on disk: an Ed25519 seed.

Always: the data directory is 0700 and the key file 0600; the key is written whole or not at all.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from peerd.errors import StoreDamaged, UsageError
from peerd.signing import SigningKey

log = logging.getLogger(__name__)

KEY_FILE: Final = "identity.key"


def open_data_dir(path: Path) -> None:
    """Makes the directory, for this user only. UsageError if it cannot be made or used."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.geteuid():
            path.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"the data directory {path} cannot be used ({error.strerror}); "
            "name another with --data-dir"
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"{path} belongs to somebody else; name another with --data-dir")


def load_or_make_key(data_dir: Path) -> SigningKey:
    """The identity of this data directory, made on first use. StoreDamaged if it is no key."""
    path = data_dir / KEY_FILE
    if not path.exists():
        _write_private(path, os.urandom(32))
        log.info("made a new identity in %s", path)
    if path.stat().st_mode & 0o077:
        log.warning("%s was readable for others; now it is not", path)
        path.chmod(0o600)
    seed = path.read_bytes()
    if len(seed) != 32:
        raise StoreDamaged(
            f"{path} is no identity of peerd ({len(seed)} bytes, not 32); "
            "restore it, or move it away to begin as a new peer"
        )
    return SigningKey(seed)


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, 0600, durable."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
