"""The control API on a real unix socket, over a daemon in memory."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peerd.cli import client
from peerd.errors import (
    DaemonUnreachable,
    NoSpace,
    OriginNotFound,
    PeerdError,
    TaskNotFound,
    UsageError,
)
from peerd.gateway.control import ControlServer
from tests.gateway.fake_control import FakeControl, task_of

URL = "http://origin/file.bin"


@asynccontextmanager
async def serving(control: FakeControl, path: Path, **who: Any) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(control, str(path), **who).run)
        yield str(path)
        nursery.cancel_scope.cancel()


async def events_of(path: str, url: str = URL) -> list[dict[str, Any]]:
    wish: dict[str, Any] = {"url": url, "headers": [], "timeout_s": None}
    return await trio.to_thread.run_sync(lambda: list(client.get(path, wish)))


async def asked(path: str, method: str, target: str) -> dict[str, Any]:
    return await trio.to_thread.run_sync(client.ask, path, method, target)


async def test_a_get_streams_its_events_and_passes_a_read_only_descriptor(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    async with serving(FakeControl({URL: content}), tmp_path / "s") as path:
        *progress, done = await events_of(path)
        assert [event["event"] for event in progress] == ["progress"] * len(progress)
        assert done["bytes"] == len(content)
        descriptor = await trio.to_thread.run_sync(client.descriptor, path, done["ticket"])
        with os.fdopen(descriptor, "rb") as file:
            assert file.read() == content
        with pytest.raises(TaskNotFound, match="ticket was used"):
            await trio.to_thread.run_sync(client.descriptor, path, done["ticket"])


async def test_the_daemon_keeps_no_descriptor_open(tmp_path: Path) -> None:
    control = FakeControl({URL: b"x"})
    async with serving(control, tmp_path / "s") as path:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            done = (await events_of(path))[-1]
            os.close(await trio.to_thread.run_sync(client.descriptor, path, done["ticket"]))
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # A connection may still be closing.


@pytest.mark.parametrize("early", [True, False])
async def test_a_failure_crosses_the_socket_as_its_class(tmp_path: Path, early: bool) -> None:
    control = FakeControl(errors={URL: OriginNotFound("404: not there")}, early=early)
    async with serving(control, tmp_path / "s") as path:
        with pytest.raises(OriginNotFound, match="404: not there"):
            await events_of(path)


async def test_an_error_raised_in_mid_stream_is_the_last_line(tmp_path: Path) -> None:
    class Filling(FakeControl):
        async def get(self, request: Any) -> AsyncIterator[Any]:
            async for event in super().get(request):
                yield event
                raise NoSpace("the disk is full")

    async with serving(Filling({URL: b"x"}), tmp_path / "s") as path:
        with pytest.raises(NoSpace):
            await events_of(path)


async def test_a_bug_in_mid_stream_is_told_and_ends_only_this_get(tmp_path: Path) -> None:
    class Buggy(FakeControl):
        async def get(self, request: Any) -> AsyncIterator[Any]:
            async for event in super().get(request):
                yield event
                raise KeyError("bug")

    async with serving(Buggy({URL: b"x"}), tmp_path / "s") as path:
        with pytest.raises(DaemonUnreachable, match="log says why"):
            await events_of(path)
        assert (await asked(path, "GET", "/v1/status"))["peers"] == 2


async def test_a_client_that_goes_away_closes_the_iterator(tmp_path: Path) -> None:
    control = FakeControl({URL: b"x"}, stuck={URL})
    async with serving(control, tmp_path / "s") as path:
        stream = await trio.open_unix_socket(path)
        body = json.dumps({"url": URL}).encode()
        head = f"POST /v1/get HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)
        await control.stuck_now.wait()
        await stream.aclose()
        with trio.fail_after(5):
            await control.withdrawn.wait()


async def test_tables_and_tasks_are_json_objects(tmp_path: Path) -> None:
    control = FakeControl({URL: b"x"})
    async with serving(control, tmp_path / "s") as path:
        assert (await asked(path, "GET", "/v1/status"))["mode"] == "degraded"
        assert len((await asked(path, "GET", "/v1/peers"))["peers"]) == 1
        assert (await asked(path, "GET", "/v1/tasks"))["tasks"][0]["url"] == URL
        prefix = task_of(URL)[:6]
        assert (await asked(path, "GET", f"/v1/tasks/{prefix}"))["task"] == task_of(URL)
        assert (await asked(path, "GET", f"/v1/tasks/{prefix}/explain"))["task"] == task_of(URL)
        assert (await asked(path, "GET", "/v1/scheduler"))["mode"] == "degraded"
        assert (await asked(path, "DELETE", f"/v1/tasks/{prefix}"))["task"] == task_of(URL)
        assert control.removed == [task_of(URL)]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/v1/tasks/ffffffff", TaskNotFound),
        ("GET", "/v1/tasks/ffffffff/explain", TaskNotFound),
        ("GET", "/v1/tasks/..%2f..", UsageError),
        ("GET", "/v1/descriptor", UsageError),
        ("GET", "/v1/descriptor?ticket=nope", TaskNotFound),
        ("GET", "/etc/passwd", UsageError),
        ("GET", "/v1/get", UsageError),
        ("POST", "/v1/status", UsageError),
    ],
)
async def test_what_does_not_exist_is_refused_in_words(
    tmp_path: Path, method: str, target: str, expected: type[PeerdError]
) -> None:
    async with serving(FakeControl(), tmp_path / "s") as path:
        with pytest.raises(expected):
            await asked(path, method, target)


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"url": 5},
        {"url": URL, "colour": "red"},
        {"url": "http://h/" + "x" * 9000},
        {"url": URL, "headers": [["a", "b"]] * 33},
        {"url": URL, "headers": [["a", "b" * 5000]]},
        {"url": URL, "headers": [["a"]]},
        {"url": URL, "tag": "t" * 200},
        {"url": URL, "timeout_s": 0},
        {"url": URL, "priority": 0},
        {"url": URL, "priority": 7},
    ],
)
async def test_a_wish_is_decoded_strictly(tmp_path: Path, wish: Any) -> None:
    control = FakeControl()
    async with serving(control, tmp_path / "s") as path:
        with pytest.raises(UsageError):
            await trio.to_thread.run_sync(lambda: list(client.get(path, wish)))
        assert control.asked == []


# --- the socket's place -----------------------------------------------------------------------


async def test_mode_and_group_stand_and_the_name_goes_with_the_server(tmp_path: Path) -> None:
    place = tmp_path / "made" / "s"
    async with serving(FakeControl(), place, mode=0o660, group=str(os.getgid())):
        assert stat.S_IMODE(place.stat().st_mode) == 0o660
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o755
    assert not place.exists()
    async with serving(FakeControl(), tmp_path / "own" / "s"):
        assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700


async def test_a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not(tmp_path: Path) -> None:
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    async with serving(FakeControl(), place) as path:
        with pytest.raises(UsageError, match="already answers"):
            await ControlServer(FakeControl(), path).run()
        assert (await asked(path, "GET", "/v1/status"))["peers"] == 2


async def test_what_cannot_be_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, words in [
        (tmp_path / "file", "not a socket"),
        (tmp_path / ("x" * 120), "at most 107"),
        (tmp_path / "file" / "s", "cannot be made"),
    ]:
        with pytest.raises(UsageError, match=words):
            await ControlServer(FakeControl(), str(path)).run()
    with pytest.raises(UsageError, match="no group"):
        await ControlServer(FakeControl(), str(tmp_path / "s"), group="nobody-has-this").run()
    assert not (tmp_path / "s").exists()
    assert (tmp_path / "file").read_text() == "mine"
