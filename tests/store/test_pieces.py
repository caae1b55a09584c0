"""The pure parts: states of pieces, writes that cross, names, and the reserve."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import RemoteProtocolError
from peerd.store.layout import (
    Reserve,
    Space,
    content_name,
    is_content_name,
    lack_of_space,
)
from peerd.store.states import PieceStates, check_successor
from peerd.store.writes import Writes
from tests.store.helper import info_of

LENGTHS = st.none() | st.integers(0, 100)


@given(
    before=LENGTHS, after=LENGTHS, piece=st.integers(1, 20), other=st.integers(1, 20),
    wanted=st.sets(st.tuples(st.integers(0, 12), st.integers(1, 20))), suspect=st.booleans(),
)  # fmt: skip
def test_a_reshaped_version_holds_what_still_fits(
    before: int | None, after: int | None, piece: int, other: int,
    wanted: set[tuple[int, int]], suspect: bool,
) -> None:  # fmt: skip
    states = PieceStates(info_of(length=before, piece=piece))
    for index, size in sorted(wanted):
        if states.fits(index, size):
            states.hold(index, size, suspect=suspect)
            states.validate()
    sizes = {index: states.size_of(index) for index in states.held}
    assert states.held_bytes() == sum(sizes.values())
    gone = states.reshape(info_of(length=after, piece=other))
    states.validate()
    assert set(gone) | set(states.held) == set(sizes)
    if piece != other:
        assert not states.held
    if (before, piece) == (after, other):
        assert not gone
    if after is None:
        assert states.held.count == states.held.end()
    else:
        assert states.held.count == -(-after // other)


def test_all_of_a_complete_version_is_held_without_a_list() -> None:
    states = PieceStates(info_of(length=1000, piece=256))
    states.hold_all()
    states.validate()
    assert states.held_bytes() == 1000
    assert states.size_of(3) == 232


def test_suspicion_ends_by_proof_or_by_a_new_copy() -> None:
    states = PieceStates(info_of(length=1000, piece=256))
    states.hold_all()
    states.suspect_all()
    states.prove(1)
    assert list(states.suspect) == [0, 2, 3]
    states.drop([0])
    states.hold(0, 256)
    assert list(states.suspect) == [2, 3]


def test_a_successor_has_bounds() -> None:
    info = info_of(length=1000, piece=1)
    with pytest.raises(RemoteProtocolError, match="pieces"):
        check_successor(info, msgspec.structs.replace(info, length_bytes=1 << 40), complete=False)
    other = msgspec.structs.replace(info, digest="sha256:" + "0" * 64)
    with pytest.raises(RemoteProtocolError, match="another content"):
        check_successor(info, other, complete=False)


def test_names_are_told_from_others() -> None:
    info = info_of()
    name = content_name(info.task, info.version, 7)
    assert is_content_name(name)
    assert is_content_name(f"{name}.new")
    assert len(name) < 255
    for other in ("", "a", f"{name}.old", f"../{name}", name.upper(), f"{info.task}.7"):
        assert not is_content_name(other)


def test_the_reserve_is_the_larger_of_share_and_size() -> None:
    assert Reserve().of(1000) == 0
    assert Reserve(share=0.1).of(1000) == 100
    assert Reserve(share=0.1, size_bytes=200).of(1000) == 200


def test_space_is_what_is_free_less_reserve_and_promises() -> None:
    space, reserve, where = Space(1000, 500), Reserve(share=0.1), Path("/data")
    assert lack_of_space(300, space, 100, reserve, where) is None
    lack = lack_of_space(301, space, 100, reserve, where)
    assert lack is not None
    assert "no space for 301 B in /data: 500 B free, 100 B of it in reserve and 100 B" in lack
    assert lack_of_space(400, space, 0, reserve, where) is None


# --- writes that cross


def test_a_single_write_needs_no_hash() -> None:
    writes = Writes(lambda index: False)
    assert writes.begin(0, 5)
    writes.end(0, done=True)
    assert writes.freeze(0) == (5, False)


def test_a_second_write_a_failed_one_or_one_under_way_does() -> None:
    writes = Writes(lambda index: False)
    for _ in range(2):
        writes.begin(0, 5)
        writes.end(0, done=True)
    writes.begin(1, 5)
    writes.end(1, done=False)
    writes.begin(2, 5)
    assert [writes.freeze(index) for index in (0, 1, 2)] == [(5, True)] * 3


def test_a_write_refused_while_frozen_makes_the_next_acknowledgement_look() -> None:
    """The first acknowledgement failed: the second one's bytes are not those in the file."""
    writes = Writes(lambda index: False)
    writes.begin(0, 5)
    writes.end(0, done=True)
    writes.freeze(0)
    assert not writes.begin(0, 5)
    writes.thaw(0, acknowledged=False)
    assert writes.freeze(0) == (5, True)


def test_waiting_for_the_writer_of_a_frozen_piece() -> None:
    writes = Writes(lambda index: False)
    writes.begin(0, 5)
    writes.freeze(0)
    waiter = threading.Thread(target=writes.wait, args=(0,))
    waiter.start()
    writes.end(0, done=True)
    waiter.join(5)
    assert not waiter.is_alive()


def test_forgotten_writes_do_not_count_and_their_writers_do_no_harm() -> None:
    writes = Writes(lambda index: False)
    writes.begin(0, 5)
    writes.begin(1, 5)
    writes.end(1, done=True)
    writes.forget([0, 1])
    writes.end(0, done=True)
    assert writes.freeze(0) == (5, True)
    assert writes.freeze(1) is None


def test_closed_to_writers() -> None:
    writes = Writes(lambda index: False)
    writes.close()
    with pytest.raises(FileNotFoundError):
        writes.begin(0, 5)


def test_held_is_left_alone() -> None:
    assert not Writes(lambda index: True).begin(0, 5)
