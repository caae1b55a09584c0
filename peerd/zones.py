"""Zones: peers between which bytes are cheap, and the borders between them.

Always: a zone is named by a path (`region/site/rack`), and lies in each of its own prefixes, its
scopes; a peer without a zone lies in no scope. A scope of a version has a keeper of its own, found
like a task's, by hashing the scope's seat among the members that lie in it.
"""

from __future__ import annotations

import hashlib

from peerd.ids import TaskId, VersionId


def scopes(zone: str) -> tuple[str, ...]:
    """All that the zone lies in, the widest first: `a/b` lies in `a` and in `a/b`."""
    names = zone.split("/") if zone else []
    return tuple("/".join(names[:depth]) for depth in range(1, len(names) + 1))


def within(zone: str, scope: str) -> bool:
    """Whether a peer of this zone lies in the scope; everybody lies in the group, ""."""
    return not scope or zone == scope or zone.startswith(f"{scope}/")


def border(own: str, other: str) -> str | None:
    """The widest scope of `own` that a byte from `other` enters; None if it enters none."""
    return next((scope for scope in scopes(own) if not within(other, scope)), None)


def seat_id(version: VersionId, scope: str) -> TaskId:
    """What is ranked for the keeper of a scope, and what its messages name as their task."""
    return TaskId(hashlib.sha256(f"peerd zone\0{version}\0{scope}".encode()).hexdigest())
