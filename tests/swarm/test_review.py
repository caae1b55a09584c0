"""Interleavings and lies that once stopped, misled or ended something."""

from __future__ import annotations

import hashlib
import sys
import threading
from random import Random
from typing import Any

import blake3
import pytest
import trio

from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import Message
from peerd.link.ports import PieceSource
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.origin.memory import MemoryOrigin
from peerd.signing import SigningKey
from peerd.store.memory import MemoryStore, MemoryVersion
from peerd.swarm.incoming import Arrived, Inbound
from peerd.swarm.serving import REQUESTS_MAX, SENDS_AT_ONCE, Serving
from peerd.swarm.whole import WholeDigest
from peerd.task import ask_for, task_id
from peerd.units import KIB, MIB
from tests.swarm.network import inline
from tests.swarm.test_swarm import CONTENT, DIGEST, URL, all_get, check_right, group

KEY = SigningKey(bytes(32))
PEER, CHILD = PeerId("parent"), PeerId("child")
LENGTH = 256 * KIB
TASK = task_id(ask_for(URL, digest=DIGEST), b"")
PIECES = [Random(index).randbytes(LENGTH) for index in range(8)]


def info_of(pieces: int = 8, *, length_known: bool = True, task: TaskId = TASK) -> VersionInfo:
    length = pieces * LENGTH if length_known else None
    version = version_id(task, digest=DIGEST, validator=None, length_bytes=length, nonce=b"")
    info = VersionInfo(task, version, length, LENGTH, None, True, DIGEST, KEY.peer_id, bytes(64))
    return info.signed(KEY)


async def stored_version(info: VersionInfo, held: int = 0) -> MemoryVersion:
    stored = await MemoryStore().create(ask_for(URL, digest=DIGEST), info)
    for index in range(held):
        await hold(stored, index, PIECES[index])
    return stored


async def hold(stored: MemoryVersion, index: int, data: bytes) -> None:
    stored.write(PieceIndex(index), [memoryview(data)])
    await stored.acknowledge(PieceIndex(index), attested(stored, index, data))


def attested(stored: MemoryVersion, index: int, data: bytes) -> Attestation:
    return Attestation.made(
        KEY, stored.info.version, PieceIndex(index), blake3.blake3(data).digest()
    )


def nobody(_: PeerId) -> bool:
    return False


# --- pieces coming in


async def test_the_rest_of_a_cancelled_piece_blames_nobody() -> None:
    stored = await stored_version(info_of())
    version, data = stored.info.version, memoryview(PIECES[3])
    index, half = PieceIndex(3), LENGTH // 2
    made = attested(stored, 3, PIECES[3])
    inbound = Inbound()

    inbound.expect(PEER, stored, (3,), nobody)
    assert inbound.feed(PEER, version, index, LENGTH, 0, made, data[:half]) is None
    inbound.forget(PEER, version, (3,))
    inbound.expect(PEER, stored, (3,), nobody)
    assert inbound.feed(PEER, version, index, LENGTH, half, None, data[half:]) is None
    assert isinstance(inbound.feed(PEER, version, index, LENGTH, 0, made, data), Arrived)


async def test_a_piece_that_begins_again_is_taken_from_its_begin() -> None:
    stored = await stored_version(info_of())
    version, data, index = stored.info.version, memoryview(PIECES[3]), PieceIndex(3)
    made = attested(stored, 3, PIECES[3])
    inbound = Inbound()

    inbound.expect(PEER, stored, (3,), nobody)
    assert inbound.feed(PEER, version, index, LENGTH, 0, made, data[:1000]) is None
    assert isinstance(inbound.feed(PEER, version, index, LENGTH, 0, made, data), Arrived)


async def test_links_close_while_workers_take_pieces_in() -> None:
    """A worker that takes its piece out of the table must not trip who goes through it."""
    stored = await stored_version(info_of())
    inbound, errors = Inbound(), list[BaseException]()
    version, over = stored.info.version, threading.Event()

    def feed() -> None:
        while not over.is_set():
            for index in range(8):
                inbound.expect(PEER, stored, (index,), nobody)
                inbound.feed(PEER, version, PieceIndex(index), LENGTH, 0, None, memoryview(b"x"))

    for number in range(2000):
        inbound.expect(PeerId(f"other-{number}"), stored, (0,), nobody)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    worker = threading.Thread(target=feed)
    worker.start()
    try:
        for number in range(300):
            inbound.peer_gone(PeerId(f"gone-{number}"))
    except RuntimeError as error:
        errors.append(error)
    finally:
        over.set()
        worker.join()
        sys.setswitchinterval(interval)
    assert not errors


async def test_bytes_that_nobody_asked_for_are_no_sign_of_life() -> None:
    stored = await stored_version(info_of())
    inbound = Inbound()
    inbound.feed(PEER, stored.info.version, PieceIndex(0), LENGTH, 1, None, memoryview(b"junk"))
    assert inbound.received_bytes.get(PEER, 0) == 0


# --- pieces going out


