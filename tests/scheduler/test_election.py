"""Electing a leader, told as stories: three who may lead, some who follow, and what goes wrong."""

from __future__ import annotations

import pytest

from peerd.ids import PeerId
from peerd.link.scheduler_messages import LeaderIs, LeaderLease, Subscribe, TermProof
from peerd.scheduler.electing import Heard, Send, Unreachable
from peerd.scheduler.election import STEPS, State
from peerd.scheduler.fence import EPOCH_S, Age, Fence, is_genuine, order, prove
from peerd.signing import SigningKey
from tests.scheduler.electing_world import ElectingWorld

KEYS = [SigningKey(bytes([number] * 32)) for number in range(1, 4)]


def proof(name: str, term: int) -> TermProof:
    return TermProof(PeerId(name), term, b"s" * 64)


# --- the fence


def test_a_proof_is_its_leaders_and_of_its_term_alone() -> None:
    made = prove(KEYS[0], 7)
    assert is_genuine(made)
    assert not is_genuine(TermProof(made.leader, 8, made.signature))
    assert not is_genuine(TermProof(KEYS[1].peer_id, 7, made.signature))


def test_an_older_term_is_older_whoever_signed_it_and_of_two_alike_one_stays() -> None:
    one, two = (prove(key, 5) for key in KEYS[:2])
    less, more = sorted((one, two), key=order)
    fence = Fence(EPOCH_S + 100)
    fence.eligible = {key.peer_id for key in KEYS}
    assert fence.age(less, 0.0) is Age.NEWER
    fence.take(less)
    assert fence.age(less, 0.0) is Age.SAME
    assert fence.age(more, 0.0) is Age.NEWER
    fence.take(more)
    assert fence.age(less, 0.0) is Age.OLDER
    assert fence.age(prove(KEYS[2], 4), 0.0) is Age.OLDER


def test_a_term_that_nobody_can_have_come_to_is_not_believed() -> None:
    fence = Fence(EPOCH_S + 5_000)
    fence.eligible = {KEYS[0].peer_id}
    assert fence.age(prove(KEYS[0], 5_000), 0.0) is Age.NEWER, "one a second is possible"
    assert fence.age(prove(KEYS[0], 5_001), 0.0) is Age.FOREIGN
    assert fence.age(prove(KEYS[0], 5_001), 1.0) is Age.NEWER, "a second later it is"
    assert fence.age(prove(KEYS[1], 3), 0.0) is Age.FOREIGN, "it may not lead"
    forged = TermProof(KEYS[0].peer_id, 3, bytes(64))
    assert fence.age(forged, 0.0) is Age.FOREIGN


def test_whose_clock_is_behind_still_follows_a_thousand_terms_more() -> None:
    fence = Fence(0.0)
    fence.eligible = {KEYS[0].peer_id}
    assert fence.age(prove(KEYS[0], 1_000), 0.0) is Age.NEWER
    fence.take(prove(KEYS[0], 1_000))
    assert fence.age(prove(KEYS[0], 2_000), 0.0) is Age.NEWER
    assert fence.age(prove(KEYS[0], 2_001), 0.0) is Age.FOREIGN


# --- one leader


def test_the_best_ranked_leads_and_all_follow_it_within_a_second() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(1.0)
    assert world.leaders() == {world.electors[0]}
    assert world.leading() == [world.electors[0]]
    assert world.term() == 1


def test_one_alone_leads_itself_and_advises_nobody() -> None:
    world = ElectingWorld(electors=1, followers=0)
    world.run(10.0)
    assert world.leading() == [world.electors[0]]
    assert not world.elector(world.electors[0]).advises(world.now)


def test_without_anybody_eligible_nobody_is_asked() -> None:
    world = ElectingWorld(electors=0, followers=3)
    world.run(10.0)
    assert world.leaders() == {None}
    assert world.sent == 0


def test_a_killed_leader_is_followed_by_the_next_within_a_second() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.0)
    world.crash(world.electors[0])
    world.run(1.0)
    assert world.leaders() == {world.electors[1]}
    assert world.term() == 2


def test_a_leader_that_falls_silent_is_replaced_within_four_seconds() -> None:
    """As behind a partition, or stopped: no link breaks, nothing comes."""
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.3)
    dead = world.electors[0]
    world.crash(dead, noticed=False)
    world.run(4.0)
    assert world.leaders() == {world.electors[1]}


def test_a_restarted_leader_follows_whoever_leads_by_then() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.0)
    world.crash(world.electors[0])
    world.run(5.0)
    world.start(world.electors[0])
    world.run(5.0)
    assert world.leaders() == {world.electors[1]}
    assert world.term() == 2


def test_a_leader_that_is_back_before_anybody_missed_it_leads_with_a_newer_term() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.0)
    world.crash(world.electors[0], noticed=False)
    world.start(world.electors[0])
    world.run(5.0)
    assert len(world.leaders()) == 1
    assert len(world.leading()) == 1
    assert world.term() >= 2


def test_each_side_of_a_partition_has_its_leader_and_one_of_them_stays() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.0)
    best, second, third = world.electors
    sides = ({best, world.followers[0]}, {second, third, *world.followers[1:]})
    world.cut(*sides)
    world.run(6.0)
    assert world.leaders(sides[0]) == {best}
    assert world.leaders(sides[1]) == {second}
    world.heal()
    world.run(5.0)
    assert world.leaders() == {second}, "the newer term stays"
    assert world.leading() == [second]


