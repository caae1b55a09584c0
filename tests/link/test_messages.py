"""Link messages: each crosses the codec unharmed, and docs/protocol.md has each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from peerd.codec import MESSAGE_MAX_BYTES
from peerd.errors import RemoteProtocolError
from peerd.link.messages import Have, Message, Ping, decode_message, encode_message
from tests.link.helper import VERSION
from tests.link.samples import SAMPLES

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(Message))


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_decodes_to_itself(message: Message) -> None:
    encoded = encode_message(message)
    assert decode_message(encoded) == message
    with pytest.raises(RemoteProtocolError):
        decode_message(encoded[:-1])
    with pytest.raises(RemoteProtocolError):
        decode_message(encoded + b"\0")


def test_bounds_of_fields_hold() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(encode_message(Have(VERSION, (1 << 22,))))
    with pytest.raises(RemoteProtocolError):
        decode_message(encode_message(Have(VERSION, tuple(range(4097)))))
    with pytest.raises(RemoteProtocolError):
        decode_message(encode_message(Ping(-1)))
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode_message(bytes(MESSAGE_MAX_BYTES + 1))


def test_protocol_md_has_every_message_with_its_tag_and_its_fields() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*?) \|", PROTOCOL.read_text(), re.MULTILINE)
    documented = {name: (int(tag), re.findall(r"`(\w+)`", fields)) for tag, name, fields in rows}
    assert documented == {
        kind.__name__: (kind.__struct_config__.tag, list(kind.__struct_fields__))
        for kind in get_args(Message)
    }
