"""How long a peer stays after its download, as one story a rule."""

from __future__ import annotations

from dataclasses import replace

from peerd.swarm.lingering import IDLE_S, Lingering, Share

NEW = Share(came_bytes=100, sent_bytes=0, lone_pieces=0, asked_at=0.0, busy=False)


def test_it_stays_until_it_gave_as_much_as_it_took() -> None:
    lingering = Lingering(60.0, now=10.0)
    assert lingering.over(replace(NEW, sent_bytes=99, asked_at=11.0), now=11.0) is None
    words = lingering.over(replace(NEW, sent_bytes=100, asked_at=11.0), now=11.0)
    assert words == "it gave as much as it took"


def test_what_it_alone_read_does_not_go_with_it() -> None:
    lingering = Lingering(60.0, now=10.0)
    generous = replace(NEW, sent_bytes=500, asked_at=11.0, lone_pieces=1)
    assert lingering.over(generous, now=11.0) is None
    assert lingering.over(replace(generous, lone_pieces=0), now=11.0) is not None


def test_it_leaves_when_nobody_asks_any_more() -> None:
    lingering = Lingering(60.0, now=10.0)
    lonely = replace(NEW, lone_pieces=9)
    assert lingering.over(lonely, now=10.0 + IDLE_S - 0.1) is None
    assert lingering.over(replace(lonely, asked_at=14.0), now=10.0 + IDLE_S) is None
    assert lingering.over(lonely, now=10.0 + IDLE_S) == "nobody asks any more"


def test_its_time_ends_also_while_it_is_asked() -> None:
    lingering = Lingering(60.0, now=10.0)
    assert lingering.over(replace(NEW, asked_at=69.0), now=69.9) is None
    assert lingering.over(replace(NEW, asked_at=69.0), now=70.0) == "its 60 s are over"
    assert Lingering(0.0, now=10.0).over(NEW, now=10.0) == "its 0 s are over"


def test_a_caller_here_keeps_it_and_its_time_begins_anew() -> None:
    lingering = Lingering(60.0, now=10.0)
    assert lingering.over(replace(NEW, busy=True, sent_bytes=500), now=500.0) is None
    assert lingering.over(NEW, now=501.0) is None
    assert lingering.over(replace(NEW, asked_at=560.0), now=560.0) == "its 60 s are over"
