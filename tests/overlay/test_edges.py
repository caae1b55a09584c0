"""Addresses, the door, backoff, the supervisor, the bounded stream: each alone."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import RemoteProtocolError, UsageError
from peerd.overlay import addresses
from peerd.overlay.addresses import Address
from peerd.overlay.backoff import Backoff
from peerd.overlay.doorway import PENDING_MAX, PENDING_PER_HOST_MAX, Doorway
from peerd.overlay.supervisor import FIRST_TRIES_MAX, STEADY_S, supervised
from peerd.overlay.transport import READ_MAX_BYTES, BoundedStream
from peerd.signing import SigningKey

PEER = SigningKey(bytes(32)).peer_id


# --- addresses


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/ip4/10.0.0.1/tcp/4010", Address("10.0.0.1", 4010)),
        (f"/ip4/10.0.0.1/tcp/4010/p2p/{PEER}", Address("10.0.0.1", 4010, PEER)),
        ("/ip6/::1/tcp/1", Address("::1", 1)),
        ("/dns/seed.example/tcp/4010", Address("seed.example", 4010)),
        ("/dns4/seed.example/tcp/4010", Address("seed.example", 4010)),
        ("seed.example:4010", Address("seed.example", 4010)),
        ("[::1]:4010", Address("::1", 4010)),
    ],
)
def test_an_address_says_where_and_who(text: str, meant: Address) -> None:
    assert addresses.parse(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":1",
        "host:70000",
        "host:١",
        "/",
        "/ip4/10.0.0.1",
        "/ip4/999.0.0.1/tcp/1",
        "/ip4/10.0.0.1/udp/1",
        "/ip4/10.0.0.1/tcp/1/ws",
        "/ip4/10.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "/p2p/" + PEER,
        "/unix/tmp/x",
    ],
)
def test_what_is_no_address_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UsageError):
        addresses.parse(text)


PART = st.sampled_from(["ip4", "ip6", "dns", "tcp", "p2p", "ws", "10.0.0.1", "::1", "1", PEER, ""])


@given(st.text(max_size=60) | st.lists(PART | st.text(max_size=9)).map(lambda p: "/" + "/".join(p)))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        found = addresses.parse(text)
    except UsageError:
        return
    assert 0 <= found.port <= 65535


def test_what_we_write_we_can_read() -> None:
    for host in ("10.0.0.1", "::1", "seed.example"):
        assert addresses.parse(addresses.multiaddr(host, 7, PEER)) == Address(host, 7, PEER)


def test_a_wildcard_becomes_an_address_that_can_be_dialled() -> None:
    found = addresses.reachable([("0.0.0.0", 1), ("::", 2), ("10.0.0.1", 3)])
    assert [port for _, port in found] == [1, 2, 3]
    assert not {"0.0.0.0", "::"} & {host for host, _ in found}
    assert found[2] == ("10.0.0.1", 3)


# --- doorway


async def _stand(door: Doorway, address: str, pushed_out: list[str]) -> None:
    with door.standing(address) as scope:
        await trio.Event().wait()
    assert scope.cancelled_caught
    pushed_out.append(address)


async def test_who_fills_the_door_pushes_out_its_own() -> None:
    door, pushed_out = Doorway(), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stand, door, "honest", pushed_out)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            nursery.start_soon(_stand, door, "flood", pushed_out)
        await trio.testing.wait_all_tasks_blocked()
        assert pushed_out == ["flood"] * (100 - PENDING_PER_HOST_MAX)
        assert len(door) == PENDING_PER_HOST_MAX + 1
        nursery.cancel_scope.cancel()


async def test_the_door_is_bounded_for_all_addresses_together() -> None:
    door, pushed_out = Doorway(), list[str]()
    async with trio.open_nursery() as nursery:
        for number in range(PENDING_MAX + 5):
            nursery.start_soon(_stand, door, f"host {number % 20}", pushed_out)
        await trio.testing.wait_all_tasks_blocked()
        assert len(door) == PENDING_MAX
        assert len(pushed_out) == 5
        nursery.cancel_scope.cancel()
    assert len(door) == 0


# --- backoff


@given(st.integers(0, 1000), st.integers(0, 60))
def test_waits_double_within_their_bounds(seed: int, tries: int) -> None:
    backoff = Backoff(random.Random(seed), first_s=0.2, last_s=30.0)
    for number in range(tries):
        full_s = min(30.0, 0.2 * 2**number)
        assert full_s / 2 <= backoff.next_s() <= full_s
    backoff.reset()
    assert backoff.next_s() <= 0.2


# --- supervisor


def _backoff() -> Backoff:
    return Backoff(random.Random(1), first_s=1.0, last_s=8.0)


async def test_a_job_that_ends_however_is_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    starts: list[float] = []

    async def job(up: object) -> None:
        starts.append(trio.current_time())
        assert callable(up)
        up()
        if len(starts) == 2:
            raise ExceptionGroup("libp2p", [ValueError("of a remote's making")])

    with trio.move_on_after(40):
        await supervised(job, _backoff(), "a job")
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert all(0.5 <= wait <= 8.0 for wait in waits)
    assert waits[0] <= 1.0
    assert max(waits) > 3.0


async def test_one_that_lived_long_is_started_again_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    starts: list[float] = []

    async def job(up: object) -> None:
        assert callable(up)
        starts.append(trio.current_time())
        up()
        await trio.sleep(0 if len(starts) < 6 else STEADY_S)

    with trio.move_on_after(STEADY_S + 60):
        await supervised(job, _backoff(), "a job")
    assert starts[6] - starts[5] <= STEADY_S + 1.0


async def test_one_that_never_came_up_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    tries = 0

    async def job(up: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await supervised(job, _backoff(), "a job")
    assert tries == FIRST_TRIES_MAX


# --- transport


async def test_a_read_takes_what_was_asked_for_and_no_more() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    bounded = BoundedStream(ours, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drip, theirs, b"abcdefgh")
        assert await bounded.read(5) == b"abcde"
    assert await ours.receive_some(10) == b"fgh"


async def test_a_read_at_the_end_is_short() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"abc")
    await theirs.aclose()
    bounded = BoundedStream(ours, None)
    assert await bounded.read(5) == b"abc"
    assert await bounded.read(5) == b""


async def test_the_budget_is_all_that_comes_in() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(bytes(100))
    bounded = BoundedStream(ours, 10)
    assert await bounded.read(10) == bytes(10)
    with pytest.raises(RemoteProtocolError):
        await bounded.read(1)
    with pytest.raises(RemoteProtocolError):
        await bounded.read()
    bounded.trust()
    assert await bounded.read() == bytes(90)


async def test_nobody_is_made_to_ask_for_a_terabyte() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(bytes(READ_MAX_BYTES + 1))
    assert len(await BoundedStream(ours, None).read(1 << 40)) == READ_MAX_BYTES


async def _drip(stream: trio.abc.SendStream, data: bytes) -> None:
    for byte in data:
        await stream.send_all(bytes([byte]))
        await trio.lowlevel.checkpoint()
