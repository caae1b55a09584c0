"""What of the journal still stands when a daemon starts. Blocking: for worker threads.

Always: a version is loaded only with its file, a piece only where the file is long enough; what is
not loaded is said in the log and taken out of the journal; content itself is not read.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from peerd.errors import StoreDamaged
from peerd.ids import VersionId
from peerd.store import rows
from peerd.store.layout import content_name
from peerd.store.states import PieceStates
from peerd.store.version import DiskVersion, Shared

log = logging.getLogger(__name__)


def load_versions(shared: Shared, content: Path) -> dict[VersionId, DiskVersion]:
    """By id; repairs are committed when it returns."""
    found: dict[VersionId, DiskVersion] = {}
    repairs: list[rows.Statement] = []
    for row in map(rows.version_row, shared.journal.rows(rows.VERSIONS)):
        stored = _load(shared, content, row, repairs)
        if stored is None:
            repairs += rows.version_gone(row.number)
        elif row.info.version in found:
            raise StoreDamaged(f"the journal names version {row.info.version} twice")
        else:
            found[row.info.version] = stored
    if repairs:
        shared.journal.apply(repairs)
    return found


def _load(
    shared: Shared, content: Path, row: rows.VersionRow, repairs: list[rows.Statement]
) -> DiskVersion | None:
    path = content / content_name(row.info.task, row.info.version, row.number)
    length = row.info.length_bytes
    try:
        with shared.files.open(path, "w") as file:
            size, _ = file.sizes()
            if length is not None and size > length:
                file.truncate(length)
    except FileNotFoundError:
        log.warning("version %s is not held: its file %s is gone", row.info.version[:12], path)
        return None
    except OSError as error:
        raise StoreDamaged(
            f"{path} cannot be opened: {error.strerror}; make it accessible, or remove it "
            "(what it held is then fetched again)"
        ) from error
    states = PieceStates(row.info)
    whole = row.complete and length is not None and size >= length
    if whole and row.era == shared.journal.era:
        states.hold_all()
    else:
        repairs += _load_pieces(shared, row, states, size)
    if row.complete and not states.held.complete():
        row = msgspec.structs.replace(row, complete=False)
        repairs.append(rows.version_complete(row.number, complete=False))
    stored = DiskVersion(shared, path, row, states)
    # A daemon that was killed left writes behind that only the page cache has.
    stored.dirty = not shared.journal.clean
    if length is None:
        stored.has_room_up_to(size)
    elif not row.complete:
        shared.room.promise(path, length)
    return stored


def _load_pieces(
    shared: Shared, row: rows.VersionRow, states: PieceStates, file_size: int
) -> list[rows.Statement]:
    """Holds what fits; returns what takes the others out of the journal."""
    era = shared.journal.era
    listed = shared.journal.rows(rows.PIECES, (row.number,))
    pieces = ((index, size, piece_era < era) for index, size, piece_era in listed)
    lost = states.load(pieces, file_size)
    if lost:
        log.warning("%d pieces of %s lie beyond the file", len(lost), row.info.version[:12])
    return rows.pieces_gone(row.number, lost)
