"""One content that simulated peers want: what the origin says of it, and who vouches for what.

Always: its version is the same for all; a piece's digest is made of its number, and is another one
where whoever read it lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peerd.ids import PeerId, PieceIndex
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.pieces import piece_length_for
from peerd.task import Ask, TaskSpec, task_id

if TYPE_CHECKING:
    from tools.sim.peer import SimPeer

VALIDATOR: Final = '"v1"'


class Content:
    """`digest`: whether it is known; `priority`: of all who want it."""

    def __init__(self, number: int, length_bytes: int, priority: int, *, digest: bool) -> None:
        self.number, self.length_bytes, self.priority = number, length_bytes, priority
        named = f"sha256:{number + 0xAB:02x}" + "ab" * 31 if digest else None
        self.spec = TaskSpec(f"https://origin.example/content-{number}", named)
        self.task = task_id(Ask(self.spec), b"")
        self.validator = None if digest else VALIDATOR
        self.version_id = version_id(
            self.task, digest=named, validator=self.validator, length_bytes=length_bytes, nonce=b""
        )
        self.count = -(-length_bytes // piece_length_for(length_bytes))
        self.nobody = Attestation("0" * 64, 0, bytes(32), "", bytes(64))  # type: ignore[arg-type]
        self._versions: dict[PeerId, VersionInfo] = {}
        self._verified: dict[int, VersionInfo] = {}

    def version_by(self, peer: SimPeer) -> VersionInfo:
        """What the origin says, vouched for by `peer`."""
        if peer.own not in self._versions:
            info = VersionInfo(
                self.task, self.version_id, self.length_bytes, piece_length_for(self.length_bytes),
                self.validator, True, self.spec.digest, peer.own, bytes(64),
            )  # fmt: skip
            self._versions[peer.own] = info.signed(peer.key)
        return self._versions[peer.own]

    def verified(self, info: VersionInfo) -> None:
        """Its signature is right. Peers share the object, so one check does for all of them."""
        if self._verified.get(id(info)) is not info:
            self._verified[id(info)] = info.verified()

    def attest(self, peer: SimPeer, index: int) -> Attestation:
        """`peer` read the piece, and says which digest it has (a liar: another)."""
        digest = _digest(index, peer.number + 1 if peer.misreads else 0)
        return Attestation.made(peer.key, self.version_id, PieceIndex(index), digest)

    def right(self, made: list[Attestation]) -> bool:
        """Whether the whole content has its digest."""
        return all(each.digest == _digest(index, 0) for index, each in enumerate(made))

    def wrong(self, made: list[Attestation]) -> int:
        """How many pieces are not the content's."""
        return sum(each.digest != _digest(index, 0) for index, each in enumerate(made))


def _digest(index: int, wrong: int) -> bytes:
    return wrong.to_bytes(24, "big") + index.to_bytes(8, "big")
