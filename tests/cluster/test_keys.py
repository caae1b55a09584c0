"""The identity on disk: made once, private, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.cluster.keys import (
    KEY_FILE,
    load_or_make_key,
    open_data_dir,
)
from peerd.errors import StoreDamaged, UsageError


def test_the_identity_is_made_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "peerd"
    open_data_dir(home)
    key = load_or_make_key(home)
    assert load_or_make_key(home).peer_id == key.peer_id
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_could_read_is_closed(tmp_path: Path) -> None:
    load_or_make_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    load_or_make_key(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_key_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(StoreDamaged, match="move it away"):
        load_or_make_key(tmp_path)


def test_a_data_directory_that_cannot_be_made_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--data-dir"):
        open_data_dir(tmp_path / "file" / "peerd")