def test_a_leader_that_hears_nobody_stops_advising() -> None:
    world = ElectingWorld(electors=2, followers=2)
    world.run(5.0)
    best = world.electors[0]
    assert world.elector(best).advises(world.now)
    world.cut({best}, {world.electors[1], *world.followers})
    world.run(3.5)
    assert world.elector(best).state is State.LEADING
    assert not world.elector(best).advises(world.now)


def test_a_follower_whose_contact_is_gone_finds_another() -> None:
    world = ElectingWorld(electors=3, followers=4)
    world.run(5.0)
    reader = world.followers[0]
    world.cut({world.electors[0]}, {reader})
    world.run(5.0)
    assert world.leaders() == {world.electors[0]}, "over another elector"
    assert world.follower(reader).contact == world.electors[1]


def test_a_term_a_follower_knows_reaches_who_leads_with_an_older_one() -> None:
    """It moved here from the other side of a partition: it is followed again with a newer term."""
    world = ElectingWorld(electors=2, followers=2)
    world.run(3.0)
    leader, other = world.electors
    world.tell(world.followers[0], Heard(other, LeaderLease(proof(other, 9), 1)))
    assert world.follower(world.followers[0]).leader(world.now) == other
    world.run(8.0)
    assert world.leaders() == {leader}
    assert world.term() == 10


def test_a_lease_that_was_heard_before_lengthens_nothing() -> None:
    world = ElectingWorld(electors=2, followers=1)
    world.run(3.0)
    reader = world.follower(world.followers[0])
    until = reader.party.live_until
    assert world.now < until
    old = LeaderLease(proof(world.electors[0], 1), reader.party.renewal)
    world.now += 0.1
    world.tell(world.followers[0], Heard(world.electors[0], old))
    assert reader.party.live_until == until


def test_leases_of_who_is_neither_our_contact_nor_the_leader_are_not_heard() -> None:
    world = ElectingWorld(electors=2, followers=2)
    world.run(3.0)
    one, two = world.followers
    lie = LeaderLease(proof(world.electors[1], 5), 1)
    assert world.tell(one, Heard(two, lie)) == []
    assert world.follower(one).leader(world.now) == world.electors[0]


def test_an_elector_hears_leases_of_leaders_alone() -> None:
    world = ElectingWorld(electors=3, followers=0)
    world.run(3.0)
    lie = LeaderLease(proof(world.electors[1], 5), 1)
    assert world.tell(world.electors[0], Heard(world.electors[2], lie)) == []
    assert world.leading() == [world.electors[0]]


def test_who_may_lead_no_more_is_not_followed() -> None:
    world = ElectingWorld(electors=2, followers=2)
    world.run(3.0)
    world.electors_are(world.electors[1:])
    world.run(5.0)
    assert {world.core(peer).leader(world.now) for peer in world.followers} == {world.electors[1]}


def test_no_more_than_so_many_subscribe() -> None:
    world = ElectingWorld(electors=1, followers=0)
    world.run(1.0)
    leader = world.electors[0]
    most = world.config.subscribers_max
    for number in range(most + 5):
        (answer,) = [
            x for x in world.tell(leader, Heard(PeerId(f"q{number}"), Subscribe(None, False)))
            if isinstance(x, Send)
        ]  # fmt: skip
        assert isinstance(answer.message, LeaderLease), "who is not taken in is still answered"
    assert len(world.elector(leader).party.subscribers) == most


def test_who_unsubscribes_by_falling_silent_is_forgotten() -> None:
    world = ElectingWorld(electors=1, followers=0)
    world.run(1.0)
    world.tell(world.electors[0], Heard(PeerId("q"), Subscribe(None, False)))
    world.run(10.0)
    assert not world.elector(world.electors[0]).party.subscribers


def test_all_electors_gone_is_degraded_and_the_first_that_returns_leads() -> None:
    world = ElectingWorld(electors=2, followers=3)
    world.run(3.0)
    for peer in world.electors:
        world.crash(peer)
    world.run(5.0)
    assert world.leaders() == {None}
    world.start(world.electors[1])
    world.run(6.0)
    assert world.leaders() == {world.electors[1]}
    assert world.term() == 2, "its followers told it of the first"


# --- the table


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_left_and_come_to(state: State) -> None:
    assert STEPS[state]
    assert state is State.IDLE or any(state in after for after in STEPS.values())


def test_a_word_about_a_dead_leader_moves_nobody_who_follows_a_live_one() -> None:
    world = ElectingWorld(electors=3, followers=1)
    world.run(3.0)
    best, second, third = world.electors
    told = Heard(third, LeaderIs(proof(third, 1), False))
    assert not any(isinstance(x, Send) and x.peer != best for x in world.tell(second, told))
    assert world.leading() == [best]


def test_a_link_that_breaks_is_no_reason_to_leave_a_leader_for_long() -> None:
    world = ElectingWorld(electors=3, followers=2)
    world.run(3.0)
    world.tell(world.followers[0], Unreachable(world.electors[0]))
    world.run(2.0)
    assert world.leaders() == {world.electors[0]}
