"""What /healthy says, and why: a probe acts on the word, a person on the sentences."""

from __future__ import annotations

import msgspec
import pytest

from peerd.gateway.health import LATE_S, OVERLAY_DOWN_S, Fitness, State, judge
from peerd.units import GIB

FIT = Fitness(0.0, True, 3, 100 * GIB, 10 * GIB, 0.01)


def test_nothing_is_said_of_who_is_ready() -> None:
    assert judge(FIT).state is State.READY
    assert judge(FIT).reasons == ()
    alone = msgspec.structs.replace(FIT, bootstrapped=False, peers=0)
    assert judge(alone).state is State.READY, "nobody told it of others"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peers": 0}, "no other peer answers"),
        ({"disk_free_bytes": 9 * GIB}, "9.0 GiB of disk are free, 10.0 GiB of it in reserve"),
        ({"late_s": LATE_S + 1.5}, "came 2.5 s late"),
    ],
)
def test_what_leaves_downloads_right_is_degraded_and_says_what_to_do(
    changes: dict[str, float], words: str
) -> None:
    found = judge(msgspec.structs.replace(FIT, **changes))
    assert found.state is State.DEGRADED
    assert len(found.reasons) == 1
    assert words in found.reasons[0]
    assert "?" in found.reasons[0] or "peerd task rm" in found.reasons[0], "what to do"


def test_without_an_overlay_it_fails_once_that_lasts_and_the_rest_is_said_too() -> None:
    soon = msgspec.structs.replace(FIT, overlay_down_s=OVERLAY_DOWN_S)
    assert judge(soon).state is State.READY, "it is built anew"
    found = judge(msgspec.structs.replace(FIT, overlay_down_s=42.0, peers=0))
    assert found.state is State.FAILING
    assert [words.split(",")[0] for words in found.reasons] == [
        "the overlay has been down for 42 s; the log says why libp2p ends (overlay.supervisor)",
        "no other peer answers",
    ]
