"""The shell: real services on an overlay in memory, on a clock that jumps."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import trio
from trio.testing import MockClock

from peerd.gossip.membership import IdentityConflict
from peerd.gossip.records import OwnFacts
from peerd.gossip.service import GossipService
from peerd.gossip.statefile import State, read_state, write_state
from peerd.link.ports import AddressBook
from peerd.scheduler.ports import Members
from tests.gossip.builders import WALL_S, boot, key, task
from tests.gossip.memory_overlay import MemoryNetwork, MemoryOverlay


class House:
    """Some daemons' worth of gossip, each with a data directory of its own."""

    def __init__(self, network: MemoryNetwork, root: Path) -> None:
        self.network = network
        self.root = root
        self.boots = 0
        self.scopes: dict[GossipService, trio.CancelScope] = {}
        self.overlays: dict[GossipService, MemoryOverlay] = {}
        self.conflicts: list[IdentityConflict] = []

    async def start(
        self,
        number: int,
        *bootstrap: str,
        name: str | None = None,
        wall_s: float = WALL_S,
        key_of: int | None = None,
    ) -> GossipService:
        self.boots += 1
        identity = key(number if key_of is None else key_of)
        name = name or f"host-{number}"
        overlay = self.network.overlay(identity.peer_id, name)
        service = GossipService(
            overlay,
            identity,
            OwnFacts(name=name, link_addresses=(f"10.0.0.{number}:4002",)),
            boot=boot(self.boots),
            bootstrap=bootstrap,
            known_peers_path=self.root / f"{name}.peers",
            rng=Random(self.boots),
            wall_clock=lambda: wall_s,
            on_conflict=self.conflicts.append,
        )
        self.overlays[service] = overlay
        self.scopes[service] = await self.network.nursery.start(_run, service)
        return service

    def kill(self, service: GossipService) -> None:
        self.scopes[service].cancel()
        self.overlays[service].close()


