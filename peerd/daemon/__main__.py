"""`python -m peerd.daemon '{"key": value, …}'`: the process. Exit codes are the errors' own.

Always: what a user can mend ends in one sentence on standard error, never in a traceback; standard
output says how to reach this peer, and "ready" when it can be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

import trio

from peerd import __version__
from peerd.cluster.admission import OPEN_WARNING
from peerd.config import Config, load
from peerd.daemon.ephemeral import remove_place, watch_parent
from peerd.daemon.process import notify_ready, set_up_logging, watch_signals
from peerd.daemon.wiring import Daemon, announced_host, running
from peerd.errors import PeerdError, UsageError

STOP_S: Final = 4.5
"""From SIGTERM to the end: the promise is 5 s. What is not closed by then is cut off."""


def main(arguments: list[str]) -> int:
    """Runs a daemon until it is stopped; returns the exit code."""
    try:
        config = _config(arguments)
        set_up_logging(config.log_level, config.log_format)
        trio.run(_run, config, strict_exception_groups=True)
    except PeerdError as error:
        return _say(error)
    except BaseExceptionGroup as group:
        known, rest = group.split(PeerdError)
        if known is None or rest is not None:
            raise
        return _say(_first(known))
    return 0


def _config(arguments: list[str]) -> Config:
    try:
        overrides: dict[str, Any] = json.loads(arguments[0]) if arguments else {}
    except (json.JSONDecodeError, AttributeError) as error:
        raise UsageError(f"the settings are no JSON object: {error}; use `peerd join`") from error
    return load(overrides, file=overrides.pop("config", None))


async def _run(config: Config) -> None:
    stop = trio.CancelScope()
    async with trio.open_nursery() as watchers:
        await watchers.start(watch_signals, stop)
        async with running(config, stop) as daemon:
            if config.ephemeral:
                watchers.start_soon(watch_parent, stop, daemon)
            _greet(daemon)
            notify_ready()
            with stop:
                await trio.sleep_forever()
            watchers.cancel_scope.deadline = trio.current_time() + STOP_S
        watchers.cancel_scope.cancel()
    if config.ephemeral:
        remove_place(config.socket)
    if daemon.conflict:
        raise daemon.conflict[0]


def _greet(daemon: Daemon) -> None:
    """What a person needs to go on, and then "ready"."""
    overlay, config = daemon.overlay.addresses(), daemon.config
    print(f"peerd {__version__}, peer {daemon.key.peer_id}")
    for address in overlay:
        print(f"  overlay  {address}")
    for address in daemon.links.listening:
        print(f"  links    {address}")
    print(f"  socket   {config.socket}")
    if config.metrics_listen is not None:
        print(f"  metrics  http://{config.metrics_listen}/metrics")
    if config.health_listen is not None:
        print(f"  health   http://{config.health_listen}/healthy")
    print(f"  {OPEN_WARNING}")
    if not config.ephemeral:
        print(f"on the next machine type: {_invitation(overlay, config)}")
    print("ready", flush=True)


def _invitation(overlay: Sequence[str], config: Config) -> str:
    """A command that joins this peer; from elsewhere only if it listens elsewhere."""
    cluster = "" if config.cluster == "default" else f" --cluster {config.cluster}"
    if not overlay:
        return f"peerd join --bootstrap HOST:PORT{cluster}"
    host = announced_host(overlay[0])
    if host in ("127.0.0.1", "[::1]"):
        return (
            f"peerd join --bootstrap HOST:PORT{cluster}   (this peer listens on loopback only; "
            "start it with --listen /ip4/0.0.0.0/tcp/4010 for others to reach it)"
        )
    return f"peerd join --bootstrap {overlay[0]}{cluster} --listen /ip4/0.0.0.0/tcp/4010"


def _say(error: PeerdError) -> int:
    print(f"peerd: {error}", file=sys.stderr)
    return error.exit_code


def _first(group: BaseExceptionGroup[PeerdError]) -> PeerdError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, PeerdError), "split by class"
    return error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
