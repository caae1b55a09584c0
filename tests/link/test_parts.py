"""The small cores of a link: buffers, pace, and which of two links is the one."""

from __future__ import annotations

from peerd.link.buffers import BufferPool
from peerd.link.dials import RACE_MAX_S, Ours, Standing, Verdict, judge
from peerd.link.pace import FRAME_FIRST_BYTES, FRAME_MAX_BYTES, FRAME_MIN_BYTES, Pace, RoundTrip
from peerd.units import KIB, MIB
from tests.link.helper import KEYS

SMALL, LARGE = KEYS[0].peer_id, KEYS[1].peer_id
BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16


def test_a_buffer_is_lent_again_only_when_no_view_of_it_lives() -> None:
    pool = BufferPool()
    buffer = pool.lend(100 * KIB)
    kept = memoryview(buffer)[5:10].toreadonly()
    pool.give_back(buffer)
    other = pool.lend(100 * KIB)
    assert other is not buffer
    kept.release()
    assert pool.lend(100 * KIB) is buffer


def test_a_buffer_that_was_not_given_back_is_not_lent_again() -> None:
    pool = BufferPool()
    assert pool.lend(100 * KIB) is not pool.lend(100 * KIB)


def test_the_pool_keeps_no_more_than_it_may() -> None:
    pool = BufferPool(kept_max_bytes=3 * MIB)
    buffers = [pool.lend(MIB) for _ in range(5)]
    for buffer in buffers:
        pool.give_back(buffer)
    again = [pool.lend(MIB) for _ in range(5)]
    assert sum(any(new is old for old in buffers) for new in again) == 2


def test_what_is_larger_than_every_class_is_lent_and_forgotten() -> None:
    pool = BufferPool()
    buffer = pool.lend(3 * MIB)
    assert len(buffer) == 3 * MIB
    pool.give_back(buffer)
    assert pool.lend(3 * MIB) is not buffer


def test_frames_take_50_ms_of_the_measured_rate() -> None:
    pace = Pace()
    assert pace.frame_bytes == FRAME_FIRST_BYTES
    for _ in range(20):
        pace.sent(1_000_000, 1.0)
    assert abs(pace.frame_bytes - 50_000) < 1000
    for _ in range(20):
        pace.sent(MIB, 0.001)
    assert pace.frame_bytes == FRAME_MAX_BYTES
    for _ in range(20):
        pace.sent(10_000, 1.0)
    assert pace.frame_bytes == FRAME_MIN_BYTES


def test_an_upload_limit_makes_frames_small() -> None:
    pace = Pace(limit_bytes_s=1_000_000)
    pace.sent(MIB, 0.001)
    assert pace.frame_bytes == 50_000


def test_a_round_trip_is_smoothed() -> None:
    round_trip = RoundTrip()
    assert round_trip.seconds is None
    round_trip.sample(1.0)
    round_trip.sample(0.2)
    assert round_trip.seconds == 0.9


def test_of_two_that_dial_each_other_only_the_smaller_waits() -> None:
    assert judge(SMALL, LARGE, BOOT, committed=Ours(), standing=None) is Verdict.AWAIT
    assert judge(LARGE, SMALL, BOOT, committed=Ours(), standing=None) is Verdict.ACCEPT
    assert judge(SMALL, LARGE, BOOT, committed=None, standing=None) is Verdict.ACCEPT


def test_the_link_that_the_smaller_dialled_stays_unless_the_other_must_have_lost_it() -> None:
    fresh = Standing(dialled=True, age_s=0.1, boot=BOOT)
    assert judge(SMALL, LARGE, BOOT, committed=None, standing=fresh) is Verdict.REFUSE
    assert judge(SMALL, LARGE, OTHER_BOOT, committed=None, standing=fresh) is Verdict.ACCEPT
    old = Standing(dialled=True, age_s=RACE_MAX_S, boot=BOOT)
    assert judge(SMALL, LARGE, BOOT, committed=None, standing=old) is Verdict.ACCEPT
    theirs = Standing(dialled=False, age_s=0.1, boot=BOOT)
    assert judge(SMALL, LARGE, BOOT, committed=None, standing=theirs) is Verdict.ACCEPT


def test_a_direct_link_goes_before_a_relayed_one_in_both_peers_eyes() -> None:
    relayed, direct = Ours(relayed=True), Ours()
    for own, other in ((SMALL, LARGE), (LARGE, SMALL)):
        verdict = judge(own, other, BOOT, committed=relayed, standing=None, relayed=False)
        assert verdict is Verdict.ACCEPT
        verdict = judge(own, other, BOOT, committed=direct, standing=None, relayed=True)
        assert verdict is Verdict.AWAIT
        up = Standing(dialled=True, age_s=0.1, boot=BOOT, relayed=True)
        assert judge(own, other, BOOT, committed=None, standing=up) is Verdict.ACCEPT
    both = judge(SMALL, LARGE, BOOT, committed=relayed, standing=None, relayed=True)
    assert both is Verdict.AWAIT
    both = judge(LARGE, SMALL, BOOT, committed=relayed, standing=None, relayed=True)
    assert both is Verdict.ACCEPT
