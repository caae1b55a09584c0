"""Where a request goes: the caller's URL, redirects from there, and through which proxy.

Always: once a redirect has left the caller's scheme, host or port, none of the caller's headers is
sent any more, not even if a later redirect leads back; what is told to people has no query, for
that is where signed URLs keep their secrets.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from peerd.errors import OriginProtocolError, UsageError
from peerd.task import REFUSED_HEADERS, SELECTING_HEADERS, Ask

DEFAULT_PORTS = {"http": 80, "https": 443}
URL_MAX_CHARS = 8192
"""codec.WireUrl; servers commonly take 8 KiB as a whole request line."""
_KEPT = "".join(map(chr, range(0x21, 0x7F)))
"""What is sent as it is: a signed URL must not be written anew."""
_METADATA = (ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200"))
"""The metadata services of AWS over IPv6 and of Alibaba Cloud; the others' are link-local."""
_HOST = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+")

Header = tuple[str, str]


class Site(Struct, frozen=True):
    """What a caller's headers are meant for."""

    scheme: str
    host: str
    port: int


class Route(Struct, frozen=True):
    """One request's URL, and those of the caller's headers that may be sent there."""

    url: str
    headers: tuple[Header, ...]
    crossed: bool = False

    @property
    def site(self) -> Site:
        parts = urlsplit(self.url)
        scheme = parts.scheme.lower()
        return Site(scheme, (parts.hostname or "").lower(), parts.port or DEFAULT_PORTS[scheme])

    @property
    def target(self) -> str:
        """Path and query, as the request line has them."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def redirected(self, location: str) -> Route:
        """The way on; OriginProtocolError where it leads to something that is not read."""
        try:
            url = _sendable(urljoin(self.url, location.strip()) if location else "")
            there = Route(url, ())
            site = there.site
        except (ValueError, KeyError, UsageError) as error:
            raise OriginProtocolError(
                f"{label(self.url)} redirects to something that is no http or https URL; "
                "give the final URL"
            ) from error
        if self.crossed or site != self.site:
            return Route(url, (), crossed=True)
        return Route(url, self.headers)


def first_route(ask: Ask) -> Route:
    """Where a download begins. Headers that peerd sets itself are never taken from the outside:
    a TaskSpec may have come from another peer."""
    selecting = [(name.lower(), value) for name, value in ask.spec.headers]
    private = [(name.lower(), value) for name, value in ask.credentials]
    sent = [pair for pair in selecting if pair[0] in SELECTING_HEADERS]
    sent += [pair for pair in private if pair[0] not in REFUSED_HEADERS]
    return Route(_sendable(ask.spec.url), tuple(sent))


def label(url: str) -> str:
    """The URL as people may read it: without query, fragment and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def proxy_for(
    site: Site, *, http_proxy: str | None, https_proxy: str | None, no_proxy: str
) -> str | None:
    """The proxy to this site. Never for loopback: there, a proxy would be another machine's."""
    proxy = https_proxy if site.scheme == "https" else http_proxy
    if not proxy or _is_loopback(site.host):
        return None
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return None if any(_excludes(entry, site) for entry in entries if entry) else proxy


def is_refused_address(host: str) -> bool:
    """Link-local addresses, and others under which clouds hand out credentials to whoever asks.

    Another member's task may name any URL, and a redirect may too.
    """
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (address.is_link_local or address in _METADATA)


def _sendable(url: str) -> str:
    """The same URL in ASCII, without fragment and password; UsageError where there is none."""
    if len(url) > URL_MAX_CHARS or any(ord(character) < 32 for character in url):
        raise UsageError(f"a URL has control characters, or more than {URL_MAX_CHARS} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:
        raise UsageError(f"{url.partition('?')[0]} is no URL: {error}") from error
    if parts.scheme.lower() not in DEFAULT_PORTS or _HOST.fullmatch(ascii_host) is None:
        raise UsageError(f"{label(url)} is no http or https URL that names a host")
    place = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    place = place if port is None else f"{place}:{port}"
    query = f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
    return f"{parts.scheme.lower()}://{place}{quote(parts.path, safe=_KEPT) or '/'}{query}"


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def _excludes(entry: str, site: Site) -> bool:
    if entry == "*":
        return True
    host, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if port and port != str(site.port):
        return False
    address = _address(site.host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(host.strip("[]"), strict=False)
        except ValueError:
            return False
    suffix = host.removeprefix("*").removeprefix(".")
    return site.host == suffix or site.host.endswith(f".{suffix}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
