"""The two ways in which people write where a peer is, and what they mean.

Always: an Address is where to dial and, if it was said, who must answer; multiaddrs are spelled
here and nowhere else.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from msgspec import Struct
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from peerd.errors import RemoteProtocolError, UsageError
from peerd.ids import PeerId
from peerd.signing import public_key_of

_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


class Address(Struct, frozen=True):
    """`host`: an IP address, or a name yet to be resolved. `peer` None: whoever answers."""

    host: str
    port: int
    peer: PeerId | None = None


def parse(text: str) -> Address:
    """From "/ip4/10.0.0.1/tcp/4001[/p2p/…]" or "name:4001"; UsageError says what is wrong."""
    return _from_multiaddr(text) if text.startswith("/") else _from_host_port(text)


def multiaddr(host: str, port: int, peer: PeerId | None = None) -> str:
    """The multiaddr of an IP address or a name, and a port."""
    kind = "ip6" if ":" in host else "ip4" if _is_ip4(host) else "dns"
    return f"/{kind}/{host}/tcp/{port}" + (f"/p2p/{peer}" if peer else "")


def reachable(bound: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """What others can dial of where we listen: the default route's address for a wildcard."""
    found = []
    for host, port in bound:
        if host in ("0.0.0.0", "::"):
            host = _default_route(host)
        found.append((host, port))
    return found


def _from_multiaddr(text: str) -> Address:
    try:
        parts = {
            protocol.name: value
            for protocol, value in Multiaddr(text).items()
            if protocol.name in (*_HOSTS, "tcp", "p2p")
        }
        kinds = [protocol.name for protocol in Multiaddr(text).protocols()]
    except (MultiaddrError, ValueError) as error:
        raise UsageError(f"{text!r} is no multiaddr: {error}") from error
    if not kinds or kinds[0] not in _HOSTS or kinds[1:] not in (["tcp"], ["tcp", "p2p"]):
        raise UsageError(f"{text!r}: peerd dials /ip4, /ip6 or /dns, then /tcp, then /p2p")
    peer = PeerId(parts["p2p"]) if "p2p" in parts else None
    if peer is not None:
        try:
            public_key_of(peer)
        except RemoteProtocolError as error:
            raise UsageError(f"{text!r}: {error}") from error
    return Address(parts[kinds[0]], int(parts["tcp"]), peer)


def _from_host_port(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address; write a multiaddr, or name:port")
    return Address(host, int(port))


def _is_ip4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def _default_route(wildcard: str) -> str:
    """The source address of a datagram that is never sent; loopback where there is no route."""
    family, target, fallback = (
        (socket.AF_INET6, "2001:db8::1", "::1")
        if wildcard == "::"
        else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )  # RFC 5737 and 3849: addresses that are nobody's.
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return fallback
