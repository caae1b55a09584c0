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

from peerd.errors import OriginUnreachable, StoreDamaged
from peerd.ids import PeerId, PieceIndex, TaskId, VersionId
from peerd.link import messages as msg
from peerd.link.messages import LeaseInfo, LeaseKind, Message
from peerd.link.ports import PieceSource
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.origin.memory import MemoryOrigin
from peerd.signing import SigningKey
from peerd.store.memory import MemoryStore, MemoryVersion
from peerd.swarm.ending import condemn, finish
from peerd.swarm.incoming import Arrived, Inbound
from peerd.swarm.serving import Serving
from peerd.swarm.turns import REQUESTS_MAX, SENDS_AT_ONCE
from peerd.swarm.whole import WholeDigest
from peerd.task import ask_for, task_id, told_spec
from peerd.units import KIB, MIB
from tests.swarm.network import Net, inline
from tests.swarm.test_swarm import CONTENT, DIGEST, URL, all_get, check_right, get, group

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


def attested(stored: MemoryVersion, index: int, data: bytes, key: SigningKey = KEY) -> Attestation:
    return Attestation.made(
        key, stored.info.version, PieceIndex(index), blake3.blake3(data).digest()
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
        self.seconds, self.begun, self.sent = seconds, list[int](), list[int]()
        self.now = self.most = 0

    def send(self, peer: PeerId, message: Message) -> None:
        raise AssertionError(f"{peer} was told {message}")

    def piece_bytes_sent(self) -> int:
        return len(self.sent)

    async def send_piece(
        self, peer: PeerId, version: VersionId, index: PieceIndex, size_bytes: int,
        attestation: Attestation, source: PieceSource,
    ) -> None:  # fmt: skip
        self.begun.append(index)
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(self.seconds * (index + 1))
        self.now -= 1
        self.sent.append(index)


async def serving(nursery: trio.Nursery, links: Any, stored: MemoryVersion) -> Serving:
    class Store:
        def find(self, version: VersionId) -> MemoryVersion:
            return stored

    service = Serving(PeerId("own"), Store(), links)  # type: ignore[arg-type]
    await nursery.start(service.run)
    return service


async def test_what_is_asked_for_at_the_end_of_a_queue_is_sent(autojump_clock: Any) -> None:
    """At every tick around the moment when the last sender looks for more and finds nothing."""
    stored = await stored_version(info_of(), held=8)
    async with trio.open_nursery() as nursery:
        for ticks in range(12):
            links = SlowLinks()
            service = await serving(nursery, links, stored)
            service.requested(CHILD, msg.Request(stored.info.version, (0,), 8))
            await trio.sleep(1.0)
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            service.requested(CHILD, msg.Request(stored.info.version, (1,), 8))
            await trio.sleep(10.0)
            assert links.sent == [0, 1], f"after {ticks} ticks"
        nursery.cancel_scope.cancel()


async def test_who_is_fed_first_may_be_named_before_there_is_a_version(autojump_clock: Any) -> None:
    stored = await stored_version(info_of(), held=8)
    async with trio.open_nursery() as nursery:
        links = SlowLinks(0.1)
        service = await serving(nursery, links, stored)
        service._turns._read_here = lambda item: True
        service.feed_first(stored.info.task, [CHILD], trio.current_time() + 60.0)
        for index in range(6):  # More than there are in hand at once.
            other = PeerId(f"other{index}")
            service.requested(other, msg.Request(stored.info.version, (index,), 8))
        service.requested(CHILD, msg.Request(stored.info.version, (6,), 8))
        await trio.sleep(10.0)
        assert links.begun.index(6) < links.begun.index(5), "the others came first"
        nursery.cancel_scope.cancel()


async def test_one_slow_piece_leaves_the_other_senders_at_work(autojump_clock: Any) -> None:
    stored = await stored_version(info_of(), held=8)
    async with trio.open_nursery() as nursery:
        links = SlowLinks()
        service = await serving(nursery, links, stored)
        service.requested(CHILD, msg.Request(stored.info.version, (7, 0), 8))
        await trio.sleep(2.0)
        service.requested(CHILD, msg.Request(stored.info.version, (1, 2, 3, 4, 5, 6), 8))
        await trio.sleep(0.5)
        assert 2 <= links.now <= SENDS_AT_ONCE
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


class Ended:
    """As much of a run as its end and a verdict touch."""

    def __init__(self, stored: MemoryVersion) -> None:
        self.task, self.ask, self.own = TASK, ask_for(URL, digest=DIGEST), PeerId("own")
        self.stored, self.state, self.stale = stored, "fetching", False
        self.whole, self.confirmation = self, trio.Event()
        self.culprits: dict[PeerId, str] = {}
        self.told: list[Message] = []
        self.posted: list[object] = []
        self.error: Exception | None = None
        self.completed = False

    async def result(self) -> str:
        """While the whole is hashed the keeper says whose pieces make it wrong."""
        await condemn(self, KEY.peer_id, "two others read something else")  # type: ignore[arg-type]
        return "sha256:" + "0" * 64

    def going(self) -> bool:
        return self.error is None and not self.completed

    def tell_keeper(self, message: Message) -> bool:
        self.told.append(message)
        return True

    def count_time(self) -> None: ...

    def note(self, words: str) -> None: ...

    def lost(self, index: PieceIndex) -> None: ...

    def post(self, event: object) -> None:
        self.posted.append(event)

    def complete(self) -> None:
        self.completed = True

    def fail(self, error: Exception) -> None:
        self.error = error


async def test_a_verdict_that_comes_while_the_whole_is_hashed_puts_nobody_else_in_dispute(
    autojump_clock: Any,
) -> None:
    """Its pieces were gone from what was put in dispute, the rest of it was right, and so the
    content was said not to have its digest."""
    stored = await stored_version(info_of(), held=7)
    other = SigningKey(bytes([1]) * 32)
    stored.write(PieceIndex(7), [memoryview(PIECES[7])])
    await stored.acknowledge(PieceIndex(7), attested(stored, 7, PIECES[7], other))
    run = Ended(stored)
    await finish(run)  # type: ignore[arg-type]
    assert [type(message) for message in run.told] == [msg.Progress]
    assert run.error is None
    assert not run.completed
    assert run.state == "fetching"


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


# --- one download after another


async def test_who_comes_while_the_last_caller_leaves_gets_a_download_of_its_own(
    autojump_clock: Any,
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=256 * KIB)
    ask = ask_for(URL)
    async with group(2, origin) as (_, nodes):
        async with nodes[0].swarm.wanted(ask) as first:
            await trio.sleep(0.5)
        assert not first.finished.is_set()
        check_right({nodes[0]: await get(nodes[0], ask)})


async def test_a_download_that_ends_does_not_take_the_next_ones_keeper(
    autojump_clock: Any,
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=4 * MIB)
    ask = ask_for(URL)
    async with group(3, origin) as (_, nodes):
        async with nodes[0].swarm.wanted(ask) as first:
            await trio.sleep(0.5)
            first.fail(OriginUnreachable("as the test ordered"))
            second = await get(nodes[0], ask)
        check_right({nodes[0]: second})


async def test_a_second_download_over_the_same_link_finds_the_holder_again(
    autojump_clock: Any,
) -> None:
    """The holder answered the first one's Join; it must answer the second one's too."""
    origin = MemoryOrigin({URL: CONTENT})
    ask = ask_for(URL, digest=DIGEST)
    async with group(3, origin) as (_, nodes):
        await get(nodes[0], ask)
        read = origin.bytes_read
        async with nodes[1].swarm.wanted(ask) as first:
            while not first.core.parents.joined:
                await trio.sleep(0.001)
        await trio.sleep(2.0)
        await nodes[1].swarm.remove(task_id(ask, b""))
        before = trio.current_time()
        check_right({nodes[1]: await get(nodes[1], ask)})
        assert trio.current_time() - before < 2.0
        assert origin.bytes_read == read


async def test_a_caller_that_leaves_does_not_end_an_enlisted_download(autojump_clock: Any) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=4 * MIB)
    ask = ask_for(URL)
    task = task_id(ask, b"")
    async with trio.open_nursery() as nursery:
        net = Net(origin, nursery)
        seed, other = await net.add(seed=True), await net.add()
        seed.swarm.message_arrived(other.own, msg.Enlist(task, ask.spec))
        async with seed.swarm.wanted(ask) as run:
            await trio.sleep(0.3)
        with trio.fail_after(60):
            await run.finished.wait()
        assert run.error is None
        nursery.cancel_scope.cancel()


