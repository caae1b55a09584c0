"""Whose record counts, for how long, and who answers."""

from __future__ import annotations

import pytest

from peerd.errors import RemoteProtocolError, UsageError
from peerd.gossip.membership import (
    CONFLICT_STRIKES,
    UNREACHABLE_FIRST_S,
    UNREACHABLE_MAX_S,
    Heard,
    IdentityConflict,
    Membership,
    Past,
)
from peerd.gossip.records import OwnFacts, Signed
from peerd.ids import PeerId
from tests.gossip.builders import WALL_S, boot, key, membership, own_item, record, signed

SENDER = key(99).peer_id
OTHER = key(1).peer_id


def hear(one: Membership, item: Signed, now: float = 1.0) -> Heard:
    heard = one.hear(item, SENDER, now).heard
    one.validate()
    return heard


def live(one: Membership) -> set[PeerId]:
    return {member.peer for member in one.live()}


def test_a_newer_record_replaces_an_older_one_and_never_the_other_way() -> None:
    one = membership()
    assert hear(one, signed(1, record(1, generation=5, counter=2))) is Heard.NEWS
    assert hear(one, signed(1, record(1, generation=5, counter=2))) is Heard.OLD
    assert hear(one, signed(1, record(1, generation=5, counter=1))) is Heard.OLD
    assert hear(one, signed(1, record(1, generation=4, counter=9))) is Heard.OLD
    assert hear(one, signed(1, record(1, generation=6, counter=0))) is Heard.NEWS
    known = one.record(OTHER)
    assert known is not None
    assert known.generation == 6


def test_of_two_records_with_one_version_all_peers_choose_the_same() -> None:
    here = signed(1, record(1, boot_number=1))
    there = signed(1, record(1, boot_number=2))
    one, two = membership(), membership(2)
    for item in (here, there):
        hear(one, item)
    for item in (there, here):
        hear(two, item)
    assert one.record(OTHER) == two.record(OTHER)


def test_a_wrong_signature_names_who_relayed_it() -> None:
    one = membership()
    good = signed(1, record(1))
    forged = Signed(good.kind, good.body, bytes(64), 0.0)
    with pytest.raises(RemoteProtocolError, match=SENDER):
        one.hear(forged, SENDER, 1.0)
    changed = signed(1, record(1, generation=2))
    with pytest.raises(RemoteProtocolError, match="wrong signature"):
        one.hear(Signed(good.kind, changed.body, good.signature, 0.0), SENDER, 1.0)
    assert live(one) == {one.peer}


def test_a_record_of_another_cluster_or_wire_version_is_refused_in_words() -> None:
    one = membership()
    with pytest.raises(RemoteProtocolError, match="cluster 'elsewhere'"):
        one.hear(signed(1, record(1, facts=OwnFacts(cluster="elsewhere"))), SENDER, 1.0)


def test_the_age_travels_and_the_receiver_times_it() -> None:
    one = membership()
    hear(one, signed(1, record(1, ttl_s=300.0), age_s=100.0), now=1000.0)
    assert one.expire(1199.9) == []
    assert one.expire(1200.0) == [OTHER]
    assert live(one) == {one.peer}
    assert hear(one, signed(1, record(1, ttl_s=300.0), age_s=300.0), now=1201.0) is Heard.OLD
    two = membership(2)
    hear(two, signed(1, record(1, ttl_s=300.0), age_s=100.0), now=50.0)
    relayed = two.table.signed(OTHER, 80.0)
    assert relayed is not None
    assert relayed.age_s == 130.0


def test_who_left_is_out_and_its_older_records_stay_out() -> None:
    one = membership()
    hear(one, signed(1, record(1, generation=1, ttl_s=300.0)), now=0.0)
    hear(one, signed(1, record(1, generation=1, counter=1, left=True, ttl_s=300.0)), now=10.0)
    assert live(one) == {one.peer}
    assert one.present(OTHER) is None
    assert hear(one, signed(1, record(1, generation=1), age_s=50.0), now=60.0) is Heard.OLD
    one.expire(309.0)
    assert one.record(OTHER) is not None
    one.expire(311.0)
    assert one.record(OTHER) is None
    assert hear(one, signed(1, record(1, generation=2)), now=400.0) is Heard.NEWS
    assert OTHER in live(one)


