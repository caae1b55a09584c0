"""All metrics, declared in one place, and read from the daemon's state when somebody asks.

Always: names and labels here are what alerts are written against (docs/operations.md lists them);
counters go on over restarts where `peerd status` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from peerd.gateway.health import Fitness, Health, State

__all__ = ["CONTENT_TYPE_LATEST", "Metrics", "Seen"]


class Seen(NamedTuple):
    """The state of a daemon, as a scrape finds it. `ended`: downloads that ended since the start,
    by the error's code, or "ok"."""

    status: Mapping[str, Any]
    fitness: Fitness
    health: Health
    ended: Mapping[str, int]


COUNTERS: Final = {
    "origin_bytes": ("peerd_origin_bytes", "Bytes read from origins."),
    "peer_bytes_in": ("peerd_peer_received_bytes", "Bytes of pieces that came from peers."),
    "peer_bytes_out": ("peerd_peer_sent_bytes", "Bytes of pieces that were sent to peers."),
    "delivered_bytes": ("peerd_delivered_bytes", "Bytes that callers on this machine were given."),
}
"""By key of `peerd status`: since the data directory was made."""
GAUGES: Final = {
    "peers": ("peerd_peers", "Other members that answer."),
    "neighbours": ("peerd_neighbours", "Connections of the overlay."),
    "links": ("peerd_links", "Links to peers that there is business with."),
    "tasks": ("peerd_tasks", "Contents that are held here, or a part of them."),
    "downloads": ("peerd_downloads", "Downloads under way."),
    "tasks_kept": ("peerd_tasks_kept", "Contents whose leases this peer grants."),
}


class Metrics:
    """Renders what `seen` returns."""

    def __init__(self, seen: Callable[[], Seen]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Daemon(seen))
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """In the text format 0.0.4 (CONTENT_TYPE_LATEST)."""
        return generate_latest(self._registry)


class _Daemon(Collector):
    def __init__(self, seen: Callable[[], Seen]) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        status, fitness, health, ended = self._seen()
        yield InfoMetricFamily(
            "peerd_build", "The running version.", value={"version": str(status["version"])}
        )
        states = GaugeMetricFamily(
            "peerd_health", "1 for what /healthy says, 0 for the others.", labels=["state"]
        )
        for state in State:
            states.add_metric([state], float(state is health.state))
        yield states
        for key, (name, words) in COUNTERS.items():
            yield CounterMetricFamily(name, words, value=status[key])
        for key, (name, words) in GAUGES.items():
            yield GaugeMetricFamily(name, words, value=status[key])
        scheduled = float(status["mode"] == "scheduled")
        yield GaugeMetricFamily("peerd_scheduled", "1 while a leader is followed.", value=scheduled)
        yield GaugeMetricFamily(
            "peerd_disk_free_bytes", "Free where the data directory is.",
            value=fitness.disk_free_bytes,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "peerd_disk_reserve_bytes", "Of these, what stays free.",
            value=fitness.disk_reserve_bytes,
        )  # fmt: skip
        yield GaugeMetricFamily(
            "peerd_loop_late_seconds", "By how much the event loop was late at most, in a minute.",
            value=fitness.late_s,
        )  # fmt: skip
        downloads = CounterMetricFamily(
            "peerd_downloads_ended", "Since the start, by error code or ok.", labels=["result"]
        )
        for result, count in sorted(ended.items()):
            downloads.add_metric([result], count)
        yield downloads
