"""Whom a keeper grants what, and what becomes of it."""

from __future__ import annotations

import msgspec
import pytest

from peerd.errors import RemoteProtocolError
from peerd.link import messages as m
from peerd.link.messages import LeaseKind, Outcome
from tests.scheduler.desk import Desk
from tests.scheduler.world import OPEN_SPEC, key


def held_together(desk: Desk, numbers: range, pieces: int) -> None:
    """All leases are carried out until nothing is left to read."""
    for _ in range(2 * pieces):
        leases = [x for x in desk.leases() if x.kind is LeaseKind.READ]
        if not leases:
            return
        holder = next(n for n in numbers if desk.id(n) == leases[0].holder)
        desk.finish(holder, leases[0])


def all_read_by(desk: Desk, number: int) -> None:
    """Four pieces, read by one peer."""
    desk.enrol(number, room=1)
    desk.later(1.0)
    desk.ask(number, 1)
    desk.resolve(number, 4)
    held_together(desk, range(number, number + 1), 4)


def test_a_flash_crowd_resolves_once() -> None:
    desk = Desk(range(1, 21))
    for number in range(1, 21):
        desk.enrol(number)
    desk.later(1.0)  # The standbys never answer.
    for number in range(1, 21):
        desk.ask(number, 4)
    assert [x.kind for x in desk.leases()] == [LeaseKind.RESOLVE]
    assert all(desk.to(number, m.Enrolled) for number in range(1, 21))


def test_the_version_is_pushed_and_twelve_read_at_once() -> None:
    desk = Desk(range(1, 21))
    for number in range(1, 21):
        desk.enrol(number)
    desk.later(1.0)
    for number in range(1, 21):
        desk.ask(number, 4)
    resolver = next(n for n in range(1, 21) if desk.grants(n))
    version = desk.resolve(resolver, 1000)
    for number in range(1, 21):
        assert desk.to(number, m.RosterUpdate)[-1].version == version
    readers = {x.holder for x in desk.leases()}
    assert len(readers) == 12
    assert len(desk.leases()) == 24  # One being read and one queued each.
    assert {x.count for x in desk.leases()} == {2}  # 0.25 % of 1,000 pieces.


def test_one_peer_alone_keeps_the_origin_busy() -> None:
    desk = Desk([1])
    desk.enrol(1, room=16)
    desk.resolve(1, 100)
    assert len(desk.leases(1)) == 8


def test_each_piece_is_granted_once_and_then_no_more() -> None:
    desk = Desk([1])
    desk.enrol(1, room=4)
    desk.resolve(1, 40)
    held_together(desk, range(1, 2), 40)
    read = [x.info.first for x in desk.grants(1) if x.info.kind is LeaseKind.READ]
    assert sorted(read) == list(range(1, 40))
    assert read != sorted(read)  # In the keeper's own order.
    assert desk.core.unneeded_reads(desk.task) == {}


def test_seeds_are_granted_first() -> None:
    desk = Desk(range(1, 6), seeds=[5])
    for number in (1, 2, 5):
        desk.enrol(number)
    desk.later(1.0)
    for number in (1, 2, 5):
        desk.ask(number, 4)
    desk.resolve(next(n for n in (1, 2, 5) if desk.grants(n)), 400)
    before = len(desk.leases(5))
    assert before == 4  # As much as it asked for.
    lease = desk.leases(5)[0]
    desk.finish(5, lease)
    assert len(desk.leases(5)) == before


def test_a_slow_reader_is_replaced_after_its_deadline_and_that_is_counted() -> None:
    desk = Desk([1, 2])
    desk.enrol(1, room=1)
    desk.later(1.0)
    desk.ask(1, 1)
    desk.resolve(1, 10)
    lease = next(x for x in desk.leases(1) if x.kind is LeaseKind.READ)
    desk.later(lease.expires_in_s + 0.6)
    assert [x.lease for x in desk.to(1, m.LeaseRevoked)] == [lease.lease]
    desk.enrol(2, room=8)
    again = [x for x in desk.leases(2) if x.first == lease.first]
    assert again
    assert desk.core.unneeded_reads(desk.task)["expired"] == 1


def test_progress_renews_a_lease_and_its_holder_is_told() -> None:
    desk = Desk([1])
    desk.enrol(1, room=1)
    desk.resolve(1, 10)
    lease = desk.leases(1)[0]
    for _ in range(10):
        desk.later(1.5)
        desk.report(1, lease.lease, Outcome.PROGRESS)
    assert [x.lease for x in desk.leases(1)] == [lease.lease]
    renewed = [x for x in desk.grants(1) if x.info.lease == lease.lease]
    assert len(renewed) == 11