def test_a_short_lived_record_does_not_let_the_longer_one_it_replaced_come_back() -> None:
    one = membership()
    old = record(1, generation=1, ttl_s=1000.0)
    hear(one, signed(1, old), now=0.0)
    hear(one, signed(1, record(1, generation=2, left=True, ttl_s=10.0)), now=1.0)
    one.expire(500.0)
    assert hear(one, signed(1, old, age_s=500.0), now=500.0) is Heard.OLD
    one.expire(1001.0)
    assert hear(one, signed(1, old, age_s=1001.0), now=1001.0) is Heard.OLD


def test_a_restart_with_its_data_directory_outranks_the_run_before() -> None:
    before = membership(1)
    hear(one := membership(), own_item(before, 0.0))
    again = membership(1, boot_number=2, past=before.past(), wall_s=5.0)
    assert again.generation == before.generation + 1
    assert hear(one, own_item(again, 0.0)) is Heard.NEWS
    assert again.past().boots == (boot(2), boot(1))


def test_a_restart_without_it_and_with_its_clock_set_back_is_heard_too() -> None:
    before = membership(1)
    one = membership()
    hear(one, own_item(before, 0.0))
    again = membership(1, boot_number=2, wall_s=5.0)
    assert hear(one, own_item(again, 0.0)) is Heard.OLD
    known = one.table.signed(OTHER, 3.0)
    assert known is not None
    heard = again.hear(known, SENDER, 3.0)
    assert (heard.heard, heard.conflict) == (Heard.OWN, None)
    assert again.announce_due_at() <= 3.0
    again.announce(3.0)
    assert hear(one, own_item(again, 3.0), now=3.0) is Heard.NEWS
    assert again.generation == before.generation + 1


def test_stale_records_of_earlier_runs_are_no_conflict() -> None:
    """Records from before this run, one after the other, each greater than the last claim."""
    one = membership(wall_s=5.0, now=100.0)
    for number, generation in enumerate([50, 90, 200, 300, 1000]):
        now = 110.0 + 10 * number
        stale = signed(0, record(0, generation, boot_number=7), age_s=200.0)
        assert one.hear(stale, SENDER, now).conflict is None
        one.announce(now)
        assert one.generation == generation + 1


def test_two_live_daemons_with_one_identity_both_find_out_and_name_both_places() -> None:
    """A golden image: the same key and the same past, two boots."""
    past = Past(generation=7, boots=(boot(9),))
    here = membership(boot_number=1, past=past, facts=OwnFacts(name="here"))
    there = membership(boot_number=2, past=past, facts=OwnFacts(name="there"))
    conflicts: list[IdentityConflict] = []
    now = 1.0
    for _ in range(2 * CONFLICT_STRIKES + 2):
        for speaker, listener in ((here, there), (there, here)):
            now = max(now + 1.0, speaker.announce_due_at()) if speaker is there else now + 1.0
            if speaker.announce_due_at() <= now:
                speaker.announce(now)
            found = listener.hear(own_item(speaker, now), SENDER, now + 0.1).conflict
            conflicts += [found] if found is not None else []
            now = max(now + 0.2, min(now + 80.0, listener.announce_due_at()))
    assert {(found.ours.name, found.theirs.name) for found in conflicts} == {
        ("here", "there"),
        ("there", "here"),
    }
    assert len(conflicts) == 2


def test_one_foreign_record_heard_from_twelve_neighbours_is_one_strike() -> None:
    one = membership(wall_s=5.0)
    foreign = signed(0, record(0, generation=100, boot_number=7))
    for _ in range(12):
        assert one.hear(foreign, SENDER, 1.0).conflict is None
    one.announce(2.0)
    assert one.generation == 101


