"""/metrics and /healthy on real ports: what a scraper and a probe get, and what nobody gets."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from peerd.errors import UsageError
from peerd.gateway.health import Fitness, judge
from peerd.gateway.metrics import Metrics, Seen
from peerd.gateway.watching import Watching

FIT = Fitness(0.0, True, 3, 100, 10, 0.25)
STATUS = {
    "version": "1.2.3", "mode": "scheduled", "origin_bytes": 1, "peer_bytes_in": 2,
    "peer_bytes_out": 3, "delivered_bytes": 4, "peers": 5, "neighbours": 6, "links": 7,
    "tasks": 8, "downloads": 9, "tasks_kept": 10,
}  # fmt: skip


class Told:
    """What is scraped, and may change between two scrapes."""

    def __init__(self) -> None:
        self.fitness = FIT
        self.ended = {"ok": 11, "no-space": 1}

    def seen(self) -> Seen:
        return Seen(STATUS, self.fitness, judge(self.fitness), self.ended)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def watching(told: Told) -> AsyncIterator[tuple[int, int]]:
    """The ports of /metrics and /healthy."""
    ports = free_port(), free_port()
    addresses = [f"127.0.0.1:{port}" for port in ports]
    service = Watching(Metrics(told.seen), lambda: told.seen().health, *addresses)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield ports
        nursery.cancel_scope.cancel()


async def asked(port: int, method: str, path: str) -> tuple[int, str, str]:
    """Status, head and body."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    request = f"{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    async with stream:
        await stream.send_all(request.encode())
        answer = b"".join([part async for part in stream]).decode()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head, body


async def test_a_scrape_has_every_metric_as_it_is_now() -> None:
    told = Told()
    async with watching(told) as (port, _):
        status, head, body = await asked(port, "GET", "/metrics")
        told.ended = {"ok": 12}
        _, _, later = await asked(port, "GET", "/metrics")
    assert status == 200
    assert "text/plain; version=" in head
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["peerd_build_info", "1.2.3"] == 1
    assert [samples["peerd_health", state] for state in ("ready", "degraded", "failing")] == [
        1, 0, 0
    ]  # fmt: skip
    assert samples["peerd_origin_bytes_total",] == 1
    assert samples["peerd_peer_received_bytes_total",] == 2
    assert samples["peerd_tasks_kept",] == 10
    assert samples["peerd_scheduled",] == 1
    assert samples["peerd_disk_free_bytes",] == 100
    assert samples["peerd_loop_late_seconds",] == 0.25
    assert samples["peerd_downloads_ended_total", "no-space"] == 1
    assert samples["process_resident_memory_bytes",] > 1e6
    assert 'peerd_downloads_ended_total{result="ok"} 12.0' in later


async def test_every_metric_of_ours_stands_in_the_manual() -> None:
    manual = Path("docs/operations.md").read_text()
    scraped = Metrics(Told().seen).render().decode()
    ours = set(re.findall(r"^# TYPE (peerd_\w+)", scraped, re.MULTILINE))
    assert len(ours) > 12
    assert {name for name in ours if f"`{name}`" not in manual} == set()


async def test_a_probe_gets_the_word_in_the_status_and_the_reasons_in_the_body() -> None:
    told = Told()
    async with watching(told) as (_, port):
        assert await asked(port, "HEAD", "/healthy") == (
            200, (await asked(port, "GET", "/healthy"))[1], ""
        )  # fmt: skip
        told.fitness = msgspec.structs.replace(FIT, peers=0)
        degraded, _, body = await asked(port, "GET", "/healthy")
        told.fitness = msgspec.structs.replace(FIT, overlay_down_s=60.0)
        failing, _, worse = await asked(port, "GET", "/healthy")
    assert (degraded, json.loads(body)["state"]) == (200, "degraded"), "no reason to restart it"
    assert (failing, json.loads(worse)["state"]) == (503, "failing")
    assert json.loads(worse)["reasons"][0].startswith("the overlay has been down for 60 s")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/metrics", 405), ("GET", "/v1/status", 404), ("DELETE", "/v1/tasks/a", 404)],
)
async def test_nothing_else_is_to_be_had_there(method: str, path: str, status: int) -> None:
    async with watching(Told()) as (port, _):
        assert (await asked(port, method, path))[0] == status


async def test_ports_that_are_taken_are_refused_in_words_all_at_once() -> None:
    told = Told()
    async with watching(told) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        second = Watching(Metrics(told.seen), lambda: judge(FIT), *addresses)
        with pytest.raises(UsageError) as refused:
            await second.run()
        for address, flag in zip(addresses, ("--metrics-listen", "--health-listen"), strict=True):
            assert f"cannot listen on {address}" in str(refused.value)
            assert f"none with {flag} off" in str(refused.value)
