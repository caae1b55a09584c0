"""What is asked for, and the name under which all peers know it.

Always: a TaskId depends on nothing but what selects the content; two domains (by digest, by URL)
never meet; a caller's credentials are in no TaskSpec and so never leave this machine.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from msgspec import Meta, Struct

from peerd.codec import WireUrl, encode
from peerd.errors import UsageError
from peerd.ids import TaskId
from peerd.manifest import ContentDigest

SELECTING_HEADERS = frozenset({"accept", "accept-language", "user-agent"})
"""Request headers that select a representation. Every other header of a caller may be a credential
and is treated as one."""
REFUSED_HEADERS = frozenset(
    {"range", "if-range", "if-none-match", "if-match", "if-modified-since", "if-unmodified-since",
     "host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te",
     "upgrade"}
)  # fmt: skip
"""Headers that peerd sets itself; a caller's would break the read."""
FILTERED_QUERY = frozenset(
    name.lower()
    for name in (
        "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
        "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-User-Agent", "X-Goog-Algorithm",
        "X-Goog-Credential", "X-Goog-Date", "X-Goog-Expires", "X-Goog-SignedHeaders",
        "X-Goog-Signature", "OSSAccessKeyId", "Expires", "Signature", "SecurityToken",
        "AccessKeyId",
        "q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list",
        "q-url-param-list", "q-signature", "ns",
    )
)  # fmt: skip
"""Query parameters that sign a URL rather than select content; Dragonfly's list."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
SCHEMES = ("http", "https", "file")

_Label = Annotated[str, Meta(max_length=128)]
_Header = tuple[Annotated[str, Meta(max_length=128)], Annotated[str, Meta(max_length=4096)]]


class TaskSpec(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What selects the content: may be told to other members. `headers` are selecting ones only."""

    url: WireUrl
    digest: ContentDigest | None = None
    tag: _Label = ""
    application: _Label = ""
    headers: Annotated[tuple[_Header, ...], Meta(max_length=32)] = ()

    def __post_init__(self) -> None:
        """What comes from others is checked as it is decoded: ValueError refuses it there."""
        try:
            check_url(self.url)
        except UsageError as error:
            raise ValueError(str(error)) from error


class Ask(Struct, frozen=True):
    """A caller's whole wish on this machine: the spec, and headers that stay here."""

    spec: TaskSpec
    credentials: tuple[tuple[str, str], ...] = ()


def ask_for(
    url: str,
    *,
    digest: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    tag: str = "",
    application: str = "",
) -> Ask:
    """An Ask from what a user typed; UsageError says what is wrong with it."""
    check_url(url)
    selecting: list[tuple[str, str]] = []
    credentials: list[tuple[str, str]] = []
    for name, value in headers:
        lowered = name.strip().lower()
        if lowered in REFUSED_HEADERS:
            raise UsageError(f"header {name!r} is set by peerd itself; leave it out")
        if (
            not lowered
            or any(ord(c) < 33 or c == ":" for c in lowered)
            or {"\r", "\n"} & set(value)
        ):
            raise UsageError(f"{name!r}: {value!r} is no HTTP header; write it as 'Name: value'")
        (selecting if lowered in SELECTING_HEADERS else credentials).append(
            (lowered, value.strip())
        )
    if urlsplit(url).username is not None:
        raise UsageError(
            "a password in the URL would be told to other peers; use -H 'Authorization: …'"
        )
    if digest is not None and not _is_digest(digest):
        raise UsageError(f"{digest!r} is no digest; write sha256: and 64 hex digits")
    spec = TaskSpec(url, digest, tag, application, tuple(sorted(selecting)))
    return Ask(spec, tuple(sorted(credentials)))


def check_url(url: str) -> None:
    """UsageError unless peerd can read that URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is no URL: {error}") from error
    if parts.scheme.lower() not in SCHEMES:
        raise UsageError(f"{url!r}: peerd reads http://, https:// and file:// URLs")
    if parts.scheme.lower() != "file" and not parts.hostname:
        raise UsageError(f"{url!r} names no host")
    if any(ord(c) < 33 or 0xD800 <= ord(c) <= 0xDFFF for c in url):
        raise UsageError(
            f"{url!r} has white space or control characters; encode them as %20 and so on"
        )


def canonical_url(url: str) -> str:
    """Lower-case scheme and host, no default port, no fragment, no signature-like parameters."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if parts.port is not None and parts.port != _DEFAULT_PORTS.get(scheme):
        host = f"{host}:{parts.port}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name.lower() not in FILTERED_QUERY]
    query = parts.query if len(kept) == len(pairs) else urlencode(kept, quote_via=quote)
    # Two slashes where no host stands before them would become one.
    path = parts.path if host else "/" + parts.path.lstrip("/")
    return urlunsplit((scheme, host, path or "/", query, ""))


def task_id(ask: Ask, own_secret: bytes) -> TaskId:
    """The name of the content; `own_secret` keeps what may not be shared apart from all others.

    By digest: the digest alone. Else SHA-256 over canonical URL, tag, application and selecting
    headers; credentials and local files enter as an HMAC under `own_secret`, so that such a task
    is this machine's own until a cluster has a secret in common (design.md, section 4.2).
    """
    spec = ask.spec
    if spec.digest is not None:
        return task_of_digest(spec.digest)
    private = ""
    if not is_shared(ask):
        private = hmac.new(own_secret, encode(ask.credentials), hashlib.sha256).hexdigest()
    return _hashed(
        "peerd/task/url", canonical_url(spec.url), spec.tag, spec.application, spec.headers, private
    )


def task_of_digest(digest: str) -> TaskId:
    """The name of content that is known by its digest."""
    return _hashed("peerd/task/digest", digest)


def is_shared(ask: Ask) -> bool:
    """Whether other peers may know this task: known by digest, or the same for every caller."""
    if ask.spec.digest is not None:
        return True
    return not ask.credentials and urlsplit(ask.spec.url).scheme.lower() != "file"


def told_spec(ask: Ask) -> TaskSpec | None:
    """What other members are told so that they can read the origin too.

    None for a path of this machine, and for a signed URL: its signature is a credential.
    """
    parts = urlsplit(ask.spec.url)
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if not is_shared(ask) or parts.scheme.lower() == "file" or names & FILTERED_QUERY:
        return None
    return ask.spec


def _hashed(*parts: object) -> TaskId:
    return TaskId(hashlib.sha256(encode(parts)).hexdigest())


def _is_digest(text: str) -> bool:
    algorithm, _, value = text.partition(":")
    return algorithm == "sha256" and len(value) == 64 and set(value) <= set("0123456789abcdef")
