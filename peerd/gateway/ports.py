"""What the control API needs from the daemon. Twin: tests/gateway, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from peerd.link.scheduler_messages import PRIORITY_MAX


class GetRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/get. `headers` are the caller's, as typed; `priority` 1 to 6, the most
    urgent."""

    url: str
    digest: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    application: str = ""
    timeout_s: float | None = None
    priority: Annotated[int, Meta(ge=1, le=PRIORITY_MAX)] = PRIORITY_MAX


class GetProgress(Struct, frozen=True, tag="progress", tag_field="event"):
    """One line of the answer while the download runs; at most ten a second."""

    task: str
    bytes_total: int | None
    bytes_held: int
    from_origin: int
    from_peers: int
    from_store: int
    state: str


class GetDone(Struct, frozen=True, tag="done", tag_field="event"):
    """The last line: `ticket` fetches a descriptor (once, within 60 s) on another connection."""

    task: str
    version: str
    bytes: int
    seconds: float
    from_origin: int
    from_peers: int
    from_store: int
    digest: str | None
    validated_s: float
    stale: bool
    ticket: str


class GetFailed(Struct, frozen=True, tag="failed", tag_field="event"):
    """The last line instead: `code` is of errors.py."""

    task: str | None
    code: str
    message: str


GetEvent = GetProgress | GetDone | GetFailed


class Control(Protocol):
    """The daemon, as its control socket sees it. Dicts are JSON objects with §11's keys."""

    def get(self, request: GetRequest) -> AsyncIterator[GetEvent]:
        """Closing the iterator withdraws this caller; the download ends if it was the last."""
        ...

    def descriptor(self, ticket: str) -> int:
        """The descriptor a ticket stands for, now the caller's to close; else TaskNotFound."""
        ...

    def status(self) -> dict[str, Any]: ...
    def peers(self) -> list[dict[str, Any]]: ...
    def scheduler(self) -> dict[str, Any]: ...
    def tasks(self) -> list[dict[str, Any]]: ...
    def task(self, task: str) -> dict[str, Any]:
        """By id or an unambiguous prefix of one; TaskNotFound, UsageError if ambiguous."""
        ...

    def explain(self, task: str) -> dict[str, Any]:
        """Of the same task: why its download went, or goes, as it does."""
        ...

    async def remove(self, task: str) -> dict[str, Any]: ...