def test_a_lease_without_a_single_piece_is_not_renewed_for_ever() -> None:
    desk = Desk([1])
    desk.enrol(1, room=1)
    desk.resolve(1, 10)
    lease = desk.leases(1)[0]
    for _ in range(200):
        desk.later(1.0)
        if lease.lease not in {x.lease for x in desk.leases(1)}:
            break
        desk.report(1, lease.lease, Outcome.PROGRESS)
    assert desk.now < 100.0 + 130


def test_who_is_refused_by_the_origin_reads_no_more() -> None:
    desk = Desk([1, 2])
    desk.enrol(1)
    desk.later(1.0)
    desk.enrol(2)
    desk.ask(1, 4)
    first = next(n for n in (1, 2) if desk.leases(n))
    desk.report(first, desk.leases(first)[0].lease, Outcome.REFUSED)
    assert not desk.leases(first)
    assert [x.kind for x in desk.leases(3 - first)] == [LeaseKind.RESOLVE]
    assert not desk.to(1, m.Unreadable)
    assert not desk.to(2, m.Unreadable)


def test_when_all_fail_they_hear_the_real_error() -> None:
    desk = Desk([1, 2])
    desk.enrol(1)
    desk.enrol(2)
    desk.later(1.0)
    for number in (1, 2):
        desk.ask(number, 4)
    for _ in (1, 2):
        number = next(n for n in (1, 2) if desk.leases(n))
        lease = desk.leases(number)[0].lease
        desk.report(number, lease, Outcome.FAILED, code="origin-not-found")
    for number in (1, 2):
        assert [x.code for x in desk.to(number, m.Unreadable)] == ["origin-not-found"]
        assert desk.to(number, m.Unreadable)[0].words == "words of origin-not-found"


def test_three_failures_of_different_peers_are_enough() -> None:
    desk = Desk(range(1, 11))
    for number in range(1, 11):
        desk.enrol(number)
    desk.later(1.0)
    for number in range(1, 11):
        desk.ask(number, 4)
    for _ in range(3):
        number = next(n for n in range(1, 11) if desk.leases(n))
        lease = desk.leases(number)[0].lease
        desk.report(number, lease, Outcome.FAILED, code="origin-unreachable")
    assert all(desk.to(number, m.Unreadable) for number in range(1, 11))


def test_its_own_trouble_is_nobody_elses() -> None:
    desk = Desk([1, 2])
    desk.enrol(1)
    desk.later(1.0)
    desk.ask(1, 4)
    desk.enrol(2)
    number = next(n for n in (1, 2) if desk.leases(n))
    lease = desk.leases(number)[0].lease
    desk.report(number, lease, Outcome.FAILED, code="no-space")
    assert not desk.to(number, m.Unreadable)
    assert desk.leases(3 - number)


def test_a_piece_whose_only_holder_is_gone_is_read_again() -> None:
    desk = Desk([1, 2, 3])
    _, one, other = desk.order
    all_read_by(desk, one)
    desk.enrol(other, room=4)
    assert not desk.leases(other)  # The one has all of it.
    desk.lost(one)
    desk.later(1.0)
    assert not desk.leases(other)  # It may come back.
    desk.later(0.6)
    assert sorted(x.first for x in desk.leases(other)) == [0, 1, 2, 3]
    assert desk.core.unneeded_reads(desk.task) == {"lost": 4}


def test_a_holder_whose_idle_link_closed_still_counts() -> None:
    desk = Desk([1, 2, 3])
    _, one, other = desk.order
    all_read_by(desk, one)
    desk.forget()
    desk.lost(one)
    assert desk.to(one, m.Probe)
    desk.hear(one, m.KeeperState(desk.task, 0, False, False, None, 0.0, (), (), ()))
    desk.later(5.0)
    desk.enrol(other)
    assert not desk.leases(other)


def test_an_unranged_origin_has_one_reader_and_a_second_goes_on_where_it_ended() -> None:
    desk = Desk([1, 2])
    desk.enrol(1, room=4)
    desk.later(1.0)
    desk.ask(1, 4)
    desk.resolve(1, 10, ranged=False)
    desk.enrol(2, room=4)
    (stream,) = desk.leases()
    assert (stream.kind, stream.first, stream.count) == (LeaseKind.STREAM, 0, 10)
    desk.report(1, stream.lease, Outcome.PROGRESS, made=range(4))
    held = m.Progress(desk.task, desk.core.kept(desk.task).version.version, b"\x0f\x00")  # type: ignore[union-attr]
    desk.hear(2, held)
    desk.report(1, stream.lease, Outcome.FAILED, code="origin-cut")
    (second,) = desk.leases()
    assert (second.kind, second.first, second.count) == (LeaseKind.STREAM, 4, 6)


