"""Small sums for reads: which pieces lie together, which of several errors to tell, and which
version an origin's answer pins.

Always: nothing here waits or knows of a lease.
"""

from __future__ import annotations

import os

from peerd.errors import NoSpace, OriginChanged, OriginRefused, PeerdError
from peerd.ids import TaskId
from peerd.manifest import VersionInfo, version_id
from peerd.origin.facts import OriginFacts
from peerd.pieces import piece_length_for
from peerd.signing import SigningKey


def runs_of(indices: tuple[int, ...]) -> list[tuple[int, int]]:
    """Consecutive indices as (first, count)."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and runs[-1][0] + runs[-1][1] == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def telling(group: BaseExceptionGroup[PeerdError]) -> PeerdError:
    """The error that says most: a change or a refusal before what followed from it."""
    errors: list[PeerdError] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        elif isinstance(error, PeerdError):
            errors.append(error)
    errors.sort(key=lambda e: not isinstance(e, (OriginChanged, OriginRefused, NoSpace)))
    return errors[0]


def version_read(
    task: TaskId, digest: str | None, facts: OriginFacts, key: SigningKey
) -> VersionInfo:
    """What the answer pins, vouched for. Parallel reads need ranges and something to hold on to."""
    length = facts.length_bytes
    validator = facts.validator if digest is None else None
    pinned = validator is not None or digest is not None
    return VersionInfo(
        task=task,
        version=version_id(
            task, digest=digest, validator=validator, length_bytes=length, nonce=os.urandom(16)
        ),
        length_bytes=length,
        piece_length_bytes=piece_length_for(length),
        validator=validator,
        ranged=facts.ranged and length is not None and pinned,
        digest=digest,
        attester=key.peer_id,
        signature=b"\0" * 64,
    ).signed(key)
