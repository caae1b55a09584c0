"""What an operator may put in the place of a part of ours: the scheduler's evaluator.

Always: a plugin that is named and cannot be used is said at start; one that fails later is said
once, and ours goes on in its place: advice is a hint, a daemon that ends is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from peerd.errors import UsageError
from peerd.scheduler.evaluator import Candidate, Child, Evaluator, evaluate

log = logging.getLogger(__name__)

GROUP: Final = "peerd.evaluator"
"""The entry points' group, in the pyproject.toml of whoever offers one."""


def evaluator_named(name: str | None) -> Evaluator:
    """That of the installed package which offers it under this name; ours where none is named."""
    if name is None:
        return evaluate
    from importlib.metadata import entry_points  # Hardly anybody needs it; a start is short.

    found = list(entry_points(group=GROUP, name=name))
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise UsageError(
            f"no installed package offers the evaluator {name!r} (entry point group {GROUP}; there "
            f"are: {known}); install it into peerd's environment, or leave --evaluator out"
        )
    try:
        loaded = found[0].load()
    except Exception as error:  # Whatever its import raises is for its author to mend.
        raise UsageError(f"the evaluator {name!r} cannot be loaded: {error!r}") from error
    if not callable(loaded):
        raise UsageError(f"the evaluator {name!r} is no function, but {type(loaded).__name__}")
    return Guarded(name, loaded)


class Guarded:
    """An evaluator that is asked until it fails, or answers with what are no numbers."""

    def __init__(self, name: str, theirs: Evaluator) -> None:
        self._name = name
        self._theirs: Evaluator | None = theirs

    def __call__(self, child: Child, candidates: Sequence[Candidate]) -> Sequence[float]:
        if self._theirs is not None:
            try:
                return [float(score) for score in self._theirs(child, candidates)]
            except Exception:  # It is not ours, and must not end the daemon.
                log.exception("the evaluator %s failed; peerd's own goes on instead", self._name)
                self._theirs = None
        return evaluate(child, candidates)