async def _run(service: GossipService, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            task_status.started(scope)


@asynccontextmanager
async def house(root: Path) -> AsyncIterator[House]:
    async with trio.open_nursery() as nursery:
        yield House(MemoryNetwork(nursery), root)
        nursery.cancel_scope.cancel()


async def until(done: Callable[[], bool], limit_s: float = 30.0) -> float:
    begin = trio.current_time()
    with trio.fail_after(limit_s):
        while not done():
            await trio.sleep(0.05)
    return trio.current_time() - begin


def sees(service: GossipService) -> set[str]:
    return {member.name for member in service.live()}


async def test_five_find_each_other_by_the_first(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        assert services[0].synced
        services += [await here.start(number, "host-0") for number in range(1, 5)]
        everybody = {f"host-{number}" for number in range(5)}
        assert await until(lambda: all(sees(s) == everybody for s in services)) < 5.0
        assert all(service.synced for service in services)
        assert services[1].link_addresses(key(3).peer_id) == ("10.0.0.3:4002",)
        await until(lambda: all(len(s.neighbours) == 4 for s in services))
        assert {view.member.name for view in services[1].peers()} == everybody


async def test_it_is_what_scheduler_and_links_ask_for(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        members: Members = await here.start(0)
        book: AddressBook = await here.start(1, "host-0")
        assert list(book.link_addresses(key(9).peer_id)) == []
        assert members.member(key(9).peer_id) is None
        await until(lambda: len(members.live()) == 2)
        other = members.member(key(1).peer_id)
        assert other is not None
        revision = members.revision
        members.unreachable(other.peer)
        assert other not in members.live()
        members.reachable(other.peer)
        assert other in members.live()
        assert members.revision > revision


async def test_changes_are_told(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        first = await here.start(0)
        seen: list[set[str]] = []
        first.on_change(lambda: seen.append(sees(first)))
        await here.start(1, "host-0")
        with trio.fail_after(10.0):
            while len(sees(first)) == 1:
                await first.changed()
        assert seen[-1] == {"host-0", "host-1"}


async def test_what_one_holds_all_may_ask(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        services += [await here.start(number, "host-0") for number in (1, 2)]
        await until(lambda: all(len(s.live()) == 3 for s in services))
        services[2].hold([task(1)], [(task(2), 0.5)])
        holder = [key(2).peer_id]
        await until(lambda: list(services[1].holders(task(1))) == holder)
        assert list(services[0].holders(task(2))) == holder
        assert list(services[0].holders(task(3))) == []


async def test_who_leaves_is_gone_at_once_and_who_dies_soon(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        services += [await here.start(number, "host-0") for number in (1, 2, 3)]
        await until(lambda: all(len(s.live()) == 4 for s in services))
        await services[3].leave()
        assert await until(lambda: all(len(s.live()) == 3 for s in services[:3])) < 0.5
        here.kill(services[3])
        here.kill(services[2])
        assert await until(lambda: all(len(s.live()) == 2 for s in services[:2])) < 5.0
        assert services[0].member(key(3).peer_id) is None
        assert services[0].member(key(2).peer_id) is not None


async def test_known_peers_are_kept_and_lead_back_without_any_bootstrap(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        services += [await here.start(number, "host-0") for number in (1, 2)]
        await until(lambda: all(len(s.live()) == 3 for s in services))
        await trio.sleep(40.0)
        path = tmp_path / "host-1.peers"
        await until(lambda: len(read_state(path)[0].known) == 2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        here.kill(services[0])
        here.kill(services[1])
        await trio.sleep(20.0)
        again = await here.start(1, wall_s=5.0)
        assert not again.synced
        await until(lambda: sees(again) == {"host-1", "host-2"} == sees(services[2]))
        assert again.synced


async def test_a_partition_heals_within_ten_seconds(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        services += [await here.start(number, "host-0") for number in range(1, 5)]
        await until(lambda: all(len(s.live()) == 5 for s in services))
        here.network.split(
            [key(0).peer_id, key(1).peer_id], [key(number).peer_id for number in (2, 3, 4)]
        )
        await trio.sleep(100.0)
        newcomer = await here.start(5, "host-0")
        await until(lambda: sees(newcomer) >= {"host-0", "host-1"})
        here.network.heal()
        everybody = {f"host-{number}" for number in range(6)}
        known = [*services, newcomer]
        assert (
            await until(lambda: all({v.member.name for v in s.peers()} == everybody for s in known))
            < 10.0
        )


async def test_a_cloned_identity_is_told_with_both_places(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0)]
        services += [await here.start(number, "host-0") for number in (1, 2)]
        await until(lambda: all(len(s.live()) == 3 for s in services))
        await here.start(7, "host-0", name="clone", key_of=2)
        await until(lambda: len(here.conflicts) == 2, limit_s=120.0)
        assert {found.ours.name for found in here.conflicts} == {"host-2", "clone"}
        assert all(found.ours.addresses != found.theirs.addresses for found in here.conflicts)


async def test_addresses_that_change_are_announced(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        services = [await here.start(0), await here.start(1, "host-0")]
        await until(lambda: len(services[0].live()) == 2)
        services[1].update_addresses(link=["192.0.2.1:5000"])
        await until(
            lambda: list(services[0].link_addresses(key(1).peer_id)) == ["192.0.2.1:5000"], 2.0
        )


async def test_an_overlay_that_refuses_everything_costs_retries_and_nothing_else(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with house(tmp_path) as here:
        lonely = await here.start(0, "nobody-a", "nobody-b")
        assert not lonely.synced
        await until(lambda: lonely.synced, 5.0)
        await trio.sleep(60.0)
        tries = here.overlays[lonely].connects
        assert 20 <= len(tries) <= 50
        late = await here.start(1, name="nobody-a")
        assert await until(lambda: len(lonely.live()) == 2 == len(late.live())) <= 6.0


def test_a_state_file_that_is_no_good_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    assert read_state(path) == (State(), None)
    write_state(path, State(generation=7, known=("/ip4/10.0.0.1/tcp/1/p2p/x",)))
    assert read_state(path)[0].generation == 7
    for garbage in (b"", b"{", b"[1]", b'{"generation": -1}', b"\xff" * 100_000):
        path.write_bytes(garbage)
        state, complaint = read_state(path)
        assert state == State()
        assert complaint is not None
        assert str(path) in complaint
    assert [found.name for found in tmp_path.iterdir()] == ["peers"]
