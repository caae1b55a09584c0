"""One frozen Config, from defaults < file < environment < flags.

Always: every value was checked, whatever layer it came from, by the same parser; addresses stay
strings; a refused key or value is named with the place that it came from, for a file with the
line. Nothing else in peerd reads the environment for settings.
"""

from __future__ import annotations

import os
import re
import socket as sockets
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from peerd.config.parsers import PARSERS, Reserve
from peerd.config.sources import ConfigFile, Given, gather, read_file
from peerd.errors import UsageError
from peerd.gateway.places import check_socket_path, default_data_dir, default_socket

__all__ = ["Config", "OriginConfig", "Reserve", "load"]

OVERLAY_PORT: Final = 4010
"""Guess: unassigned at IANA, and near 4001, where people look for libp2p. Links: one above."""


class OriginConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How origins are reached. Proxies and the CA file default from the usual variables."""

    ca_file: str | None = None
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str = ""


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a daemon. Keys are the flags of `peerd join`, with underscores.

    `link_listen` and the entries of `bootstrap` and `announce` may be host:port; those of `listen`
    are multiaddrs. Limits are bytes per second, None for no limit.
    """

    data_dir: str
    listen: tuple[str, ...]
    link_listen: str
    announce: tuple[str, ...]
    bootstrap: tuple[str, ...]
    zone: str
    seed_peer: bool
    scheduler: bool
    evaluator: str | None
    name: str
    metrics_listen: str | None
    health_listen: str | None
    socket: str
    socket_mode: int
    socket_group: str | None
    upload_limit: int | None
    download_limit: int | None
    disk_reserve: Reserve
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["text", "json"]
    cluster: str
    fresh_s: float
    linger_s: float
    origin: OriginConfig
    ephemeral: bool


def load(
    overrides: Mapping[str, object] | None = None,
    *,
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    user_id: int | None = None,
) -> Config:
    """The Config of a daemon; UsageError names the key, the place and what is accepted.

    `overrides` are the flags, by key ("origin.ca_file" for one of a section); a value of None
    counts as not given. Without `file`, PEERD_CONFIG names one.
    """
    environment = os.environ if environment is None else environment
    user_id = os.geteuid() if user_id is None else user_id
    path = file or environment.get("PEERD_CONFIG")
    source = read_file(path) if path else None
    given = gather(overrides or {}, source, environment)
    return _build(given, source, environment, user_id)


def _build(
    given: Mapping[str, Given],
    source: ConfigFile | None,
    environment: Mapping[str, str],
    user_id: int,
) -> Config:
    values: dict[str, Any] = {}
    for key, said in given.items():
        try:
            values[key] = PARSERS[key](said.value)
        except (ValueError, UsageError) as error:
            raise UsageError(f"{said.where(source)}: {error}") from error
    _default(values, environment, user_id)
    origin = {key: values.pop(key) for key in list(values) if key.startswith("origin.")}
    values["origin"] = {key.removeprefix("origin."): value for key, value in origin.items()}
    try:
        return msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"the settings do not fit together: {error}") from error


def _default(values: dict[str, Any], environment: Mapping[str, str], user_id: int) -> None:
    """What was not said, where it depends on what was."""
    data_dir = values.setdefault("data_dir", default_data_dir(environment, user_id))
    if "socket" not in values:
        values["socket"] = check_socket_path(default_socket(environment, user_id, data_dir))
    # A daemon for one download takes any free port: it must start beside whatever runs here.
    port = 0 if values.setdefault("ephemeral", False) else OVERLAY_PORT
    listen = values.setdefault("listen", (f"/ip4/127.0.0.1/tcp/{port}",))
    values.setdefault("link_listen", _link_beside(listen[0]))
    for key, address in _WATCHED_AT.items():
        values.setdefault(key, None if values["ephemeral"] else address)
    values.setdefault("name", _host_name())
    for key, value in _DEFAULTS.items():
        values.setdefault(key, value)
    values.setdefault("scheduler", values["seed_peer"])


def _link_beside(listen: str) -> str:
    """Links listen where the overlay does, one port above it."""
    _, version, host, _, port = listen.split("/")
    host = f"[{host}]" if version == "ip6" else host
    number = int(port)
    return f"{host}:{number + 1 if 0 < number < 65535 else 0}"


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", sockets.gethostname())[:64] or "peer"


_WATCHED_AT: Final = {"metrics_listen": "127.0.0.1:4002", "health_listen": "127.0.0.1:4003"}
"""The ports that Dragonfly's users have configured. A daemon for one download has none."""

_DEFAULTS: Final[dict[str, Any]] = {
    "announce": (),
    "bootstrap": (),
    "zone": "",
    "seed_peer": False,
    "evaluator": None,
    "socket_mode": 0o600,
    "socket_group": None,
    "upload_limit": None,
    "download_limit": None,
    "disk_reserve": Reserve(share=0.10),  # The example; a full disk harms everybody on it.
    "log_level": "info",
    "log_format": "text",
    "cluster": "default",
    "linger_s": 60.0,  # Guess: the time of 6 GB at 100 MB/s; it ends sooner where nobody asks.
    "fresh_s": 60.0,  # Guess: a minute-old answer is what a CDN would give, too.
}
