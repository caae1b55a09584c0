"""`peerd get`: asks the daemon for content, shows how it comes, and makes the caller's copy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from peerd.cli import client
from peerd.cli.output import Target, target_for
from peerd.cli.progress import Progress, Watcher
from peerd.errors import DaemonUnreachable, UsageError
from peerd.units import format_duration, format_size, parse_duration

ATTEMPTS_MAX: Final = 3
"""A daemon that lingers may reach its end just as it is asked: then the next one does it."""


@dataclass(frozen=True)
class Wish:
    """What was typed."""

    url: str
    output: str
    digest: str | None
    headers: Sequence[str]
    timeout: str | None
    priority: int
    linger: str | None
    progress: bool
    as_json: bool
    socket: str | None


def run(wish: Wish) -> None:
    """Downloads, or raises one of errors.py; nothing half-written is left behind."""
    if wish.as_json and wish.output == "-":
        raise UsageError("--json and -O - both want standard output; choose one")
    end_in_order()
    target = target_for(wish.output, wish.url)
    target.check()
    request = {
        "url": wish.url,
        "digest": wish.digest,
        "headers": [_header(text) for text in wish.headers],
        "timeout_s": _timeout(wish.timeout),
        "priority": wish.priority,
    }
    done = _got(wish, request, target)
    if wish.as_json:
        print(json.dumps(summary(done, target)))
    elif wish.progress:
        sys.stderr.write(_words(done, target) + "\n")


def _got(wish: Wish, request: Mapping[str, Any], target: Target) -> dict[str, Any]:
    linger_s = None if wish.linger is None else _duration("--linger", wish.linger)
    path = client.socket_path(wish.socket)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        with _daemon(path, linger_s) as (own, lent):
            try:
                return fetch(own, request, target, Progress(_name(target), wish.progress))
            except DaemonUnreachable:
                if not lent or attempt == ATTEMPTS_MAX:
                    raise
    raise AssertionError("the last attempt returns or raises")


def fetch(
    path: str, request: Mapping[str, Any], target: Target, progress: Watcher
) -> dict[str, Any]:
    """One download by the daemon at `path` into `target`; its `done` event."""
    done: dict[str, Any] = {}
    try:
        for event in client.get(path, request):
            if event["event"] == "done":
                done = event
            else:
                progress.show(event)
        descriptor = client.descriptor(path, done["ticket"])
        try:
            target.write(descriptor, done["bytes"])
        finally:
            os.close(descriptor)
    finally:
        progress.end()
    return done


def summary(done: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The object of --json (design.md, section 11)."""
    return {
        "task": done["task"],
        "version": done["version"],
        "bytes": done["bytes"],
        "seconds": done["seconds"],
        "from": {name: done[f"from_{name}"] for name in ("origin", "peers", "store")},
        "digest": done["digest"],
        "path": target.path,
    }


@contextlib.contextmanager
def _daemon(path: str, linger_s: float | None) -> Iterator[tuple[str, bool]]:
    """The socket of the running daemon, or of one for this download; whether it may end itself."""
    if client.answers(path):
        yield path, False
        return
    from peerd.cli import ephemeral

    with ephemeral.daemon(linger_s=linger_s) as own:
        yield own


def end_in_order() -> None:
    """SIGTERM and SIGHUP unwind like Ctrl-C: temporary files and our daemon go."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise UsageError(f"{text!r} is no header; write -H 'Name: value'")
    return name.strip(), value.strip()


def _timeout(text: str | None) -> float | None:
    """Seconds from what --timeout was given."""
    if text is None:
        return None
    timeout_s = _duration("--timeout", text)
    if timeout_s <= 0:
        raise UsageError("--timeout: a timeout is more than 0 seconds")
    return timeout_s


def _duration(flag: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _name(target: Target) -> str:
    return os.path.basename(target.path)


def _words(done: Mapping[str, Any], target: Target) -> str:
    sources = ", ".join(
        f"{words} {format_size(done[key])}"
        for words, key in (("origin", "from_origin"), ("peers", "from_peers"),
                           ("already here", "from_store"))
        if done[key]
    )  # fmt: skip
    text = f"{target.path}: {format_size(done['bytes'])} in {format_duration(done['seconds'])}"
    text += f" ({sources})" if sources else ""
    if done["stale"]:
        age = format_duration(done["validated_s"])
        text += f"; the origin does not answer: this is what it gave {age} ago"
    return text
