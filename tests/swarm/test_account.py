"""Why a download went as it did: counted, bounded, and read again when it is long over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.gateway.explaining import explained
from peerd.ids import PeerId
from peerd.origin.memory import MemoryOrigin
from peerd.swarm import account
from peerd.swarm.account import Account, direct_s, kept, read
from peerd.swarm.accounting import told
from peerd.task import ask_for
from peerd.units import KIB, MIB
from tests.swarm.test_swarm import CONTENT, URL, get, group

KEEPER = "keeper 12D3KooW, term 1"


def begun() -> Account:
    made = Account()
    made.begin(100.0)
    return made


def test_each_moment_counts_as_one_thing() -> None:
    made = begun()
    made.goes_on(account.KEEPER_SOUGHT, 100.5)
    made.goes_on(account.READING, 101.0, reading=True)
    made.goes_on(account.RECEIVING, 103.0, reading=True)
    made.goes_on(account.RECEIVING, 104.0)
    told = made.told("fetching", 10, 0, {})
    assert told.waits == {
        account.KEEPER_SOUGHT: 0.5, account.READING: 0.5, account.RECEIVING: 3.0
    }  # fmt: skip
    assert told.seconds == sum(told.waits.values()) == 4.0
    assert told.reading_s == 2.5


async def test_a_download_shorter_than_a_look_counts_what_it_waited_for(
    autojump_clock: Any,
) -> None:
    """All of it was once counted as checking, for that was what it did last."""
    size = 4 * 256 * KIB
    origin = MemoryOrigin({URL: CONTENT[:size]}, delay_s=0.1, rate_bytes_s=4 * MIB)
    async with group(1, origin) as (_, (node,)):
        run = await get(node, ask_for(URL))
    waits = told(run).waits
    directly_s = direct_s(told(run), size)
    assert directly_s is not None
    assert directly_s <= told(run).seconds, "it was alone, and read at that rate"
    assert waits[account.VERSION_SOUGHT] + waits.get(account.KEEPER_SOUGHT, 0.0) >= 0.1
    assert waits.get(account.CHECKING, 0.0) < 0.1


def test_decisions_that_are_alike_are_counted_together() -> None:
    made = begun()
    for at in (101.0, 102.0, 105.0):
        made.decided(KEEPER, "this peer may read", "nobody held it", at)
    made.decided(account.ALONE, "X keeps the task", "the first that answers", 100.1)
    one, other = made.told("fetching", 0, 0, {}).decisions
    assert (one.count, one.first_s, one.last_s) == (3, 1.0, 5.0)
    assert other.by == "this peer"


def test_what_does_not_fit_is_counted() -> None:
    made = begun()
    for number in range(account.DECISIONS_MAX + 7):
        made.decided(KEEPER, f"decision {number} {'x' * 500}", "y" * 500, 101.0)
    sent = {PeerId(f"p{number}".ljust(52, "x")): number for number in range(200)}
    for peer in sent:
        made.found(peer, "its keeper named it" * 20)
    told = made.told("complete", 1, 2, sent)
    assert told.more == 7
    assert account.UNTOLD not in {source.why for source in told.sources}, "all were named"
    assert len(told.sources) == account.PARENTS_MAX
    assert told.sources[0].size_bytes == 199, "those who sent most are named"
    assert told.others_bytes + sum(x.size_bytes for x in told.sources) == sum(sent.values())
    data = kept(told)
    assert len(data) <= account.DATA_MAX_BYTES
    assert read(data) == told


def test_what_a_plain_download_would_have_taken_is_what_this_peer_saw_of_the_origin() -> None:
    made = begun()
    made.goes_on(account.VERSION_SOUGHT, 100.5)
    made.goes_on(account.READING, 102.5, reading=True)
    told = made.told("complete", 2_000, 0, {})
    assert direct_s(told, 10_000) == 0.5 + 10.0
    assert direct_s(told, None) is None
    assert direct_s(made.told("complete", 0, 0, {}), 10_000) is None, "it read nothing there"


def test_it_is_told_in_words_and_numbers() -> None:
    made = begun()
    made.goes_on(account.READING, 101.0, reading=True)
    made.goes_on(account.RECEIVING, 102.0)
    made.found(PeerId("a"), "its keeper named it")
    told = made.told("complete", 1_000, 0, {PeerId("a"): 3_000, PeerId("b"): 1_000})
    said = explained(told, 5_000)
    assert said["from"] == {"origin": 1_000, "peers": 4_000, "store": 0}
    assert said["directly_s"] == 5.0
    assert "2.5 times as long" in said["compared"]
    assert [row["why"] for row in said["parents"]] == ["its keeper named it", account.UNTOLD]
    nothing = explained(made.told("complete", 0, 0, {}), 5_000)
    assert nothing["directly_s"] is None
    assert "read nothing" in nothing["compared"]


def test_advice_stands_beside_how_a_parent_came_to_be_known() -> None:
    made = begun()
    for peer in ("a", "b"):
        made.advised(PeerId(peer), f"{account.ADVISED}: it is far")
    made.found(PeerId("a"), "its keeper named it")
    made.advised(PeerId("a"), f"{account.ADVISED}: it is near")
    told = made.told("complete", 0, 0, {PeerId("a"): 2, PeerId("b"): 1})
    assert [source.why for source in told.sources] == [
        f"its keeper named it; {account.ADVISED}: it is near",
        f"{account.ADVISED}: it is far",
    ]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"x" * 100_000])
def test_what_makes_no_sense_is_nothing(data: bytes) -> None:
    assert read(data) is None


@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_nothing_or_an_account(data: bytes) -> None:
    assert read(data) is None or isinstance(read(data), account.Told)