class SlowLinks:
    """Takes `seconds` for a piece; `sent` are those that went out."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds, self.sent = seconds, list[int]()
        self.now = self.most = 0

    def send(self, peer: PeerId, message: Message) -> None:
        raise AssertionError(f"{peer} was told {message}")

    async def send_piece(
        self, peer: PeerId, version: VersionId, index: PieceIndex, size_bytes: int,
        attestation: Attestation, source: PieceSource,
    ) -> None:  # fmt: skip
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(self.seconds * (index + 1))
        self.now -= 1
        self.sent.append(index)


async def serving(nursery: trio.Nursery, links: Any, stored: MemoryVersion) -> Serving:
    class Store:
        def find(self, version: VersionId) -> MemoryVersion:
            return stored

    service = Serving(Store(), links)  # type: ignore[arg-type]
    await nursery.start(service.run)
    return service


async def test_what_is_asked_for_at_the_end_of_a_queue_is_sent(autojump_clock: Any) -> None:
    """At every tick around the moment when the last sender looks for more and finds nothing."""
    stored = await stored_version(info_of(), held=8)
    async with trio.open_nursery() as nursery:
        for ticks in range(12):
            links = SlowLinks()
            service = await serving(nursery, links, stored)
            service.requested(CHILD, msg.Request(stored.info.version, (0,)))
            await trio.sleep(1.0)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            service.requested(CHILD, msg.Request(stored.info.version, (1,)))
            await trio.sleep(10.0)
            assert links.sent == [0, 1], f"after {ticks} ticks"
        nursery.cancel_scope.cancel()


async def test_one_slow_piece_leaves_the_other_senders_at_work(autojump_clock: Any) -> None:
    stored = await stored_version(info_of(), held=8)
    async with trio.open_nursery() as nursery:
        links = SlowLinks()
        service = await serving(nursery, links, stored)
        service.requested(CHILD, msg.Request(stored.info.version, (7, 0)))
        await trio.sleep(2.0)
        service.requested(CHILD, msg.Request(stored.info.version, (0, 0, 0, 0, 0, 0)))
        await trio.sleep(0.5)
        assert links.now == SENDS_AT_ONCE
        nursery.cancel_scope.cancel()
    assert links.most <= SENDS_AT_ONCE < REQUESTS_MAX


# --- the whole digest


class Offloading:
    """Instead of a worker thread: does `meanwhile` in the middle of the first piece read."""

    def __init__(self, meanwhile: Any = None) -> None:
        self.meanwhile, self.calls = meanwhile, 0

    async def __call__(self, work: Any, /, *arguments: Any) -> Any:
        self.calls += 1
        await trio.sleep(0.001)
        return work(*arguments)


async def test_a_piece_that_is_dropped_while_it_is_hashed(autojump_clock: Any) -> None:
    """Its wrong bytes are in no digest, and reading it is no error of ours."""
    stored = await stored_version(info_of(), held=8)
    wrong = bytes(LENGTH)
    await stored.drop([PieceIndex(2)])
    await hold(stored, 2, wrong)

    async def dropping(work: Any, /, *arguments: Any) -> Any:
        await trio.sleep(0.001)
        if stored.attestation(PieceIndex(2)) and arguments[0] > 2:
            await stored.drop([PieceIndex(2)])
        return work(*arguments)

    whole = WholeDigest(stored, dropping)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole.run)
        await trio.sleep(0.1)
        whole.dropped(PieceIndex(2))
        await hold(stored, 2, PIECES[2])
        whole._offload = inline
        whole.advance()
        with trio.fail_after(5):
            digest = await whole.result()
        nursery.cancel_scope.cancel()
    assert digest == "sha256:" + hashlib.sha256(b"".join(PIECES)).hexdigest()


async def test_waiting_for_a_digest_costs_nothing_while_a_piece_is_missing(
    autojump_clock: Any,
) -> None:
    stored = await stored_version(info_of(), held=7)
    offload = Offloading()
    whole = WholeDigest(stored, offload)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole.run)
        nursery.start_soon(whole.result)
        await trio.sleep(10.0)
        nursery.cancel_scope.cancel()
    assert offload.calls < 5


@pytest.mark.parametrize("size", [3 * MIB + 17, 12345])
async def test_a_digest_and_a_length_that_nobody_says(autojump_clock: Any, size: int) -> None:
    content = CONTENT[:size]
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    origin = MemoryOrigin({URL: content}, unknown_length=True, validators=False)
    async with group(3, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL, digest=digest)), content)


@pytest.mark.parametrize("validators", [True, False])
async def test_a_range_of_content_whose_length_nobody_says_is_not_all_of_it(
    autojump_clock: Any, validators: bool
) -> None:
    """`Content-Range: bytes 0-262143/*`: the end of that body is not the end of the content."""
    origin = MemoryOrigin({URL: CONTENT}, unknown_length=True, validators=validators)
    async with group(3, origin) as (_, nodes):
        check_right(await all_get(nodes, ask_for(URL)))
