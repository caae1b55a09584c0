"""What the daemon knows, as tables for people or one JSON object for scripts.

Always: keys are shown as the daemon names them, and values by their key's unit; what came from
other peers (names, zones) cannot steer the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from peerd.cli import client
from peerd.units import format_duration, format_size

ID_WIDTH: Final = 16
"""Digits of a task or version shown in a list: commands take any unambiguous prefix."""


def status(socket: str | None, as_json: bool) -> None:
    _show(client.ask(client.socket_path(socket), "GET", "/v1/status"), as_json, pairs)


def peers(socket: str | None, as_json: bool) -> None:
    answer = client.ask(client.socket_path(socket), "GET", "/v1/peers")
    _show(answer, as_json, lambda found: table(found["peers"], "no other peers"))


def scheduler(socket: str | None, as_json: bool) -> None:
    _show(client.ask(client.socket_path(socket), "GET", "/v1/scheduler"), as_json, pairs)


def tasks(socket: str | None, as_json: bool) -> None:
    answer = client.ask(client.socket_path(socket), "GET", "/v1/tasks")
    _show(answer, as_json, lambda found: table(found["tasks"], "no tasks"))


def task_show(task: str, socket: str | None, as_json: bool) -> None:
    answer = client.ask(client.socket_path(socket), "GET", f"/v1/tasks/{_quoted(task)}")
    _show(answer, as_json, pairs)


def explain(task: str, socket: str | None, as_json: bool) -> None:
    path = client.socket_path(socket)
    answer = client.ask(path, "GET", f"/v1/tasks/{_quoted(task)}/explain")
    _show(answer, as_json, _explained)


def _explained(answer: dict[str, Any]) -> str:
    sizes = {f"{source}_bytes": count for source, count in answer.get("from", {}).items()}
    return pairs(answer | {"from": sizes})


def task_remove(task: str, socket: str | None, as_json: bool) -> None:
    answer = client.ask(client.socket_path(socket), "DELETE", f"/v1/tasks/{_quoted(task)}")
    _show(answer, as_json, pairs)


def _show(answer: dict[str, Any], as_json: bool, words: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(answer) if as_json else words(answer))


def pairs(values: Mapping[str, Any], indent: str = "") -> str:
    """One line a key; what is nested comes indented below its key."""
    width = max((len(_label(key)) for key in values), default=0)
    lines = []
    for key, value in values.items():
        label = _label(key)
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{label}", pairs(value, indent + "  ")]
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            lines += [f"{indent}{label}", table(value, "", indent + "  ")]
        elif isinstance(value, list) and len(value) > 1:
            lines += [f"{indent}{label}", *(f"{indent}  {cell(key, each)}" for each in value)]
        else:
            lines.append(f"{indent}{label:<{width}}  {cell(key, value)}".rstrip())
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]], empty: str, indent: str = "") -> str:
    """One line a row, columns aligned, numbers to the right; nested values are left out."""
    if not rows:
        return empty
    keys = [key for key, value in rows[0].items() if not isinstance(value, dict | list)]
    cells = [[cell(key, row.get(key), short=True) for key in keys] for row in rows]
    heads = [_label(key) for key in keys]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [isinstance(rows[0].get(key), int | float) for key in keys]
    return "\n".join(
        indent
        + "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [heads, *cells]
    )


def _label(key: str) -> str:
    """Without the seconds' unit, which the value carries."""
    return key.removesuffix("_s").replace("_", " ")


def cell(key: str, value: Any, short: bool = False) -> str:
    """A value in words, by the unit at the end of its key."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(key, value)
    if isinstance(value, list):
        return ", ".join(cell(key, each) for each in value)
    text = _printable(str(value))
    return text[:ID_WIDTH] if short and key in ("task", "version") else text


def _number(key: str, value: float) -> str:
    words = key.split("_")
    if key.endswith("_bytes_s"):
        return f"{format_size(value)}/s"
    if "bytes" in words or key.startswith("from_"):
        return format_size(value)
    if key.endswith("_s") or key == "seconds":
        return format_duration(value)
    if key == "progress":
        return f"{100 * value:.0f}%"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _quoted(task: str) -> str:
    from urllib.parse import quote

    return quote(task, safe="")
