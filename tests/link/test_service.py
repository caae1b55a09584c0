"""Links between real services: over loopback sockets, and in memory where the clock must jump."""

from __future__ import annotations

import os

import trio

from peerd.ids import PieceIndex
from tests.link.helper import KEYS, VERSION, Bytes, Peer, attested, have, running


async def test_messages_and_a_piece_cross_a_tcp_link_and_come_in_order() -> None:
    one, two = Peer(KEYS[0]), Peer(KEYS[1])
    data = os.urandom(5 * 1024 * 1024 + 17)
    async with running(one, two):
        await one.connect(two)
        one.links.send(two.id, have(1))
        await one.links.send_piece(
            two.id, VERSION, PieceIndex(7), len(data), attested(7), Bytes(data)
        )
        one.links.send(two.id, have(2))
        await two.told.until(lambda: len(two.told.messages) == 2)
        assert two.told.messages == [have(1), have(2)]
        assert two.told.story == ["up", "message", "piece", "message"]
        assert two.told.pieces[7] == data
        assert two.told.attestations == [attested(7)]
        two.links.send(one.id, have(3))
        await one.told.until(lambda: one.told.messages == [have(3)])
        assert one.links.counters.piece_bytes_out == two.links.counters.piece_bytes_in == len(data)
    assert one.told.story[-1] == two.told.story[-1] == "down"
