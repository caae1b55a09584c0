"""Every error peerd raises on purpose. The class says who must act.

Always: `exit_code` is what the command line ends with, `http_status` what a client of the control
API or the gateway gets, `code` the word scripts match on; each is unique to its class, and the
message is one sentence that says what happened and what to do.
"""

from __future__ import annotations


class PeerdError(Exception):
    """Base of all below; raised itself for nothing."""

    exit_code = 70
    http_status = 500
    code = "internal"


class UsageError(PeerdError):
    """The user must act: a wrong flag, key, value or path."""

    exit_code, http_status, code = 2, 400, "usage"


class DaemonUnreachable(PeerdError):
    """No daemon answers on the control socket, and none could be started."""

    exit_code, http_status, code = 3, 503, "daemon-unreachable"


class DaemonForbidden(PeerdError):
    """The control socket is there, but this user may not open it."""

    exit_code, http_status, code = 4, 403, "daemon-forbidden"


class TaskNotFound(PeerdError):
    """The named task is not in this peer's store."""

    exit_code, http_status, code = 5, 404, "task-not-found"


class OriginNotFound(PeerdError):
    """The origin says that the content is not there (404, 410)."""

    exit_code, http_status, code = 10, 404, "origin-not-found"


class OriginRefused(PeerdError):
    """The origin refuses this caller (401, 403, 407): credentials are missing or wrong."""

    exit_code, http_status, code = 11, 403, "origin-refused"


class OriginUnreachable(PeerdError):
    """The origin cannot be reached: name, connection or TLS failed, or it stopped answering."""

    exit_code, http_status, code = 12, 502, "origin-unreachable"


class OriginCut(PeerdError):
    """The origin closed the connection before the end, again and again."""

    exit_code, http_status, code = 13, 502, "origin-cut"


class OriginChanged(PeerdError):
    """The content at the origin is not the version that was begun."""

    exit_code, http_status, code = 14, 502, "origin-changed"


class OriginBusy(PeerdError):
    """The origin answers 429 or 5xx; `retry_after_s` is what it asked for, if it did."""

    exit_code, http_status, code = 15, 503, "origin-busy"
    retry_after_s: float | None = None


class OriginProtocolError(PeerdError):
    """The origin's answer makes no sense: a wrong range, a body longer than it said."""

    exit_code, http_status, code = 16, 502, "origin-protocol"


class DigestMismatch(PeerdError):
    """The whole content does not have the digest that was asked for."""

    exit_code, http_status, code = 20, 502, "digest-mismatch"


class NoSpace(PeerdError):
    """The disk is full, or at its reserve."""

    exit_code, http_status, code = 21, 507, "no-space"


class TimedOut(PeerdError):
    """The time that the caller allowed is over."""

    exit_code, http_status, code = 22, 504, "timed-out"


class Cancelled(PeerdError):
    """The download was ended by its caller or by the daemon's shutdown."""

    exit_code, http_status, code = 23, 503, "cancelled"


class StoreDamaged(PeerdError):
    """The data directory cannot be used: another daemon holds it, or the journal is not ours."""

    exit_code, http_status, code = 24, 500, "store-damaged"


class IdentityCloned(PeerdError):
    """Another live daemon has this peer's identity (a golden image was copied)."""

    exit_code, http_status, code = 25, 500, "identity-cloned"


class PeerUnreachable(PeerdError):
    """No link to that peer can be opened now."""

    exit_code, http_status, code = 40, 502, "peer-unreachable"


class RemoteProtocolError(PeerdError):
    """A peer sent what the protocol does not allow. The peer must act; we close and go on."""

    exit_code, http_status, code = 41, 502, "remote-protocol"


class AdmissionRefused(PeerdError):
    """The cluster does not admit that peer, or it does not admit us."""

    exit_code, http_status, code = 42, 403, "admission-refused"


def error_classes() -> dict[str, type[PeerdError]]:
    """Every class by its `code`: how an error crosses the control socket or a link."""
    found: dict[str, type[PeerdError]] = {PeerdError.code: PeerdError}
    pending = PeerdError.__subclasses__()
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending += cls.__subclasses__()
    return found


def error_from(code: str, message: str) -> PeerdError:
    """The error a `code` stands for; an unknown code becomes a plain PeerdError."""
    return error_classes().get(code, PeerdError)(message)
