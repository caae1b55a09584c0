"""The handshake on a socket of ours: who is proven, what both ends share, what is never read."""

from __future__ import annotations

import os
import statistics
import time

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peerd.errors import RemoteProtocolError
from peerd.ids import PeerId
from peerd.link.ports import ProvenStream, Prover
from peerd.overlay.noise import HANDSHAKE_MAX_BYTES, PAYLOAD_MAX_BYTES, LinkStream, NoiseProver
from peerd.signing import SigningKey

A, B, C = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
Socket = trio.SocketStream


def as_port(prover: NoiseProver) -> Prover:
    return prover


async def connected() -> tuple[Socket, Socket]:
    """Two ends of one TCP connection over loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        dialled = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return dialled, await listener.accept()


async def proven(dialled: Socket, accepted: Socket) -> tuple[LinkStream, LinkStream]:
    found: dict[str, LinkStream] = {}

    async def accept() -> None:
        found["b"] = await NoiseProver(B).prove_inbound(accepted)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        found["a"] = await NoiseProver(A).prove_outbound(dialled, B.peer_id)
    return found["a"], found["b"]


async def test_both_know_each_other_and_share_32_bytes_of_this_handshake() -> None:
    a, b = await proven(*await connected())
    assert (a.peer, b.peer) == (B.peer_id, A.peer_id)
    assert a.handshake_hash == b.handshake_hash
    assert len(a.handshake_hash) == 32
    again, _ = await proven(*await connected())
    assert again.handshake_hash != a.handshake_hash


async def test_it_is_the_prover_that_links_ask_for() -> None:
    prover = as_port(NoiseProver(A))
    dialled, accepted = await connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(NoiseProver(B).prove_inbound, accepted)
        stream: ProvenStream = await prover.prove_outbound(dialled, B.peer_id)
    assert stream.peer == B.peer_id


async def test_the_wrong_peer_is_refused() -> None:
    dialled, accepted = await connected()

    async def accept() -> None:
        with pytest.raises(RemoteProtocolError):
            await NoiseProver(B).prove_inbound(accepted)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(RemoteProtocolError, match=f"not {C.peer_id}"):
            await NoiseProver(A).prove_outbound(dialled, C.peer_id)
        await dialled.aclose()


async def test_small_payloads_go_through_and_large_ones_do_not() -> None:
    a, b = await proven(*await connected())
    for payload in (b"", b"x", os.urandom(32), b"y" * PAYLOAD_MAX_BYTES):
        await a.send(payload)
        assert await b.receive() == payload
        await b.send(payload)
        assert await a.receive() == payload
    with pytest.raises(ValueError, match="at most 1024"):
        await a.send(b"z" * (PAYLOAD_MAX_BYTES + 1))


async def test_no_byte_after_the_handshake_is_swallowed() -> None:
    """The link takes the socket over: what was sent right behind is all still in it."""
    dialled, accepted = await connected()
    behind = os.urandom(5000)
    found: list[LinkStream] = []

    async def accept() -> None:
        found.append(await NoiseProver(B).prove_inbound(accepted))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        a = await NoiseProver(A).prove_outbound(dialled, B.peer_id)
        await a.send(b"secret")
        await dialled.send_all(behind)
        await trio.testing.wait_all_tasks_blocked()
    assert await found[0].receive() == b"secret"
    assert await _exactly(accepted, len(behind)) == behind
    await found[0].send(b"answer")
    await accepted.send_all(behind)
    assert await a.receive() == b"answer"
    assert await _exactly(dialled, len(behind)) == behind


async def test_a_stranger_is_not_read_beyond_the_bound() -> None:
    """An endless first message: refused after its length, with most of it still unread."""
    dialled, accepted = await connected()
    await dialled.send_all(b"\xff\xff" + bytes(60_000))
    with pytest.raises(RemoteProtocolError, match="more bytes than a handshake needs"):
        await NoiseProver(B).prove_inbound(accepted)
    left = await _exactly(accepted, 60_002 - HANDSHAKE_MAX_BYTES)
    assert len(left) == 60_002 - HANDSHAKE_MAX_BYTES


async def test_a_proven_peer_is_not_read_beyond_a_payload_either() -> None:
    dialled, accepted = await connected()
    _, b = await proven(dialled, accepted)
    await dialled.send_all(b"\xff\xff" + bytes(60_000))
    with pytest.raises(RemoteProtocolError):
        await b.receive()


async def test_a_payload_that_was_touched_is_refused() -> None:
    dialled, accepted = await connected()
    _, b = await proven(dialled, accepted)
    await dialled.send_all((16 + 4).to_bytes(2, "big") + bytes(20))
    with pytest.raises(RemoteProtocolError):
        await b.receive()


async def test_silence_is_the_callers_to_end() -> None:
    _, accepted = await connected()
    with trio.move_on_after(0.05) as limit:
        await NoiseProver(B).prove_inbound(accepted)
    assert limit.cancelled_caught


async def test_a_connection_that_closes_is_an_error_of_the_remote() -> None:
    dialled, accepted = await connected()
    await dialled.aclose()
    with pytest.raises(RemoteProtocolError):
        await NoiseProver(B).prove_inbound(accepted)
    with pytest.raises(RemoteProtocolError):
        await NoiseProver(A).prove_outbound(dialled, B.peer_id)


async def test_a_handshake_of_the_overlay_is_not_one_of_a_link() -> None:
    """The prologue: who relays the one to the other gets a failed handshake."""
    from peerd.overlay.secure import Noise
    from peerd.overlay.transport import BoundedStream

    dialled, accepted = await connected()

    async def accept() -> None:
        with pytest.raises(RemoteProtocolError):
            await NoiseProver(B).prove_inbound(accepted)
        await accepted.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with pytest.raises(RemoteProtocolError):
            await Noise(A).handshake(BoundedStream(dialled, 4096), outbound=True)
        await dialled.aclose()


@given(garbage=st.binary(max_size=600), honest=st.integers(0, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_garbage_is_an_error_of_the_remote(garbage: bytes, honest: int) -> None:
    """Also behind an honest beginning, and with lengths that fit."""
    framed = len(garbage).to_bytes(2, "big") + garbage
    sent = (garbage, framed, b"\x00\x20" + bytes(32) + framed, b"\x00\x20" + b"\x05" * 32 + framed)

    async def main() -> None:
        dialled, accepted = await connected()
        await dialled.send_all(sent[honest])
        await dialled.send_eof()
        with pytest.raises(RemoteProtocolError), trio.fail_after(5):
            await NoiseProver(B).prove_inbound(accepted)
        await trio.aclose_forcefully(dialled)
        await trio.aclose_forcefully(accepted)

    trio.run(main)


async def test_it_is_cheap() -> None:
    """5 ms of CPU for both ends is the aim; the bound leaves room for a busy machine."""
    spent = []
    for _ in range(15):
        pair = await connected()
        began = time.process_time()
        await proven(*pair)
        spent.append(time.process_time() - began)
    assert statistics.median(spent) < 0.015, spent


async def _exactly(stream: Socket, n: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < n:
            data += await stream.receive_some(n - len(data))
    return data


def test_peer_ids_are_those_of_libp2p() -> None:
    from libp2p.peer.id import ID

    from peerd.overlay.identity import key_pair, library_id, peer_id

    for number in range(1, 20):
        key = SigningKey(bytes([number]) * 32)
        assert ID.from_pubkey(key_pair(key).public_key).to_base58() == key.peer_id
        assert peer_id(library_id(key.peer_id)) == key.peer_id


def test_a_key_that_is_not_ed25519_is_no_peer() -> None:
    from libp2p.crypto.secp256k1 import create_new_key_pair
    from libp2p.peer.id import ID

    from peerd.overlay.identity import peer_id

    with pytest.raises(RemoteProtocolError, match="no Ed25519 key"):
        peer_id(ID.from_pubkey(create_new_key_pair().public_key))
    assert isinstance(peer_id(ID.from_base58(A.peer_id)), str)
    assert PeerId(A.peer_id) == A.peer_id
