"""From a connection to an introduced peer: proof, secrets, keys, and a Hello each way.

Always: nothing but the proof is read from a stranger, at most 4 KiB of it; the dialler says Hello
first and the listener answers, so that a link is up at the listener before it is at the dialler;
whoever is turned away is told why, sealed.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from msgspec import Struct

from peerd.codec import MESSAGE_MAX_BYTES, decode
from peerd.errors import AdmissionRefused, PeerdError, PeerUnreachable, RemoteProtocolError
from peerd.ids import WIRE_VERSION, PeerId
from peerd.link.assembler import FrameAssembler
from peerd.link.frames import (
    LINK_PROTOCOL,
    MESSAGE,
    SECRET_BYTES,
    DirectionKey,
    direction_keys,
    message_frame,
    open_frame,
)
from peerd.link.messages import Hello, Message, Refused, decode_message, encode_message
from peerd.link.ports import Admission, ProvenStream, Prover
from peerd.link.wire import LimitedStream, Wire
from peerd.units import KIB

UNPROVEN_MAX_BYTES: Final = 4 * KIB
"""docs/design.md, 5."""
HELLO_FRAME_MAX_BYTES: Final = 4 * KIB
"""Eight addresses, cluster and agent at their longest are 3.1 KiB."""
LINGER_S: Final = 0.5
"""How long a refusal waits to be read: closing at once could destroy it on its way. Guess."""

Decide = Callable[[PeerId, Hello], Awaitable[Refused | None]]


class Introduction(Struct, frozen=True):
    """A proven, admitted peer, and what its link begins with."""

    peer: PeerId
    hello: Hello
    dialled: bool
    sealing: DirectionKey
    opening: DirectionKey
    assembler: FrameAssembler


class Introducer:
    """Introduces this peer to others. `lend` is where buffers for large frames come from."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        prover: Prover,
        admission: Admission,
        lend: Callable[[int], bytearray],
    ) -> None:
        self._hello = hello
        self._prover = prover
        self._admission = admission
        self._lend = lend

    async def outbound(
        self, wire: Wire, peer: PeerId, commit: Callable[[], bool]
    ) -> Introduction | None:
        """Introduce us to `peer`; None if `commit`, asked before our Hello, says no.

        Once Hello is sent the other may use the link. PeerUnreachable, RemoteProtocolError or
        AdmissionRefused says why there is none.
        """
        stream = LimitedStream(wire.stream, UNPROVEN_MAX_BYTES)
        proven = await self._prover.prove_outbound(stream, peer)
        talk = await self._keys(wire, proven, dialled=True)
        self._admission.admit(peer)
        if not commit():
            return None
        await talk.say(self._hello())
        hello = await self._hear_hello(talk)
        return talk.introduction(peer, hello)

    async def inbound(self, wire: Wire, decide: Decide) -> Introduction:
        """Hear who it is, let `decide` say whether it is welcome, and answer."""
        stream = LimitedStream(wire.stream, UNPROVEN_MAX_BYTES)
        proven = await self._prover.prove_inbound(stream)
        talk = await self._keys(wire, proven, dialled=False)
        try:
            self._admission.admit(proven.peer)
        except AdmissionRefused as error:
            await talk.refuse(Refused(code=error.code, words=str(error)[:512]))
            raise
        hello = await self._hear_hello(talk)
        refused = await decide(proven.peer, hello)
        if refused is not None:
            await talk.refuse(refused)
            raise PeerUnreachable(f"refused: {refused.words}")
        await talk.say(self._hello())
        return talk.introduction(proven.peer, hello)

    async def _keys(self, wire: Wire, proven: ProvenStream, *, dialled: bool) -> _Talk:
        own = secrets.token_bytes(SECRET_BYTES)
        await proven.send(bytes((LINK_PROTOCOL,)) + own)
        theirs = await proven.receive()
        if not theirs or theirs[0] != LINK_PROTOCOL:
            raise RemoteProtocolError(
                f"the other peer speaks another link protocol than {LINK_PROTOCOL}, which is ours; "
                "run the same release of peerd on both"
            )
        other = theirs[1:]
        if len(other) != SECRET_BYTES or other == own:
            raise RemoteProtocolError("the other peer's secret is not one")
        first, second = (own, other) if dialled else (other, own)
        by_dialler, by_listener = direction_keys(first, second, proven.handshake_hash)
        sealing, opening = (by_dialler, by_listener) if dialled else (by_listener, by_dialler)
        keys = DirectionKey(sealing), DirectionKey(opening)
        return _Talk(wire, dialled, *keys, FrameAssembler(self._lend))

    async def _hear_hello(self, talk: _Talk) -> Hello:
        body = await talk.hear()
        refusal = _wire_refusal(body)
        if refusal is not None:
            await talk.refuse(refusal)
            raise RemoteProtocolError(refusal.words)
        match decode_message(body):
            case Hello(cluster=cluster) as hello:
                own = self._hello().cluster
                if cluster != own:
                    words = f"this peer is of cluster {own!r}, the other of {cluster!r}"
                    await talk.refuse(Refused(code=AdmissionRefused.code, words=words[:512]))
                    raise AdmissionRefused(words)
                return hello
            case Refused(words=words):
                raise PeerUnreachable(f"it refused: {words}")
            case _:
                raise RemoteProtocolError("the first message is not a Hello")