def test_a_version_that_nothing_pins_starts_anew_with_its_reader() -> None:
    desk = Desk([1, 2, 3], spec=OPEN_SPEC)
    _, one, other = desk.order
    desk.enrol(one, room=4)
    desk.later(1.0)
    desk.ask(one, 4)
    old = desk.resolve(one, 10, ranged=False, validator=None, nonce=b"one")
    desk.enrol(other, room=4)
    (stream,) = desk.leases()
    desk.report(one, stream.lease, Outcome.PROGRESS, made=range(4))
    desk.undelivered(one)
    desk.later(5.0)
    assert [x.kind for x in desk.leases(other)] == [LeaseKind.RESOLVE]
    new = desk.resolve(other, 10, ranged=False, validator=None, nonce=b"two")
    assert new.version != old.version
    assert new in [x.version for x in desk.to(other, m.RosterUpdate)]


def test_unknown_length_ends_with_the_readers_word() -> None:
    desk = Desk([1], spec=OPEN_SPEC)
    desk.enrol(1, room=4)
    version = desk.resolve(1, 6, known_length=False, ranged=False)
    (stream,) = desk.leases()
    assert (stream.kind, stream.count) == (LeaseKind.STREAM, 0)
    desk.report(1, stream.lease, Outcome.PROGRESS, made=range(6))
    end = desk.version(1, 6, ranged=False)
    end = msgspec.structs.replace(end, version=version.version).signed(key(1))
    desk.hear(1, m.Ended(desk.task, 1, end))
    assert desk.to(1, m.RosterUpdate)[-1].version == end
    desk.report(1, stream.lease)
    assert not desk.leases()
    assert desk.core.roster(desk.task)[0].complete


def test_content_that_changed_is_resolved_again_before_anybody_starts_anew() -> None:
    desk = Desk([1, 2], spec=OPEN_SPEC)
    desk.enrol(1, room=2)
    desk.later(1.0)
    desk.ask(1, 2)
    desk.resolve(1, 10)
    desk.enrol(2, room=2)
    lease = desk.leases(1)[0]
    desk.report(1, lease.lease, Outcome.FAILED, code="origin-changed")
    resolver = next(n for n in (1, 2) if any(x.kind is LeaseKind.RESOLVE for x in desk.leases(n)))
    grant = desk.grants(resolver)[-1]
    assert grant.version is None, "not to be told that it is what it was"
    new = desk.version(resolver, 12, validator='"v2"')
    desk.hear(resolver, m.Resolved(desk.task, 1, grant.info.lease, new, False))
    for number in (1, 2):
        assert desk.to(number, m.RosterUpdate)[-1].version == new
    assert all(x.count and x.first < 12 for x in desk.leases())


def test_who_says_in_vain_that_it_changed_stops_nobody_else() -> None:
    desk = Desk([1, 2], spec=OPEN_SPEC)
    desk.enrol(1, room=2)
    desk.later(1.0)
    desk.ask(1, 2)
    version = desk.resolve(1, 200)
    desk.enrol(2, room=2)
    for _ in range(12):
        desk.later(0.5)
        for lease in desk.leases(1)[:1]:
            code = "origin-changed"
            desk.report(1, lease.lease, Outcome.FAILED, code=code)
        for lease in desk.leases(2):
            if lease.kind is LeaseKind.RESOLVE:
                desk.hear(2, m.Resolved(desk.task, 1, lease.lease, version, True))
            else:
                desk.finish(2, lease)
    assert not desk.to(2, m.Unreadable)
    assert desk.leases(2)


@pytest.mark.parametrize("what", ["another's", "not leased", "forged"])
def test_hostile_attestations_close_the_link_and_change_nothing(what: str) -> None:
    desk = Desk([1, 2])
    desk.enrol(1, room=1)
    desk.later(1.0)
    desk.ask(1, 1)
    version = desk.resolve(1, 10)
    (lease,) = desk.leases(1)
    index = lease.first
    attestation = desk.attest(1, version, index)
    if what == "another's":
        attestation = desk.attest(2, version, index)
    elif what == "not leased":
        attestation = desk.attest(1, version, (index + 1) % 10)
    else:
        attestation = msgspec.structs.replace(attestation, digest=b"\x01" * 32)
    report = m.LeaseReport(desk.task, 1, lease.lease, Outcome.DONE, (attestation,), "", "")
    with pytest.raises(RemoteProtocolError):
        desk.hear(1, report)
    assert [x.lease for x in desk.leases(1)] == [lease.lease]


