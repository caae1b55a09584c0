"""`peerd get` as a process: what it writes, what it says, and what it ends with."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from peerd.errors import (
    DaemonForbidden,
    DigestMismatch,
    OriginCut,
    OriginNotFound,
    OriginUnreachable,
    PeerdError,
)
from tests.cli.running import URL, clean_environment, daemon, left_in, peerd
from tests.gateway.fake_control import FakeControl, task_of

CONTENT = os.urandom(1_000_000)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory for downloads, apart from the socket's."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    return directory


async def test_the_file_is_right_and_the_object_has_its_keys(tmp_path: Path, target: Path) -> None:
    control = FakeControl({URL: CONTENT})
    digest = f"sha256:{'a' * 64}"
    async with daemon(control, tmp_path / "s") as path:
        result = await peerd(
            "get", URL, "-O", str(target / "out"), "--json", "--digest", digest, "-H", "A: b",
            "--header", "C:d:e", "--timeout", "2m", "--socket", path,
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, b"")
    assert (target / "out").read_bytes() == CONTENT
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "task": task_of(URL),
        "version": "b" * 64,
        "bytes": len(CONTENT),
        "seconds": 0.25,
        "from": {"origin": len(CONTENT), "peers": 0, "store": 0},
        "digest": digest,
        "path": str(target / "out"),
    }
    (asked,) = control.asked
    assert asked.headers == (("A", "b"), ("C", "d:e"))
    assert (asked.digest, asked.timeout_s) == (digest, 120.0)


async def test_a_person_reads_one_line_at_the_end(tmp_path: Path, target: Path) -> None:
    async with daemon(FakeControl({URL: CONTENT}), tmp_path / "s") as path:
        talk = await peerd("get", URL, "-O", str(target / "a"), PEERD_SOCKET=path)
        quiet = await peerd("get", URL, "-O", str(target / "b"), "--no-progress", "--socket", path)
    assert talk.stdout == quiet.stdout == quiet.stderr == b""
    assert talk.stderr.decode() == f"{target}/a: 976.6 KiB in 0.25 s (origin 976.6 KiB)\n"


async def test_standard_output_takes_the_bytes(tmp_path: Path) -> None:
    async with daemon(FakeControl({URL: CONTENT}), tmp_path / "s") as path:
        result = await peerd("get", URL, "-O", "-", "--socket", path)
        assert result.stdout == CONTENT
        both = await peerd("get", URL, "-O", "-", "--json", "--socket", path)
        assert (both.returncode, both.stdout) == (2, b"")


async def test_a_reader_that_leaves_early_ends_it_without_a_traceback(tmp_path: Path) -> None:
    async with daemon(FakeControl({URL: CONTENT}), tmp_path / "s") as path:
        command = f"{sys.executable} -m peerd get {URL} -O - --socket {path} | head -c 1"
        result = await trio.run_process(["sh", "-c", command], capture_stdout=True,
                                        capture_stderr=True, env=clean_environment())  # fmt: skip
    assert result.stdout == CONTENT[:1]
    assert result.stderr.startswith(b"peerd: the reader of the output closed it")


async def test_a_directory_takes_the_urls_name(tmp_path: Path, target: Path) -> None:
    url = "http://origin.example/a/file%20name.bin?X-Amz-Signature=1#part"
    async with daemon(
        FakeControl({url: b"x", "http://origin.example/": b"y"}), tmp_path / "s"
    ) as path:
        assert (await peerd("get", url, "-O", str(target), "--socket", path)).returncode == 0
        nameless = await peerd("get", "http://origin.example/", "-O", str(target), "--socket", path)
    assert left_in(target) == ["file name.bin"]
    assert nameless.returncode == 2
    assert b"names no file; name one with -O PATH" in nameless.stderr


async def test_what_was_there_is_replaced_whole_and_keeps_its_mode(
    tmp_path: Path, target: Path
) -> None:
    (target / "real").write_bytes(b"old")
    (target / "real").chmod(0o640)
    (target / "link").symlink_to("real")
    async with daemon(FakeControl({URL: CONTENT}), tmp_path / "s") as path:
        result = await peerd("get", URL, "-O", str(target / "link"), "--socket", path)
    assert result.returncode == 0
    assert (target / "link").is_symlink()
    assert (target / "real").read_bytes() == CONTENT
    assert stat.S_IMODE((target / "real").stat().st_mode) == 0o640
    assert left_in(target) == ["link", "real"]


async def test_a_device_is_written_to_and_never_replaced(tmp_path: Path, target: Path) -> None:
    os.mkfifo(target / "pipe")
    reader = os.open(target / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with daemon(FakeControl({URL: b"through"}), tmp_path / "s") as path:
            result = await peerd("get", URL, "-O", str(target / "pipe"), "--socket", path)
        assert result.returncode == 0
        assert os.read(reader, 100) == b"through"
        assert (target / "pipe").is_fifo()
    finally:
        os.close(reader)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        OriginNotFound("the origin says 404 for that URL; check it"),
        OriginUnreachable("connection refused by origin.example:80"),
        OriginCut("the origin closed the connection 5 times before the end"),
        DigestMismatch("the content has another digest"),
    ],
)
async def test_an_error_is_one_sentence_an_exit_code_and_no_file(
    tmp_path: Path, target: Path, error: PeerdError, early: bool
) -> None:
    (target / "out").write_bytes(b"old")
    control = FakeControl(errors={URL: error}, early=early)
    async with daemon(control, tmp_path / "s") as path:
        result = await peerd("get", URL, "-O", str(target / "out"), "--json", "--socket", path)
    assert result.returncode == error.exit_code
    assert (result.stdout, result.stderr.decode()) == (b"", f"peerd: {error}\n")
    assert (left_in(target), (target / "out").read_bytes()) == (["out"], b"old")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-O", "/proc/nothing/out"], b"cannot be written: No such file"),
        (["-O", "/dev/full/"], b"no directory"),
        (["-O", "/tmp/x", "-H", "novalue"], b"is no header"),
        (["-O", "/tmp/x", "--timeout", "soon"], b"--timeout: 'soon' is not a duration"),
        (["-O", "/tmp/x", "--timeout", "0"], b"more than 0 seconds"),
        (["-O", "/tmp/x", "--socket", "x" * 120], b"at most 107"),
        (["--colour"], b"No such option"),
    ],
)
async def test_what_was_typed_wrong_is_said_before_anything_is_fetched(
    tmp_path: Path, arguments: list[str], words: bytes
) -> None:
    control = FakeControl({URL: CONTENT})
    async with daemon(control, tmp_path / "s") as path:
        result = await peerd("get", URL, *arguments, PEERD_SOCKET=path)
    assert result.returncode == 2
    assert words in result.stderr
    assert b"Traceback" not in result.stderr
    assert control.asked == []


async def test_a_full_target_is_told_from_the_daemons_disk(tmp_path: Path) -> None:
    async with daemon(FakeControl({URL: CONTENT}), tmp_path / "s") as path:
        result = await peerd("get", URL, "-O", "/dev/full", "--socket", path)
    assert result.returncode == 21
    assert result.stderr.startswith(b"peerd: no space for 1000000 bytes at /dev/full; free some")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_get_withdraws_and_leaves_nothing(
    tmp_path: Path, target: Path, number: signal.Signals, code: int
) -> None:
    control = FakeControl({URL: CONTENT}, stuck={URL})
    async with daemon(control, tmp_path / "s") as path, trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "peerd", "get", URL, "-O", str(target / "out")]
        child = await nursery.start(
            lambda task_status: trio.run_process(
                [*command, "--socket", path], check=False, env=clean_environment(),
                stderr=subprocess.PIPE, task_status=task_status,
            )
        )  # fmt: skip
        await control.stuck_now.wait()
        child.send_signal(number)
        said = b""
        async for part in child.stderr:
            said += part
        assert await child.wait() == code
        with trio.fail_after(5):
            await control.withdrawn.wait()
    assert (said, left_in(target)) == (b"", [])


async def test_a_daemon_that_dies_is_told_in_words(tmp_path: Path, target: Path) -> None:
    control = FakeControl({URL: CONTENT}, stuck={URL})
    results = []

    async def get(path: str) -> None:
        results.append(await peerd("get", URL, "-O", str(target / "out"), "--socket", path))

    async with trio.open_nursery() as nursery, daemon(control, tmp_path / "s") as path:
        nursery.start_soon(get, path)
        await control.stuck_now.wait()
    assert results[0].returncode == 3
    assert b"run the command again" in results[0].stderr.lower()
    assert left_in(target) == []


async def test_a_socket_that_one_may_not_open_is_an_error_and_never_a_second_node(
    tmp_path: Path,
) -> None:
    async with daemon(FakeControl(), tmp_path / "s") as path:
        code = await trio.to_thread.run_sync(_as_nobody, path)
    assert code == DaemonForbidden.exit_code


def _as_nobody(path: str) -> int:
    """The exit code of asking as a user who may not. A fork, for root may everything."""
    os.chmod(path, 0)
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        _ask_and_leave(path)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _ask_and_leave(path: str) -> None:
    from peerd.cli import client

    try:
        client.answers(path)
    except PeerdError as error:
        os._exit(error.exit_code)
    finally:
        os._exit(99)