class _Talk:
    """The few frames before a link runs."""

    def __init__(
        self,
        wire: Wire,
        dialled: bool,
        sealing: DirectionKey,
        opening: DirectionKey,
        assembler: FrameAssembler,
    ) -> None:
        self._wire = wire
        self._dialled = dialled
        self._sealing = sealing
        self._opening = opening
        self._assembler = assembler

    async def say(self, message: Message) -> None:
        frame = message_frame(self._sealing, encode_message(message))
        await self._wire.send_all(memoryview(frame))

    async def hear(self) -> bytes:
        """Body of the first message frame."""
        frame = self._assembler.take()
        while frame is None:
            count = await self._wire.receive_into(self._assembler.target())
            if not count:
                raise PeerUnreachable("it closed the connection")
            self._assembler.filled(count)
            frame = self._assembler.take()
        if frame.size_bytes > HELLO_FRAME_MAX_BYTES:
            raise RemoteProtocolError(f"a first frame of {frame.size_bytes} bytes")
        plaintext = open_frame(self._opening, memoryview(frame.buffer)[: frame.size_bytes])
        if plaintext[0] != MESSAGE:
            raise RemoteProtocolError("the first frame is not a message")
        return bytes(plaintext[1:])

    async def refuse(self, refused: Refused) -> None:
        """Say it, and give the other time to read it."""
        try:
            with trio.move_on_after(LINGER_S):
                await self.say(refused)
                await self._wire.send_eof()
                await discard(self._wire)
        except PeerUnreachable:
            pass  # it hung up before it heard why

    def introduction(self, peer: PeerId, hello: Hello) -> Introduction:
        return Introduction(
            peer, hello, self._dialled, self._sealing, self._opening, self._assembler
        )


async def discard(wire: Wire) -> None:
    """Read what still comes, and forget it; the caller limits the time."""
    scrap = memoryview(bytearray(64 * KIB))
    while await wire.receive_into(scrap):
        pass


def _wire_refusal(body: bytes) -> Refused | None:
    """Words for a Hello of another wire version, whatever else is in it."""
    try:
        parts = decode(body, list, max_bytes=MESSAGE_MAX_BYTES)
    except PeerdError:
        return None  # decode_message says what is wrong
    if len(parts) < 2 or parts[0] != 0 or type(parts[1]) is not int or parts[1] == WIRE_VERSION:
        return None
    words = (
        f"this peer speaks wire version {WIRE_VERSION}, the other {parts[1]}; "
        "run the same release of peerd on both"
    )
    return Refused(code=RemoteProtocolError.code, words=words)
