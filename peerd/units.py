"""Sizes and durations: their constants, and how people read and write them.

Always: a size is a whole number of bytes, a duration a float of seconds, a rate bytes per second.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SUFFIXES = {"": 1, "B": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
             "KI": KIB, "MI": MIB, "GI": GIB, "TI": TIB}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?)(?:B?)(?:/s)?\s*", re.IGNORECASE)
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parse_size(text: str) -> int:
    """Bytes from "10", "10MB", "10MiB" or "10MiB/s"; ValueError says what is accepted."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a size; write a number with B, KB, MB, GB, KiB, MiB or GiB"
        )
    return int(float(match[1]) * _SUFFIXES[match[2].upper()])


def parse_duration(text: str) -> float:
    """Seconds from "30", "30s", "5m", "2h", "1d" or "250ms"; ValueError says what is accepted."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m, h or d")
    return float(match[1]) * _SECONDS[match[2]]


def format_size(size_bytes: float) -> str:
    """ "12.0 MiB": binary units, one decimal from KiB up."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """ "0.42 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
