"""Small sums for reads: which pieces lie together, and which of several errors to tell.

Always: pure; nothing here knows of a lease.
"""

from __future__ import annotations

from peerd.errors import NoSpace, OriginChanged, OriginRefused, PeerdError


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
