"""Zones nest, and a byte from elsewhere enters the widest scope that its sender is not in."""

from __future__ import annotations

import pytest

from peerd.ids import VersionId
from peerd.zones import border, scopes, seat_id, within


def test_a_zone_lies_in_its_prefixes() -> None:
    assert scopes("eu/ams/r1") == ("eu", "eu/ams", "eu/ams/r1")
    assert scopes("") == ()
    assert within("eu/ams", "eu")
    assert within("eu", "eu")
    assert within("", "")
    assert not within("europe", "eu")
    assert not within("eu", "eu/ams")


@pytest.mark.parametrize(
    ("own", "other", "entered"),
    [
        ("eu/ams", "eu/ams", None),
        ("eu/ams", "eu/ams/r1", None),
        ("eu/ams", "eu/fra", "eu/ams"),
        ("eu/ams", "eu", "eu/ams"),
        ("eu/ams", "us/nyc", "eu"),
        ("eu/ams", "", "eu"),
        ("", "eu/ams", None),
    ],
)
def test_the_widest_border_counts(own: str, other: str, entered: str | None) -> None:
    assert border(own, other) == entered


def test_each_scope_of_a_version_has_a_seat_of_its_own() -> None:
    seats = {seat_id(VersionId(v), s) for v in ("a" * 64, "b" * 64) for s in ("eu", "eu/ams")}
    assert len(seats) == 4
    assert all(len(seat) == 64 for seat in seats)
