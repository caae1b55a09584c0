"""The names things go by. Plain strings with a type each, so that none passes for another.

Always: a PeerId is the base58 text of a libp2p peer id; a TaskId and a VersionId are 64 lower-case
hex digits; a PieceIndex counts from 0.
"""

from __future__ import annotations

from typing import NewType

PeerId = NewType("PeerId", str)
TaskId = NewType("TaskId", str)
VersionId = NewType("VersionId", str)
PieceIndex = NewType("PieceIndex", int)
LeaseId = NewType("LeaseId", int)

WIRE_VERSION = 1
"""Stands in every hello; a peer that says another is refused with words (docs/protocol.md)."""
