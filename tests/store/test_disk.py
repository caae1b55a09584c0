"""What only the store on disk does: restarts, damage, locks, power loss."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from peerd.errors import StoreDamaged, UsageError
from peerd.ids import PieceIndex
from peerd.store.files import FLAGS, DiskFile, DiskFiles
from peerd.store.layout import CONTENT_NAME, JOURNAL_NAME
from peerd.store.version import DiskVersion
from tests.store.helper import (
    BOOT,
    ask_of,
    attested,
    content,
    info_of,
    only,
    opened,
    piece,
    put,
    put_all,
    read,
    write,
)


async def filled(directory: Path) -> DiskVersion:
    """A store with one complete version of four pieces, stopped cleanly."""
    async with opened(directory) as store:
        stored = await store.create(ask_of(), info_of())
        await put_all(stored)
        await stored.finish()
        return stored


# --- restarts


async def test_all_is_there_after_a_restart(fast_path: Path) -> None:
    open_ended = info_of("b", length=None, piece=256)
    async with opened(fast_path) as store:
        a = await store.create(ask_of(), info_of("a"))
        await put_all(a)
        await a.finish()
        b = await store.create(ask_of("b"), open_ended)
        await put(b, 0, bytes(256))
        await put(b, 5, bytes(3))
        await store.set_validated(a.info.version, 99.5)
        await store.add_counters({"origin_bytes": 3})
    async with opened(fast_path) as store:
        b, a = store.versions()
        assert (a.info, a.complete, a.held.complete()) == (info_of("a"), True, True)
        assert read(a, 3, 232) == content(info_of("a"))[768:]
        assert (b.info, b.complete, list(b.held)) == (open_ended, False, [0, 5])
        assert read(b, 5, 3) == bytes(3)
        assert a.attestation(PieceIndex(1)) == attested(
            a.info, 1, piece(a.info, 1, content(a.info))
        )
        assert store.validated_at(a.info.version) == 99.5
        assert store.counters() == {"origin_bytes": 3}
        ask = store.asked(a.info.task)
        assert ask is not None
        assert ask.spec == ask_of("b").spec
        assert ask.credentials == ()
        assert not a.suspect


async def test_credentials_are_nowhere_in_the_data_directory(fast_path: Path) -> None:
    async with opened(fast_path) as store:
        await store.create(ask_of(), info_of())
        for path in fast_path.iterdir():
            assert path.is_dir() or b"secret" not in path.read_bytes()


async def test_removed_stays_removed_and_its_number_is_not_its_files(fast_path: Path) -> None:
    async with opened(fast_path) as store:
        await store.create(ask_of(), info_of())
        await store.remove(info_of().version)
        again = await store.create(ask_of(), info_of())
        await put(again, 2)
    async with opened(fast_path) as store:
        assert list((await only(store)).held) == [2]
        await store.remove(info_of().version)
    async with opened(fast_path) as store:
        assert store.versions() == []
    assert list((fast_path / CONTENT_NAME).iterdir()) == []


async def test_directories_and_files_are_the_owners_alone(fast_path: Path) -> None:
    await filled(fast_path / "new" / "data")
    for path in (fast_path / "new" / "data").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path.name.startswith(f"{JOURNAL_NAME}-"), path
    assert stat.S_IMODE((fast_path / "new" / "data").stat().st_mode) == 0o700


async def test_a_directory_that_was_open_to_others_is_closed(fast_path: Path) -> None:
    (fast_path / "data").mkdir(mode=0o755)
    await filled(fast_path / "data")
    assert stat.S_IMODE((fast_path / "data").stat().st_mode) == 0o700


async def test_leftovers_of_a_crash_are_swept_and_other_files_are_not(fast_path: Path) -> None:
    stored = await filled(fast_path)
    ours = [stored.path.name[:-1] + "7", stored.path.name[:-1] + "8.new"]
    theirs = ["notes.txt", "lost+found"]
    for name in ours + theirs:
        (fast_path / CONTENT_NAME / name).touch()
    async with opened(fast_path):
        assert sorted(os.listdir(fast_path / CONTENT_NAME)) == sorted([stored.path.name, *theirs])


# --- damage


async def test_a_missing_file_is_a_version_that_is_not_held(
    fast_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = await filled(fast_path)
    stored.path.unlink()
    async with opened(fast_path) as store:
        assert store.versions() == []
        assert "is gone" in caplog.text
        again = await store.create(ask_of(), info_of())
        await put_all(again)
    async with opened(fast_path) as store:
        assert (await only(store)).held.complete()


async def test_a_short_file_keeps_the_pieces_that_it_has(
    fast_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = await filled(fast_path)
    os.truncate(stored.path, 600)
    async with opened(fast_path) as store:
        again = await only(store)
        assert list(again.held) == [0, 1]
        assert not again.complete
        assert "beyond the file" in caplog.text
        await put_all(again)
        await again.finish()
    async with opened(fast_path) as store:
        assert (await only(store)).complete
    assert stored.path.read_bytes() == content(info_of())


async def test_a_file_that_became_a_link_is_refused(fast_path: Path) -> None:
    stored = await filled(fast_path)
    stored.path.unlink()
    stored.path.symlink_to("/etc/passwd")
    with pytest.raises(StoreDamaged, match="cannot be opened"):
        await filled(fast_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database, not at all" * 200),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(8192)),
        lambda path: path.unlink(),
    ],
    ids=["garbage", "empty", "cut", "spoilt", "gone"],
)
async def test_a_damaged_journal_is_refused_and_left_alone(
    fast_path: Path, damage: Callable[[Path], object]
) -> None:
    stored = await filled(fast_path)
    path = fast_path / JOURNAL_NAME
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreDamaged, match=r"journal\.db cannot be used: .* move .* away"):
        await filled(fast_path)
    assert (path.read_bytes() if path.exists() else None) == before
    assert stored.path.read_bytes() == content(info_of())


async def test_a_journal_of_a_newer_peerd_is_refused(fast_path: Path) -> None:
    await filled(fast_path)
    with sqlite3.connect(fast_path / JOURNAL_NAME) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StoreDamaged, match="schema 99"):
        await filled(fast_path)


async def test_rows_that_make_no_sense_are_refused(fast_path: Path) -> None:
    await filled(fast_path)
    with sqlite3.connect(fast_path / JOURNAL_NAME) as connection:
        connection.execute("UPDATE asks SET spec = x'00'")
    with pytest.raises(StoreDamaged, match="makes no sense"):
        await filled(fast_path)


async def test_a_refused_store_can_be_opened_once_it_is_repaired(fast_path: Path) -> None:
    """A refusal leaves no lock behind."""
    await filled(fast_path)
    path = fast_path / JOURNAL_NAME
    good = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(StoreDamaged):
        await filled(fast_path)
    path.write_bytes(good)
    async with opened(fast_path) as store:
        assert (await only(store)).complete


# --- one daemon


async def test_a_second_daemon_is_refused_with_the_pid_of_the_first(fast_path: Path) -> None:
    async with opened(fast_path):
        with pytest.raises(StoreDamaged, match=rf"pid {os.getpid()}\) uses {fast_path}"):
            await filled(fast_path)
    await filled(fast_path)


async def test_a_data_directory_that_cannot_be_made(fast_path: Path) -> None:
    (fast_path / "file").touch()
    with pytest.raises(UsageError, match="choose another --data-dir"):
        await filled(fast_path / "file" / "data")


# --- power loss


async def crashed(directory: Path, copy: Path) -> None:
    """What a kill leaves of a running store."""
    subprocess.run(["cp", "-r", "--sparse=always", directory, copy], check=True)


async def test_after_power_loss_pieces_are_checked_on_first_use(fast_path: Path) -> None:
    async with opened(fast_path / "a") as store:
        stored = await store.create(ask_of(), info_of())
        await put_all(stored)
        await stored.finish()
        await crashed(fast_path / "a", fast_path / "b")
    copy = fast_path / "b" / CONTENT_NAME / stored.path.name
    with copy.open("r+b") as file:
        file.seek(300)
        file.write(b"bit rot")
    async with opened(fast_path / "b", boot="another") as store:
        again = await only(store)
        assert again.suspect == again.held
        assert again.complete
        with pytest.raises(StoreDamaged, match="power loss"):
            again.descriptor()
        with pytest.raises(OSError, match="not checked"):
            read(again, 0, 256)
        assert await again.check(PieceIndex(0))
        assert read(again, 0, 256) == content(info_of())[:256]
        assert not await again.check(PieceIndex(1))
        assert list(again.held) == [0, 2, 3]
        await again.prove()
        assert not again.suspect
        with pytest.raises(ValueError):
            again.descriptor()
        await put(again, 1)
        await again.finish()
        os.close(again.descriptor())


async def test_suspicion_survives_a_clean_stop_and_ends_with_the_proof(fast_path: Path) -> None:
    async with opened(fast_path / "a") as store:
        stored = await store.create(ask_of(), info_of())
        await put_all(stored)
        await stored.finish()
        await crashed(fast_path / "a", fast_path / "b")
    async with opened(fast_path / "b", boot="another") as store:
        again = await only(store)
        assert await again.check(PieceIndex(2))
    async with opened(fast_path / "b", boot="another") as store:
        again = await only(store)
        assert list(again.suspect) == [0, 1, 3]
        await again.prove()
    async with opened(fast_path / "b", boot="a third") as store:
        assert not (await only(store)).suspect


@pytest.mark.parametrize(("boot", "suspect"), [(BOOT, False), ("another", True), ("", True)])
async def test_only_an_unclean_stop_and_another_boot_make_suspect(
    fast_path: Path, boot: str, suspect: bool
) -> None:
    async with opened(fast_path / "a") as store:
        stored = await store.create(ask_of(), info_of())
        await put_all(stored)
        await crashed(fast_path / "a", fast_path / "b")
    async with opened(fast_path / "b", boot=boot) as store:
        assert bool((await only(store)).suspect) == suspect
    async with opened(fast_path / "a", boot="another") as store:
        assert not (await only(store)).suspect


async def test_data_that_does_not_sync_makes_no_clean_stop(fast_path: Path) -> None:
    class NoSync(DiskFiles):
        def sync_directory(self, directory: Path) -> None:
            raise OSError(5, "Input/output error")

    async with opened(fast_path, files=NoSync()) as store:
        await put_all(await store.create(ask_of(), info_of()))
    async with opened(fast_path, boot="another") as store:
        assert (await only(store)).suspect


async def test_what_a_killed_daemon_wrote_is_synced_before_the_next_clean_stop(
    fast_path: Path,
) -> None:
    """Its bytes may be in the page cache only: a clean stop vouches for them too."""
    synced: list[Path] = []

    class Counting(DiskFiles):
        def open(self, path: Path, mode: str) -> DiskFile:
            return CountingFile(path, FLAGS[mode])

    class CountingFile(DiskFile):
        def __init__(self, path: Path, flags: int) -> None:
            super().__init__(path, flags)
            self.path = path

        def sync(self) -> None:
            synced.append(self.path)

    async with opened(fast_path / "a") as store:
        await put(await store.create(ask_of(), info_of()), 0)
        await crashed(fast_path / "a", fast_path / "b")
    async with opened(fast_path / "b", files=Counting()) as store:
        path = (await only(store)).path
    assert synced == [path]
    async with opened(fast_path / "b", files=Counting()):
        pass
    assert synced == [path]


# --- writers that cross each other


async def test_a_caller_that_gives_up_leaves_the_store_whole(fast_path: Path) -> None:
    """Cancelled in mid-acknowledgement, the piece is held or not; the next caller is served."""
    async with opened(fast_path) as store:
        stored = await store.create(ask_of(), info_of(length=64 * 50, piece=64))
        for index in range(50):
            data = piece(stored.info, index, content(stored.info))
            await write(stored, index, data)
            with trio.CancelScope() as scope:
                scope.cancel() if index % 2 else None
                await stored.acknowledge(PieceIndex(index), attested(stored.info, index, data))
        await put_all(stored)
        await stored.finish()
    async with opened(fast_path) as store:
        assert (await only(store)).complete


async def test_a_drop_waits_for_the_acknowledgement_that_is_under_way(fast_path: Path) -> None:
    async with opened(fast_path) as store:
        stored = await store.create(ask_of(), info_of(length=64 * 50, piece=64))
        for index in map(PieceIndex, range(50)):
            data = piece(stored.info, index, content(stored.info))
            await write(stored, index, data)
            async with trio.open_nursery() as nursery:
                made = attested(stored.info, index, data)
                nursery.start_soon(stored.acknowledge, index, made)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(stored.drop, [index])
        assert not stored.held
    async with opened(fast_path) as store:
        assert not (await only(store)).held


async def test_a_removal_in_the_middle_of_writes(fast_path: Path) -> None:
    async with opened(fast_path) as store:
        stored = await store.create(ask_of(), info_of(length=64 * 50, piece=64))

        async def attempt(index: int) -> None:
            try:
                await put(stored, index)
            except FileNotFoundError:
                pass

        async with trio.open_nursery() as nursery:
            for index in range(50):
                nursery.start_soon(attempt, index)
            await store.remove(stored.info.version)
        assert not stored.held
        assert store.versions() == []
    async with opened(fast_path) as store:
        assert store.versions() == []
