"""The file that tells the next run who was here and what generation we had reached.

Always: replaced as a whole, readable by its owner alone (0600); losing it costs time, never truth,
so a file that cannot be read counts as none. The one edge of gossip to the disk.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from peerd.gossip.dialling import KNOWN_MAX
from peerd.gossip.membership import BOOTS_MAX, Past
from peerd.gossip.records import GENERATION_MAX, TTL_MAX_S, WireBoot

STATE_MAX_BYTES = 64 * 1024


class State(Struct, frozen=True, forbid_unknown_fields=True):
    generation: Annotated[int, Meta(ge=0, le=GENERATION_MAX)] = 0
    ttl_s: Annotated[float, Meta(ge=1, le=TTL_MAX_S)] = 1.0
    boots: Annotated[tuple[WireBoot, ...], Meta(max_length=BOOTS_MAX)] = ()
    known: Annotated[
        tuple[Annotated[str, Meta(max_length=512)], ...], Meta(max_length=KNOWN_MAX)
    ] = ()

    @property
    def past(self) -> Past:
        return Past(self.generation, self.ttl_s, self.boots)


def state_of(past: Past, known: tuple[str, ...]) -> State:
    return State(past.generation, past.ttl_s, past.boots, known)


def read_state(path: Path) -> tuple[State, str | None]:
    """The state, and in words why it is an empty one, if something was there but no good."""
    try:
        with path.open("rb") as file:
            data = file.read(STATE_MAX_BYTES)
        return msgspec.json.decode(data, type=State), None
    except FileNotFoundError:
        return State(), None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return State(), f"{path} cannot be used ({error}); going on without what it knew"


def write_state(path: Path, state: State) -> None:
    """Blocking. OSError if it cannot be written; the file before is then untouched."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it 0600
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