def test_a_bitmap_that_does_not_fit_is_refused() -> None:
    desk = Desk([1])
    desk.enrol(1)
    version = desk.resolve(1, 10)
    for bitmap in (b"\xff", b"\xff\xff", b"\x00" * 3):
        with pytest.raises(RemoteProtocolError):
            desk.hear(1, m.Progress(desk.task, version.version, bitmap))


def test_a_version_without_the_digest_that_was_asked_for_is_refused() -> None:
    desk = Desk([1])
    desk.enrol(1)
    grant = desk.grants(1)[0]
    wrong = msgspec.structs.replace(desk.version(1, 10), digest="sha256:" + "0" * 64).signed(key(1))
    with pytest.raises(RemoteProtocolError):
        desk.hear(1, m.Resolved(desk.task, 1, grant.info.lease, wrong, False))
    assert desk.core.kept(desk.task).version is None  # type: ignore[union-attr]


def test_a_spec_of_another_task_is_refused() -> None:
    desk = Desk([1, 2])
    number = 3 - desk.own
    wrong = m.Enrol(desk.task, OPEN_SPEC, (), (), 0, True, m.Access.UNKNOWN, "", False, None,
                    b"", ())  # fmt: skip
    with pytest.raises(RemoteProtocolError):
        desk.hear(number, wrong)


def test_an_empty_file_is_complete_once_it_is_resolved() -> None:
    desk = Desk([1])
    desk.enrol(1)
    desk.resolve(1, 0)
    assert desk.core.roster(desk.task)[0].complete
    assert not [x for x in desk.leases() if x.kind is LeaseKind.READ]


def test_a_lease_that_is_done_without_a_word_of_its_pieces_waits_for_its_holders_progress() -> None:
    """It holds them already, and had not said so: granted again at once, it would spin."""
    desk = Desk([1, 2])
    desk.enrol(1, room=1)
    desk.later(1.0)
    desk.ask(1, 1)
    version = desk.resolve(1, 10)
    desk.enrol(2, room=1)
    lease = desk.leases(1)[0]
    desk.forget()
    desk.report(1, lease.lease)
    assert not desk.grants(1)
    assert lease.first not in {x.info.first for x in desk.grants(2)}
    held = 1 | 1 << lease.first
    desk.hear(1, m.Progress(desk.task, version.version, held.to_bytes(2, "little")))
    (other,) = desk.grants(1)
    assert other.info.first != lease.first
    assert not desk.core.unneeded_reads(desk.task)


def test_and_is_read_by_another_where_that_says_nothing_of_them_either() -> None:
    desk = Desk([1, 2])
    desk.enrol(1, room=1)
    desk.later(1.0)
    desk.ask(1, 1)
    desk.resolve(1, 2)
    lease = desk.leases(1)[0]
    desk.report(1, lease.lease)
    desk.enrol(2, room=1)
    assert not desk.leases(2)
    desk.later(1.1)
    assert [x.first for x in desk.leases(2)] == [lease.first]
    assert desk.core.unneeded_reads(desk.task) == {"unattested": 1}


def test_who_has_no_room_is_granted_nothing_until_it_asks_anew() -> None:
    desk = Desk([1, 2])
    desk.enrol(1, room=2)
    desk.later(1.0)
    desk.ask(1, 2)
    desk.resolve(1, 100)
    for lease in desk.leases(1):
        desk.report(1, lease.lease, Outcome.FAILED, code="no-space")
    desk.forget()
    desk.later(60.0)
    assert not desk.grants(1)
    desk.ask(1, 2)
    assert desk.grants(1)


def test_who_reads_along_is_granted_what_its_reader_waits_for() -> None:
    desk = Desk([1])
    desk.enrol(1, room=1)
    desk.later(1.0)
    desk.ask(1, 1)
    desk.resolve(1, 100)
    granted = []
    for at in (40, 41, 42, 7, None, 99):
        desk.ask(1, 0)
        for lease in desk.leases():
            desk.finish(1, lease)
        desk.ask(1, 1, reader_at=at)
        (lease,) = desk.leases()
        granted.append(lease.first)
    assert granted[:4] == [40, 41, 42, 7]
    assert granted[4] not in granted[:4], "whatever comes next in this keeper's order"
    assert granted[5] == 99
    desk.ask(1, 0)
    for lease in desk.leases():
        desk.finish(1, lease)
    desk.ask(1, 1, reader_at=40)
    (lease,) = desk.leases()
    assert 43 <= lease.first < 48, "the first one there that nobody holds"
    desk.ask(1, 1, reader_at=10**6)
    assert len(desk.leases()) == 1, "a place behind the end is none"