def test_unreachable_peers_are_left_out_longer_each_time_up_to_a_maximum() -> None:
    one = membership()
    hear(one, signed(1, record(1, ttl_s=80_000.0)), now=0.0)
    now, pauses = 1.0, []
    for _ in range(10):
        revision = one.revision
        one.unreachable(OTHER, now)
        assert OTHER not in live(one)
        assert one.revision > revision
        until = now
        while OTHER not in live(one):
            until += 1.0
            one.expire(until)
            one.validate()
        pauses.append(until - now)
        now = until + 1.0
    assert pauses[0] == UNREACHABLE_FIRST_S
    assert pauses[1] == 2 * UNREACHABLE_FIRST_S
    assert max(pauses) == UNREACHABLE_MAX_S
    one.unreachable(OTHER, now)
    one.reachable(OTHER)
    assert OTHER in live(one)


def test_a_record_made_after_the_failure_brings_its_owner_back_at_once() -> None:
    one = membership()
    hear(one, signed(1, record(1, counter=0)), now=0.0)
    one.unreachable(OTHER, 10.0)
    hear(one, signed(1, record(1, counter=1), age_s=8.0), now=11.0)
    assert OTHER not in live(one)
    hear(one, signed(1, record(1, counter=2), age_s=0.5), now=11.0)
    assert OTHER in live(one)


def test_we_are_always_live_to_ourselves() -> None:
    one = membership()
    one.unreachable(one.peer, 1.0)
    one.expire(1e6)
    assert live(one) == {one.peer}


def test_no_more_members_than_there_is_room_for() -> None:
    one = membership(members_max=3)
    for number in range(1, 6):
        hear(one, signed(number, record(number)))
    assert len(live(one)) == 3
    one.expire(1000.0)
    assert hear(one, signed(5, record(5)), now=1001.0) is Heard.NEWS


def test_a_peer_that_announces_without_end_costs_no_more_memory() -> None:
    one = membership()
    for counter in range(500):
        hear(one, signed(1, record(1, counter=counter)))
    one.validate()


def test_revision_moves_only_when_live_would_answer_differently() -> None:
    one = membership()
    hear(one, signed(1, record(1)))
    revision = one.revision
    hear(one, signed(1, record(1, counter=1)))
    one.announce(2.0)
    assert one.revision == revision
    moved = OwnFacts(cluster="c", name="one", link_addresses=("10.9.9.9:1",))
    hear(one, signed(1, record(1, counter=2, facts=moved)))
    assert one.revision == revision + 1


def test_announcing_takes_longer_in_a_larger_group_and_never_outlives_the_record() -> None:
    one = membership(members_max=5000)
    assert 30.0 <= one.announce_due_at() <= 60.0
    for number in range(1, 60):
        hear(one, signed(number, record(number)))
    one.announce(100.0)
    assert 180.0 <= one.announce_due_at() - 100.0 <= 360.0
    own = one.record(one.peer)
    assert own is not None
    assert own.ttl_s == 3 * 360.0


def test_names_that_others_would_refuse_are_refused_at_home() -> None:
    with pytest.raises(UsageError, match="cannot be announced"):
        membership(facts=OwnFacts(name="red \x1b[31m"))
    with pytest.raises(UsageError, match="cannot be announced"):
        membership(facts=OwnFacts(zone="z" * 129))


def test_our_addresses_are_said_without_our_id_and_dialled_with_it() -> None:
    other = membership(
        1, facts=OwnFacts(overlay_addresses=(f"/ip4/10.0.0.1/tcp/1/p2p/{OTHER}",))
    ).record(OTHER)
    assert other is not None
    assert other.overlay_addresses == ("/ip4/10.0.0.1/tcp/1",)
    assert other.dial_addresses() == (f"/ip4/10.0.0.1/tcp/1/p2p/{OTHER}",)


def test_the_generation_is_never_less_than_the_wall_clock_nor_than_the_last() -> None:
    assert membership().generation == int(WALL_S)
    assert membership(past=Past(generation=int(WALL_S) + 10)).generation == int(WALL_S) + 11
