"""Who is told of the complete versions that a peer holds."""

from __future__ import annotations

from peerd.rendezvous import ranked
from peerd.scheduler.holdings import PLACES, Directory
from tests.scheduler.world import OPEN_SPEC, TASK, key, version_of

OWN = key(1).peer_id
GROUP = [key(number).peer_id for number in range(1, 30)]
FIRST = ranked(GROUP, TASK, PLACES)


def test_the_first_two_are_told_once_and_again_when_they_forgot() -> None:
    directory = Directory(OWN, "", seed=False)
    directory.hold(version_of(key(1), 4))
    assert {peer for peer, _ in directory.due(GROUP)} == {OWN, *FIRST}
    assert directory.due(GROUP) == []
    directory.lost(FIRST[0])
    assert [peer for peer, _ in directory.due(GROUP)] == [FIRST[0]]
    rest = [peer for peer in GROUP if peer != FIRST[0]]
    assert [peer for peer, _ in directory.due(rest)] == [ranked(rest, TASK, PLACES)[1]]


def test_who_only_its_cell_heard_of_tells_nobody_else() -> None:
    directory = Directory(OWN, "", seed=False)
    directory.hold(version_of(key(1), 4), here_only=True)
    assert [peer for peer, _ in directory.due(GROUP)] == [OWN]
    directory.hold(version_of(key(1), 4))
    assert {peer for peer, _ in directory.due(GROUP)} == {OWN, *FIRST}
    assert directory.drop(TASK) == {OWN, *FIRST}


def test_what_came_last_is_named_first() -> None:
    """Gossip cuts the list where it is too long."""
    directory = Directory(OWN, "", seed=False)
    old, new = version_of(key(1), 4), version_of(key(1), 4, spec=OPEN_SPEC)
    for version in (old, new):
        directory.hold(version)
    assert directory.tasks() == [new.task, old.task]
    directory.hold(old)
    assert directory.tasks() == [old.task, new.task]
