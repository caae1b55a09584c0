"""Builds every service of the daemon and runs them, in the order in which they need each other.

Always: store, origin, overlay, links, gossip, keepers, schedulers, swarm, what watches, control
socket: opened in this order, closed in reverse; nothing here decides anything.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from peerd import __version__
from peerd.cluster.admission import OpenAdmission
from peerd.cluster.keys import load_or_make_key, open_data_dir
from peerd.config import Config
from peerd.daemon.counting import Counting
from peerd.daemon.facts import FactsOfPeer
from peerd.daemon.fitness import FitnessWatch
from peerd.daemon.plugins import evaluator_named
from peerd.daemon.router import Router
from peerd.daemon.services import Services
from peerd.errors import IdentityCloned, UsageError
from peerd.gateway.control import ControlServer
from peerd.gateway.facade import Facade
from peerd.gateway.health import judge
from peerd.gateway.metrics import Metrics, Seen
from peerd.gateway.watching import Watching
from peerd.gossip.membership import IdentityConflict
from peerd.gossip.records import OwnFacts
from peerd.gossip.service import GossipService
from peerd.link.service import LinkService, LinkSettings
from peerd.origin.service import OriginReader
from peerd.origin.settings import OriginConfig
from peerd.overlay.noise import NoiseProver
from peerd.overlay.service import OverlayService
from peerd.rate import TokenBucket
from peerd.scheduler.scheduling_service import SchedulerService
from peerd.scheduler.service import KeeperService
from peerd.signing import SigningKey
from peerd.store.disk import DiskStore
from peerd.store.files import machine_boot_id
from peerd.swarm.incoming import Inbound
from peerd.swarm.service import SwarmService
from peerd.swarm.surroundings import Surroundings

log = logging.getLogger("peerd")

KNOWN_PEERS_FILE: Final = "peers.json"
SECRET_PURPOSE: Final = "own-secret"
URGENT: Final = "urgent"
"""The topic for what is urgent and rare: a cluster document, a revocation, a preheat."""
LEAVE_S: Final = 1.0
"""At most, for saying goodbye to the overlay."""


@dataclass(frozen=True)
class Daemon:
    """What runs, for those who print or watch it."""

    config: Config
    key: SigningKey
    origin: OriginReader
    overlay: OverlayService
    links: LinkService
    gossip: GossipService
    swarm: SwarmService
    facade: Facade
    conflict: list[IdentityCloned]


@asynccontextmanager
async def running(config: Config, stop: trio.CancelScope) -> AsyncIterator[Daemon]:
    """All services run inside. `stop` is cancelled where the daemon cannot go on."""
    data_dir = Path(config.data_dir)
    open_data_dir(data_dir)
    key, admission = load_or_make_key(data_dir), OpenAdmission()
    boot, rng = os.urandom(16), Random()
    download = TokenBucket(config.download_limit)
    async with (
        DiskStore.open(data_dir, boot_id=machine_boot_id(), reserve=config.disk_reserve) as store,
        OriginReader(_origin(config), rng, download) as origin,
        trio.open_nursery() as nursery,
    ):
        conflict: list[IdentityCloned] = []
        overlay = _overlay(config, key, boot, admission, rng)
        gossip = GossipService(
            overlay, key, _own_facts(config), boot=boot, bootstrap=config.bootstrap,
            known_peers_path=data_dir / KNOWN_PEERS_FILE, rng=rng,
            on_conflict=lambda found: _cloned(found, key, conflict, stop),
        )  # fmt: skip
        links = LinkService(
            key.peer_id, boot, NoiseProver(key), gossip, admission, _links(config),
            download=download,
        )  # fmt: skip
        keepers = KeeperService(
            key.peer_id, gossip, links, rng, zone=config.zone, seed=config.seed_peer,
            fresh_s=config.fresh_s,
        )  # fmt: skip
        near = Surroundings(
            key, store, origin, links, keepers, Inbound(), rng, time.time, config.fresh_s,
            trio.to_thread.run_sync, config.zone,
        )  # fmt: skip
        swarm = SwarmService(near, key.sign(SECRET_PURPOSE, b""), seed=config.seed_peer)
        schedulers = SchedulerService(
            key, gossip, links, rng, FactsOfPeer(swarm, links, keepers, gossip),
            wall_s=time.time() - trio.current_time(), evaluator=evaluator_named(config.evaluator),
        )  # fmt: skip
        schedulers.seat.advising.on_advice = swarm.advised
        schedulers.seat.advising.on_keeper_advice = keepers.advised
        keepers.on_begin = schedulers.began
        counting = Counting(store, origin, links)
        facade = Facade(
            swarm, gossip, links, keepers, schedulers, counting.totals, _about(config, key)
        )
        counting.delivered = lambda: facade.delivered_bytes
        facade.lingers = lambda: _lingers(config, gossip)
        gossip.on_change(keepers.members_changed)
        gossip.on_change(schedulers.members_changed)
        links.set_handler(Router(links, gossip, keepers, schedulers, swarm, nursery))

        services = Services(nursery)
        try:
            await services.start(_listening, links)
            await services.start(overlay.run)
            await services.start(gossip.run)
            reached = _link_addresses(config, links.listening)
            gossip.update_addresses(overlay=overlay.addresses(), link=reached)
            await services.start(keepers.run)
            await services.start(schedulers.run)
            await services.start(swarm.run)
            await services.start(counting.run)
            for watch in _watching(config, overlay, facade, swarm):
                await services.start(watch)
            control = ControlServer(facade, config.socket, config.socket_mode, config.socket_group)
            await services.start(control.run)
            yield Daemon(config, key, origin, overlay, links, gossip, swarm, facade, conflict)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                await gossip.leave()
            await services.stop()
            nursery.cancel_scope.cancel()


def _watching(
    config: Config, overlay: OverlayService, facade: Facade, swarm: SwarmService
) -> tuple[Callable[..., Awaitable[None]], ...]:
    """What looks after this daemon, and the ports where others look."""
    fitness = FitnessWatch(
        overlay, config.data_dir, config.disk_reserve, bootstrapped=bool(config.bootstrap)
    )

    def seen() -> Seen:
        status = facade.status()
        found = fitness.now(status["peers"])
        return Seen(status, found, judge(found), swarm.ended)

    ports = Watching(
        Metrics(seen), lambda: seen().health, config.metrics_listen, config.health_listen
    )
    return fitness.run, ports.run


def _own_facts(config: Config) -> OwnFacts:
    return OwnFacts(
        config.cluster, config.name, config.zone, seed=config.seed_peer, scheduler=config.scheduler
    )


def _overlay(
    config: Config, key: SigningKey, boot: bytes, admission: OpenAdmission, rng: Random
) -> OverlayService:
    return OverlayService(
        key,
        listen=config.listen,
        announce=[address for address in config.announce if address.startswith("/")],
        cluster=config.cluster,
        boot=boot,
        admission=admission,
        rng=rng,
        agent=f"peerd/{__version__}",
        topics=(URGENT,),
    )


def _links(config: Config) -> LinkSettings:
    return LinkSettings(
        cluster=config.cluster,
        agent=f"peerd/{__version__}",
        listen=(config.link_listen,),
        upload_limit_bytes_s=config.upload_limit,
    )


async def _listening(links: LinkService, *, task_status: trio.TaskStatus[None]) -> None:
    try:
        await links.run(task_status=task_status)
    except OSError as error:
        raise UsageError(
            f"cannot listen for links on {', '.join(links.settings.listen)}: "
            f"{error.strerror or error}; choose another with --link-listen"
        ) from error


def _origin(config: Config) -> OriginConfig:
    said = config.origin
    return OriginConfig(
        ca_file=said.ca_file,
        http_proxy=said.http_proxy,
        https_proxy=said.https_proxy,
        no_proxy=said.no_proxy,
        user_agent=f"peerd/{__version__}",
    )


def _about(config: Config, key: SigningKey) -> dict[str, Any]:
    return {
        "peer_id": key.peer_id,
        "name": config.name,
        "zone": config.zone,
        "version": __version__,
        "cluster": config.cluster,
        "seed_peer": config.seed_peer,
        "scheduler": config.scheduler,
        "admission": "open",
        "data_dir": config.data_dir,
    }


def _lingers(config: Config, gossip: GossipService) -> bool:
    """Whether it would stay after its one download: where others are, or can know where it is."""
    if not config.ephemeral or config.linger_s <= 0:
        return False
    found_by_port = not config.listen[0].endswith("/tcp/0")
    return bool(found_by_port or config.bootstrap or config.announce or len(gossip.peers()) > 1)


def _link_addresses(config: Config, listening: tuple[str, ...]) -> list[str]:
    """Where others reach our links: at the announced hosts, else where we listen."""
    if not config.announce:
        return list(listening)
    port = listening[0].rpartition(":")[2]
    return [f"{announced_host(address)}:{port}" for address in config.announce]


def announced_host(address: str) -> str:
    """The host in a multiaddr or a host:port."""
    if address.startswith("/"):
        _, kind, host, *_ = address.split("/")
        return f"[{host}]" if kind == "ip6" else host
    return address.rpartition(":")[0]


def _cloned(
    found: IdentityConflict, key: SigningKey, conflict: list[IdentityCloned], stop: trio.CancelScope
) -> None:
    """Two daemons with one identity harm the group: this one stops, and says where both are."""
    words = (
        f"two daemons have the identity {key.peer_id}: this one at {found.ours}, another at "
        f"{found.theirs}; give one of them an empty data directory (a copied machine image?)"
    )
    log.error("%s", words)
    conflict.append(IdentityCloned(words))
    stop.cancel()
