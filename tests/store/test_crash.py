"""Power loss and kill -9 at every instant of a run: what is believed afterwards is true.

After power loss the journal may be any that was there since its last sync, and of the data any part
that was not synced may be missing. After kill -9 all is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import blake3
import pytest

from peerd.ids import PieceIndex, VersionId
from peerd.store.disk import DiskStore
from peerd.store.version import DiskVersion
from tests.store.crashing import CrashingFiles, Instant, Recorder
from tests.store.helper import BOOT, OTHER, ask_of, attested, info_of, put, read, write

PIECE = 64
A = info_of("a", length=4 * PIECE + 7, piece=PIECE)
B = info_of("b", length=None, piece=PIECE)
B_ENDED = info_of("b", length=2 * PIECE + 5, piece=PIECE)
C = info_of("c", length=PIECE, piece=PIECE)


@dataclass
class Run:
    """What happened up to each instant: which pieces had been acknowledged and not dropped."""

    recorder: Recorder
    acknowledged: set[tuple[VersionId, int]] = field(default_factory=set)
    history: list[frozenset[tuple[VersionId, int]]] = field(default_factory=list)

    def note(self) -> None:
        """An operation is over: instants since the last note had the state before it."""
        while len(self.history) < len(self.recorder.instants):
            self.history.append(frozenset(self.acknowledged))
        self.recorder.step()
        self.history.append(frozenset(self.acknowledged))

    async def put(self, stored: DiskVersion, index: int, fill: int, size: int = PIECE) -> None:
        data = bytes([fill]) * size
        await write(stored, index, data)
        made = attested(stored.info, index, data, OTHER)
        await stored.acknowledge(PieceIndex(index), made)
        self.note()
        self.acknowledged.add((stored.info.version, index))
        self.note()

    async def drop(self, stored: DiskVersion, index: int) -> None:
        self.note()
        self.acknowledged.discard((stored.info.version, index))
        await stored.drop([PieceIndex(index)])
        self.note()


async def script(run: Run, data_dir: Path, files: CrashingFiles) -> None:
    """All that a store does, twice opened, with pieces written over after the clean stop."""
    async with DiskStore.open(data_dir, boot_id=BOOT, files=files) as store:
        run.recorder.synced()
        a = await store.create(ask_of(), A)
        for index in (2, 0, 1):
            await run.put(a, index, 10 + index)
        b = await store.create(ask_of(), B)
        await run.put(b, 1, 21)
        await run.put(b, 0, 20)
        await run.drop(a, 1)
        await run.put(a, 1, 31)
        await run.put(b, 2, 22, 5)
        await b.set_info(B_ENDED)
        run.note()
        await b.finish()
        run.note()
        c = await store.create(ask_of(), C)
        await run.put(c, 0, 40)
        run.acknowledged.discard((C.version, 0))
        await store.remove(C.version)
        run.note()
    run.note()
    async with DiskStore.open(data_dir, boot_id=BOOT, files=files) as store:
        run.recorder.synced()
        stored = store.find(A.version)
        assert stored is not None
        await run.drop(stored, 0)
        await run.put(stored, 0, 50)
        await run.put(stored, 3, 53)
        await run.put(stored, 4, 54, 7)
        await stored.finish()
        await run.drop(stored, 2)
        await run.put(stored, 2, 62)
        run.note()


async def recorded(directory: Path) -> tuple[CrashingFiles, Run]:
    files = CrashingFiles()
    run = Run(Recorder(files, directory))
    await script(run, directory, files)
    return files, run


def is_right(stored: DiskVersion, index: PieceIndex) -> bool:
    made = stored.attestation(index)
    assert made is not None
    size = stored.states.size_of(index)
    return blake3.blake3(read(stored, index, size)).digest() == made.digest


async def believed_is_true(run: Run, instant: Instant, where: Path, seed: int) -> tuple[int, int]:
    """Power comes back. Returns how many suspect pieces were right, and how many were damaged."""
    rng = Random(seed)
    journal = run.recorder.journals[rng.randint(instant.oldest, instant.newest)]
    run.recorder.lay_out(journal, where)
    files = CrashingFiles(instant.disk.after_crash(rng))
    right = damaged = 0
    async with DiskStore.open(where, boot_id="the second boot", files=files) as store:
        for stored in store.versions():
            suspect = stored.suspect
            for index in stored.held:
                if index in suspect and not await stored.check(index):
                    damaged += 1
                    assert index not in stored.held
                    continue
                right += index in suspect
                assert is_right(stored, index), f"seed {seed}: piece {index} of {stored}"
            await goes_on(stored)
    return right, damaged


async def goes_on(stored: DiskVersion) -> None:
    """The download ends right, whatever was lost."""
    if stored.info.length_bytes is None:
        return
    for index in stored.held.missing():
        await put(stored, index, bytes([index]) * stored.info.span(index)[1])
    await stored.finish()
    assert stored.complete
    assert all(is_right(stored, index) for index in stored.held)


async def power_loss(fast_path: Path, seeds: int) -> None:
    _, run = await recorded(fast_path / "run")
    assert len(run.recorder.instants) > 50
    right = damaged = 0
    for number, instant in enumerate(run.recorder.instants):
        for seed in range(seeds):
            where = fast_path / f"{number}-{seed}"
            sums = await believed_is_true(run, instant, where, number * 1000 + seed)
            right, damaged = right + sums[0], damaged + sums[1]
    assert right > 0
    assert damaged > 0, "the crashes did no damage: this test tests nothing"


async def test_power_loss_at_every_instant(fast_path: Path) -> None:
    await power_loss(fast_path, seeds=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_power_loss_at_every_instant_in_many_ways(fast_path: Path) -> None:
    await power_loss(fast_path, seeds=20)


async def test_kill_at_every_instant_loses_nothing(fast_path: Path) -> None:
    _, run = await recorded(fast_path / "run")
    for number, instant in enumerate(run.recorder.instants):
        where = fast_path / str(number)
        run.recorder.lay_out(run.recorder.journals[instant.newest], where)
        files = CrashingFiles(instant.disk.after_kill())
        async with DiskStore.open(where, boot_id=BOOT, files=files) as store:
            for version, index in run.history[number]:
                stored = store.find(version)
                assert stored is not None, f"instant {number}"
                assert index in stored.held, f"instant {number}: piece {index} of {stored}"
            for stored in store.versions():
                assert not stored.suspect
                assert all(is_right(stored, index) for index in stored.held)


async def test_a_clean_stop_leaves_nothing_to_doubt(fast_path: Path) -> None:
    """All data was synced before the journal said so: power loss afterwards costs nothing."""
    files, run = await recorded(fast_path / "run")
    where = fast_path / "after"
    run.recorder.step()
    run.recorder.lay_out(run.recorder.journals[-1], where)
    survivors = CrashingFiles(files.disk.after_crash(Random(1)))
    async with DiskStore.open(where, boot_id="the second boot", files=survivors) as store:
        held = {(s.info.version, i) for s in store.versions() for i in s.held}
        assert held == run.acknowledged
        for stored in store.versions():
            assert not stored.suspect
            assert all(is_right(stored, index) for index in stored.held)
