"""docs/protocol.md says what the code does: messages, fields of signed values, and vectors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from peerd.gateway.control import ControlServer
from peerd.gateway.ports import GetDone, GetFailed, GetProgress, GetRequest
from peerd.gossip.availability import Holdings, bloom_of
from peerd.gossip.messages import Message
from peerd.gossip.records import PeerRecord, Signed, item_id, mark_of
from peerd.ids import PieceIndex
from peerd.manifest import Attestation, VersionInfo, version_id
from peerd.overlay.hello import Hello, Kind, Refused
from peerd.rendezvous import ranked, weight
from peerd.signing import SigningKey
from peerd.task import TaskSpec, ask_for, canonical_url, task_id
from tests.gateway.fake_control import FakeControl

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
STRUCTS = [
    Hello, Refused, Signed, PeerRecord, Holdings, VersionInfo, Attestation, TaskSpec,
    GetRequest, GetProgress, GetDone, GetFailed,
]  # fmt: skip


def test_it_has_every_gossip_message_with_its_tag_and_its_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*?)\|", PROTOCOL, re.MULTILINE)
    documented = {name: (int(tag), re.findall(r"`(\w+)`", fields)) for name, tag, fields in rows}
    assert documented == {
        kind.__name__: (kind.__struct_config__.tag, list(kind.__struct_fields__))
        for kind in get_args(Message)
    }


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_it_has_the_fields_of_every_value_in_their_order(struct: Any) -> None:
    (table,) = re.findall(
        rf"^\| field of `{struct.__name__}` \|.*\n(?:\|.*\n)+", PROTOCOL, re.MULTILINE
    )
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(struct.__struct_fields__)


def test_it_has_every_kind_of_overlay_frame() -> None:
    rows = re.findall(r"^\| (\d) \| ([A-Z]+) \|", PROTOCOL, re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {kind.name: kind for kind in Kind}


def test_it_has_every_request_of_the_control_socket() -> None:
    documented = re.findall(r"^\| `([A-Z]+) (/v1/[^`?]+)[^`]*` \|", PROTOCOL, re.MULTILINE)
    routes = ControlServer(FakeControl({}), "/unused")._routes
    found = [
        [number for number, (verb, pattern, _) in enumerate(routes)
         if verb == method and pattern.fullmatch(path)]
        for method, path in documented
    ]  # fmt: skip
    assert sorted(found) == [[number] for number in range(len(routes))]


def test_its_vectors_are_right() -> None:
    key, *others = (SigningKey(bytes((seed,)) * 32) for seed in (0, 1, 2))
    url = "HTTPS://Example.org:443/a?b=1&X-Amz-Date=2#f"
    task = task_id(ask_for(url, headers=[("Accept", "*/*")]), b"whatever")
    version = version_id(task, digest=None, validator='"e1"', length_bytes=300_000, nonce=b"")
    made = Attestation.made(key, version, PieceIndex(0), bytes(32))
    hashes, bloom = bloom_of([bytes.fromhex(task)])
    peers = [key.peer_id, *(other.peer_id for other in others)]
    assert hashes == 8
    assert ranked(peers, task) == [peers[0], peers[2], peers[1]]
    vectors = (
        key.peer_id, canonical_url(url), task, version, made.signature.hex(), bloom.hex(),
        item_id(key.peer_id), mark_of(b"body"), weight(key.peer_id, task),
    )  # fmt: skip
    for vector in vectors:
        assert f"`{vector}`" in PROTOCOL
