"""Twin of the Noise prover: the same shape, nothing proven, nothing encrypted.

Each side sends its peer id in the clear; the transcript's digest stands for the handshake hash.
"""

from __future__ import annotations

import hashlib
import struct

import trio

from peerd.errors import PeerUnreachable, RemoteProtocolError
from peerd.ids import PeerId

_LENGTH = struct.Struct(">H")


class PlainStream:
    def __init__(self, stream: trio.abc.Stream, peer: PeerId, handshake_hash: bytes) -> None:
        self.peer = peer
        self.handshake_hash = handshake_hash
        self._stream = stream

    async def send(self, payload: bytes) -> None:
        await _send(self._stream, payload)

    async def receive(self) -> bytes:
        return await _receive(self._stream)


class PlainProver:
    def __init__(self, own: PeerId) -> None:
        self._own = own

    async def prove_outbound(self, stream: trio.abc.Stream, expected: PeerId) -> PlainStream:
        await _send(stream, self._own.encode())
        peer = _peer(await _receive(stream))
        if peer != expected:
            raise RemoteProtocolError(f"the peer that answered is {peer}, not {expected}")
        return PlainStream(stream, peer, _hash(self._own, peer))

    async def prove_inbound(self, stream: trio.abc.Stream) -> PlainStream:
        peer = _peer(await _receive(stream))
        await _send(stream, self._own.encode())
        return PlainStream(stream, peer, _hash(peer, self._own))


def _hash(dialler: PeerId, listener: PeerId) -> bytes:
    return hashlib.sha256(f"{dialler} {listener}".encode()).digest()


def _peer(payload: bytes) -> PeerId:
    if not payload.isascii() or not 32 <= len(payload) <= 64:
        raise RemoteProtocolError("that is no peer id")
    return PeerId(payload.decode())


async def _send(stream: trio.abc.Stream, payload: bytes) -> None:
    try:
        await stream.send_all(_LENGTH.pack(len(payload)) + payload)
    except trio.BrokenResourceError as error:
        raise PeerUnreachable("the connection broke") from error


async def _receive(stream: trio.abc.Stream) -> bytes:
    (size,) = _LENGTH.unpack(await _exactly(stream, _LENGTH.size))
    return await _exactly(stream, size)


async def _exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = await stream.receive_some(size - len(data))
        except trio.BrokenResourceError as error:
            raise PeerUnreachable("the connection broke") from error
        if not more:
            raise RemoteProtocolError("the connection ended within the handshake")
        data += more
    return data
