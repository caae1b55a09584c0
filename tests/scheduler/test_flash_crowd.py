"""Many start at once and nobody has announced anything: the origin is read once."""

from __future__ import annotations

import pytest

from peerd.scheduler.keeper_events import KeeperConfig
from tests.scheduler.world import Origin, World

NO_AUDITS = KeeperConfig(audit_share=0.0)


@pytest.mark.parametrize("ranged", [True, False])
def test_64_peers_within_a_second_read_one_copy(ranged: bool) -> None:
    world = World(1, 64, Origin(256, ranged=ranged), config=NO_AUDITS, checked=False)
    for peer in world.peers.values():
        world.at(world.rng.random(), peer.get)
    world.run(1.0)
    world.run(120.0, world.all_done)
    assert all(peer.complete for peer in world.peers.values())
    assert len(world.origin.reads) == 256
    assert len(world.keepers()) == 1
    assert world.protocol_errors == []


@pytest.mark.parametrize("seed", range(3))
def test_even_while_all_of_them_are_only_joining(seed: int) -> None:
    """Every peer starts within the same second, and hears of each other 0.5 s late.

    The keeper changes hands several times meanwhile; by the formula of reference/peers.md, a
    choice by what each had heard would read the origin about 32 times.
    """
    world = World(seed, 64, Origin(256), config=NO_AUDITS, checked=False)
    joined = {number: world.rng.random() for number in world.views}

    def seen() -> set[int]:
        return {number for number, at in joined.items() if at <= world.now - 0.5}

    def synced(number: int) -> None:
        for other in {number} | seen():
            world.see(other, seen())
        world[number].get()

    for number, at in joined.items():
        world.see(number, {number})
        world[number].view({number}, synced=False)
        world.at(at + 0.5, lambda number=number: synced(number))  # type: ignore[misc]
    world.run(1.5)
    world.run(120.0, world.all_done)
    assert all(peer.complete for peer in world.peers.values())
    assert world.copies() <= 1.02
    assert len(world.keepers()) == 1


def test_a_newcomer_reads_nothing() -> None:
    world = World(1, 5, Origin(64), config=NO_AUDITS)
    for number in range(1, 5):
        world[number].get()
    world.run(1.0)
    world.run(60.0, world.all_done)
    world.run(5.0)
    before = len(world.origin.reads)
    world[5].get()
    world.run(1.0)
    world.run(60.0, world.all_done)
    assert world[5].complete
    assert len(world.origin.reads) == before == 64


@pytest.mark.parametrize("place", [0, 1])
def test_the_keeper_dies_and_no_piece_is_read_twice_but_its_own(place: int) -> None:
    world = World(3, 8, Origin(128), config=NO_AUDITS)
    world.read_cost_s = 0.2
    for peer in world.peers.values():
        peer.get()
    world.run(2.0)
    (keeper,) = world.keepers()
    order = [p for p in world.peers.values() if p is not keeper]
    dead = keeper if place == 0 else order[0]
    world.crash(dead.number)
    world.run(1.0)
    world.run(120.0, world.all_done)
    assert all(peer.complete for peer in world.peers.values() if peer.alive)
    # What the dead one alone held, or was reading, is read again.
    assert world.twice() <= 8


def test_two_halves_of_a_partition_read_a_copy_each_and_then_have_one_keeper() -> None:
    world = World(5, 8, Origin(64), config=NO_AUDITS)
    halves = [{1, 2, 3, 4}, {5, 6, 7, 8}]
    world.cut(*halves)
    for half in halves:
        for number in half:
            world.see(number, half)
            world[number].get()
    world.run(1.0)
    world.run(60.0, world.all_done)
    assert world.all_done()
    assert len(world.keepers()) == 2
    assert world.copies() <= 2.0
    world.heal()
    for number in range(1, 9):
        world.see(number, range(1, 9))
    world.run(6.0)
    assert len(world.keepers()) == 1


def test_nobody_can_read_and_all_hear_why() -> None:
    from peerd.link.messages import Outcome

    world = World(5, 6, Origin(64))
    world.origin.error = (Outcome.FAILED, "origin-not-found")
    for peer in world.peers.values():
        peer.get()
    world.run(10.0)
    assert {peer.failed for peer in world.peers.values()} == {("origin-not-found",) * 2}


def test_a_liar_is_found_and_all_end_with_the_right_bytes() -> None:
    world = World(2, 6, Origin(200), config=KeeperConfig(audit_share=0.3, audit_budget=0.3))
    world.read_cost_s = 0.05
    liar = world[3]
    liar.lies = True
    for peer in world.peers.values():
        peer.get()
    world.run(2.0)
    world.run(120.0, world.all_done)
    honest = [peer for peer in world.peers.values() if peer is not liar]
    assert all(peer.complete for peer in honest)
    assert not any(a.attester == liar.peer for peer in honest for a in peer.attested.values())
