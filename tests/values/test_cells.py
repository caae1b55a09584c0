"""A large group falls into cells by hash, so that no keeper hears of more than some 64."""

from __future__ import annotations

from collections import Counter

import pytest

from peerd import cells
from peerd.ids import PeerId, TaskId

PEERS = [PeerId(f"peer-{number}") for number in range(10_000)]
TASK = TaskId("a" * 64)


@pytest.mark.parametrize("members", [1, 64, 65, 100, 1_000, 3_000, 10_000])
def test_no_keeper_hears_of_many_more_than_64(members: int) -> None:
    bits = cells.bits_for(members)
    narrow = Counter(cells.path(peer, bits)[:1] for peer in PEERS[:members])
    assert max(narrow.values()) <= cells.FAN_IN_MAX * 1.15, "by chance a few more"
    while bits:
        wider = cells.wider_bits(bits)
        delegates = cells.delegates("0" * bits) << (bits - wider)
        assert delegates == cells.FAN_IN_MAX // 2, "those of two views fill it"
        bits = wider


def test_a_small_group_has_no_cells() -> None:
    assert cells.bits_for(64) == 0
    assert cells.path(PEERS[0], 0) == ()


def test_cells_nest_and_everybody_lies_in_its_own() -> None:
    for peer in PEERS[:50]:
        path = cells.path(peer, 8)
        assert [len(cell) for cell in path] == [8, 3]
        assert path[0].startswith(path[1])
        assert all(cells.lies_in(peer, "eu/ams", cells.scope_of("eu", cell)) for cell in path)
        assert not cells.lies_in(peer, "us", cells.scope_of("eu", path[0]))


def test_a_group_near_a_bound_does_not_change_its_cells_again_and_again() -> None:
    bits = cells.bits_for(89)
    assert bits == 2
    for members in (95, 80, 70, 62):
        assert cells.bits_for(members, bits) == bits, "until they are much too small"
    assert cells.bits_for(59, bits) < bits


@pytest.mark.parametrize("scope", ["#", "eu#2", "eu#" + "0" * 25, "#0#1"])
def test_what_names_no_cell_is_refused(scope: str) -> None:
    with pytest.raises(ValueError, match="no cell"):
        cells.split(scope)


def test_seats_differ_by_cell_and_the_whole_has_its_own() -> None:
    assert cells.cell_seat(TASK, "") == TASK
    assert len({cells.cell_seat(TASK, cell) for cell in ("0", "1", "01", "10")}) == 4
