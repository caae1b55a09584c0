"""One parser for each key: from a TOML value, a variable or a flag to what Config holds.

Always: a parser returns a value that the daemon can use as it is, or raises UsageError (ValueError
from units) in words that say what is accepted.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from peerd.errors import UsageError
from peerd.gateway.places import check_socket_path
from peerd.units import parse_duration, parse_size

LIST_MAX: Final = 64

Kind = TypeVar("Kind")


class Reserve(Struct, frozen=True):
    """Disk space that stays free: a share of the file system, or bytes."""

    share: float = 0.0
    size_bytes: int = 0

    def of(self, file_system_bytes: int) -> int:
        """Bytes to keep free on a file system of that size."""
        return max(self.size_bytes, int(self.share * file_system_bytes))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a text")
    if not value.isprintable():
        raise UsageError(f"{value!r} has control characters")
    return value


def _label(length_max: int) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = _text(value)
        if not re.fullmatch(r"[A-Za-z0-9._-]+", text) or len(text) > length_max:
            raise UsageError(
                f"{text!r} is no name; write 1 to {length_max} letters, digits, '.', '_' or '-'"
            )
        return text

    return parse


def _flag(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise UsageError(f"{value!r} is neither true nor false")


def _choice(*allowed: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = _text(value).lower()
        if text not in allowed:
            raise UsageError(f"{text!r} is not one of {', '.join(allowed)}")
        return text

    return parse


def _list(each: Callable[[str], str], *, least: int = 0) -> Callable[[object], tuple[str, ...]]:
    """A list, or one text with commas (variables have no lists)."""

    def parse(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise UsageError(f"{value!r} is not a list of texts")
        if not least <= len(value) <= LIST_MAX:
            raise UsageError(f"{len(value)} entries; write {least} to {LIST_MAX}")
        return tuple(each(_text(entry)) for entry in value)

    return parse


def _number(parse: Callable[[str], Kind], value: object) -> Kind:
    """A number of a base unit, or a text with a unit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UsageError(f"{value!r} is neither a number nor a text")
    return parse(value if isinstance(value, str) else str(value))


def _limit(value: object) -> int:
    limit_bytes_s = _number(parse_size, value)
    if limit_bytes_s <= 0:
        raise UsageError("a limit is more than 0 bytes a second; leave it out for no limit")
    return limit_bytes_s


def _duration(value: object) -> float:
    return _number(parse_duration, value)


def _reserve(value: object) -> Reserve:
    if isinstance(value, str) and value.strip().endswith("%"):
        percent = float(value.strip()[:-1])
        if not 0 <= percent < 100:
            raise UsageError(f"{value!r} is not from 0% to below 100%")
        return Reserve(share=percent / 100)
    return Reserve(size_bytes=_number(parse_size, value))


def _mode(value: object) -> int:
    try:
        mode = int(value, 8) if isinstance(value, str) else value
    except ValueError:
        mode = None
    if (
        isinstance(mode, bool)
        or not isinstance(mode, int)
        or mode & ~0o777
        or mode & 0o600 != 0o600
    ):
        raise UsageError(f"{value!r} is no mode of a socket; write it in octal, like 0600 or 0660")
    return mode


def _directory(value: object) -> str:
    text = _text(value)
    if not text:
        raise UsageError("an empty path")
    return os.path.abspath(os.path.expanduser(text))


def _file(value: object) -> str:
    path = _directory(value)
    if not os.path.isfile(path):
        raise UsageError(f"there is no file {path}")
    return path


def _socket(value: object) -> str:
    return check_socket_path(_text(value))


def _zone(value: object) -> str:
    text = _text(value)
    part = r"[A-Za-z0-9._-]{1,32}"
    if text and not re.fullmatch(rf"{part}(/{part}){{0,3}}", text):
        raise UsageError(f"{text!r} is no zone; write up to four names like region/site/rack")
    return text


def _proxy(value: object) -> str:
    """A URL; host:port means http, as for curl. No refusal quotes it: it may hold a password."""
    text = _text(value)
    text = text if "://" in text else f"http://{text}"
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("a proxy is an http:// or https:// URL")
    return text


# --- addresses ------------------------------------------------------------------------------

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?")
_PEER = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,64}")


def _listen(text: str) -> str:
    parts = text.split("/")
    if len(parts) != 5 or parts[0] or parts[1] not in ("ip4", "ip6") or parts[3] != "tcp":
        raise UsageError(f"{text!r} is no address to listen on; write /ip4/127.0.0.1/tcp/4010")
    _ip(parts[2], 4 if parts[1] == "ip4" else 6)
    _port(parts[4], least=0)
    return text


def _dialled(text: str) -> str:
    """A multiaddr over TCP, with or without a peer id, or host:port."""
    if not text.startswith("/"):
        return _host_port(text, least=1)
    parts = text.split("/")[1:]
    protocol, ending = parts[0], parts[4:]
    if len(parts) < 4 or parts[2] != "tcp" or protocol not in ("ip4", "ip6", "dns", "dns4", "dns6"):
        raise UsageError(f"{text!r} is no address; write /ip4/192.0.2.1/tcp/4010 or host:port")
    if protocol.startswith("ip"):
        _ip(parts[1], int(protocol[2:]))
    elif not _HOST.fullmatch(parts[1]):
        raise UsageError(f"{parts[1]!r} is no host name")
    _port(parts[3], least=1)
    if ending and (len(ending) != 2 or ending[0] != "p2p" or not _PEER.fullmatch(ending[1])):
        raise UsageError(f"{text!r} ends in {'/'.join(ending)!r}; only /p2p/<peer id> may follow")
    return text


def _link_listen(value: object) -> str:
    text = _host_port(_text(value), least=0)
    _ip(text.rpartition(":")[0].strip("[]"), None)
    return text


def _listen_or_off(value: object) -> str | None:
    """TOML has no null, a variable and a flag neither."""
    return None if value in ("off", None) else _link_listen(value)


def _host_port(text: str, *, least: int) -> str:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise UsageError(f"{text!r} has no port; write host:port")
    if host.startswith("[") and host.endswith("]"):
        _ip(host[1:-1], 6)
    elif not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} is no host; write host:port, or [address]:port for IPv6")
    _port(port, least=least)
    return text


def _ip(text: str, version: int | None) -> None:
    address = ipaddress.ip_address(text)
    if version is not None and address.version != version:
        raise UsageError(f"{text!r} is not an IPv{version} address")


def _port(text: str, *, least: int) -> None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and least <= int(text) <= 65535):
        raise UsageError(f"{text!r} is no port; write {least} to 65535")


PARSERS: Final[dict[str, Callable[[object], Any]]] = {
    "data_dir": _directory,
    "listen": _list(_listen, least=1),
    "link_listen": _link_listen,
    "metrics_listen": _listen_or_off,
    "health_listen": _listen_or_off,
    "announce": _list(_dialled),
    "bootstrap": _list(_dialled),
    "zone": _zone,
    "seed_peer": _flag,
    "scheduler": _flag,
    "evaluator": _label(64),
    "name": _label(64),
    "socket": _socket,
    "socket_mode": _mode,
    "socket_group": _label(64),
    "upload_limit": _limit,
    "download_limit": _limit,
    "disk_reserve": _reserve,
    "log_level": _choice("debug", "info", "warning", "error"),
    "log_format": _choice("text", "json"),
    "cluster": _label(64),
    "fresh_s": _duration,
    "linger_s": _duration,
    "origin.ca_file": _file,
    "origin.http_proxy": _proxy,
    "origin.https_proxy": _proxy,
    "origin.no_proxy": _text,
    "ephemeral": _flag,
}
