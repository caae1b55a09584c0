"""What the HTTP library raises, in our words: who must act, and whether another try may help.

Always: every failure of the network or of the origin's HTTP is one of FAILURES; `translated` is
the only place that looks inside one.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import h2.exceptions
import h11
import httpcore
import trio

from peerd.errors import (
    OriginProtocolError,
    OriginRefused,
    OriginUnreachable,
    PeerdError,
    UsageError,
)
from peerd.origin.patience import Transient
from peerd.origin.routes import Route, label
from peerd.origin.streams import AddressRefused

FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.ProxyError,
    h2.exceptions.H2Error,
    trio.TooSlowError,
)
_UNKNOWN_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_PROXY_REFUSALS = ("401", "403", "407")


class SpeaksSomethingElse(Exception):
    """Over TLS, the other end took HTTP/1.1 for a mistake: it may speak HTTP/2."""


def translated(error: Exception, route: Route) -> Exception:
    """PeerdError: final. Transient: another try may help. SpeaksSomethingElse."""
    place = f"{route.site.host}:{route.site.port}"
    match error:
        case httpcore.ConnectError():
            return _no_connection(error, route, place)
        case httpcore.ProxyError() if str(error).startswith(_PROXY_REFUSALS):
            return OriginRefused(f"the proxy refuses to connect to {place}: {error}")
        case httpcore.ProxyError():
            return _unreachable(f"the proxy does not reach {place}: {error}; check both")
        case httpcore.LocalProtocolError() if _caused_by(error, h11.LocalProtocolError):
            return UsageError(f"a header for {label(route.url)} cannot be sent: {error}")
        case httpcore.RemoteProtocolError() if _caused_by(error, h11.RemoteProtocolError):
            if route.site.scheme == "https":
                return SpeaksSomethingElse()
            return Transient(
                OriginProtocolError(f"{place} answers with what is no HTTP; check the port")
            )
        case httpcore.TimeoutException() | trio.TooSlowError():
            silent = f"{place} does not answer; check that it runs and is reachable"
            return Transient(OriginUnreachable(silent), slow=True)
        case _:
            return _unreachable(f"{place} closes the connection without an answer; try again later")


def address_refused(route: Route) -> PeerdError:
    return OriginRefused(
        f"{label(route.url)} leads to a link-local or metadata address, which peerd does not read"
    )


def _no_connection(error: Exception, route: Route, place: str) -> Exception:
    for cause in _causes(error):
        match cause:
            case AddressRefused():
                return address_refused(route)
            case ssl.SSLCertVerificationError():
                return OriginUnreachable(
                    f"the certificate of {place} is not trusted ({cause.verify_message}); "
                    "if it is right, give the file of its CA in the configuration"
                )
            case ssl.SSLError() if cause.reason and "NO_APPLICATION_PROTOCOL" in cause.reason:
                return SpeaksSomethingElse()
            case ssl.SSLError() if not isinstance(cause, ssl.SSLEOFError):
                words = f"TLS with {place} fails ({cause.reason}); check port and scheme"
                return OriginUnreachable(words)
            case ssl.SSLEOFError():
                return _unreachable(f"{place} ended the TLS handshake; check port and scheme")
            case socket.gaierror() if cause.errno in _UNKNOWN_NAME:
                return OriginUnreachable(
                    f"no machine is known by the name {route.site.host}; check the URL"
                )
    reason = next((text for cause in _causes(error) if (text := _reason(cause))), str(error))
    return _unreachable(f"cannot connect to {place}: {reason}; check that the origin runs")


def _unreachable(words: str) -> Transient:
    return Transient(OriginUnreachable(words))


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies under it; groups come from trio's attempts at each address.

    httpcore's pool raises `from None`, which leaves the context and takes the cause away.
    """
    pending, seen = [error], 0
    while pending and seen < 32:
        cause = pending.pop(0)
        seen += 1
        yield cause
        pending += [under for under in (cause.__cause__, cause.__context__) if under is not None]
        if isinstance(cause, BaseExceptionGroup):
            pending.extend(cause.exceptions)


def _reason(cause: BaseException) -> str:
    return cause.strerror or "" if isinstance(cause, OSError) else ""