# --- what others are told


@pytest.mark.parametrize(
    "url", ["file:///home/somebody/model", "https://store/model?X-Amz-Signature=0123&part=1"]
)
def test_paths_and_signatures_are_told_to_nobody(url: str) -> None:
    assert told_spec(ask_for(url, digest=DIGEST)) is None


async def test_a_file_of_another_machine_is_no_breach_of_the_protocol(autojump_clock: Any) -> None:
    ask = ask_for("file:///model", digest=DIGEST)
    async with trio.open_nursery() as nursery:
        net = Net(MemoryOrigin({}), nursery)
        seed, other = await net.add(seed=True), await net.add()
        seed.swarm.message_arrived(other.own, msg.Enlist(task_id(ask, b""), ask.spec))
        assert not seed.swarm.runs()
        nursery.cancel_scope.cancel()


# --- what keepers say


@pytest.mark.parametrize("kind", [LeaseKind.AUDIT, LeaseKind.STREAM, LeaseKind.READ])
async def test_a_lease_for_what_does_not_exist_ends_no_download(
    autojump_clock: Any, kind: LeaseKind
) -> None:
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=4 * MIB)
    ask = ask_for(URL)
    async with group(2, origin) as (_, nodes), nodes[0].swarm.wanted(ask) as run:
        for number in range(200):
            await trio.sleep(0.002)
            info = LeaseInfo(2**40 + number, kind, nodes[0].own, 5000, 2, 30.0)
            version = run.stored.info if run.stored else None
            run.keeper_says(msg.LeaseGrant(run.task, 1, info, version))
        check_right({nodes[0]: await get(nodes[0], ask)})


async def test_pieces_that_went_from_the_store_are_said_and_fetched_again(
    autojump_clock: Any,
) -> None:
    """Nobody told the core: all is held, it believes, and once waited for ever."""
    origin = MemoryOrigin({URL: CONTENT}, rate_bytes_s=256 * KIB)
    ask = ask_for(URL)
    async with group(1, origin) as (_, nodes):
        async with nodes[0].swarm.wanted(ask) as run:
            while run.stored is None or len(run.stored.held) < 10:
                await trio.sleep(0.01)
            await run.stored.drop([PieceIndex(3), next(iter(run.stored.held))])
            with trio.fail_after(60):
                await run.finished.wait()
            assert isinstance(run.error, StoreDamaged)
        check_right({nodes[0]: await get(nodes[0], ask)})
