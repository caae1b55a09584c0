"""Every command and every flag is documented, with an example, in its own help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from peerd.cli.main import peerd as group
from peerd.errors import IdentityCloned, StoreDamaged, UsageError
from tests.cli.running import peerd


def commands(
    command: click.Command = group, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(("peerd", *words)), command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*words, name))


def test_the_commands_are_those_of_the_design() -> None:
    assert {words for words, _ in commands()} == {
        "peerd", "peerd join", "peerd get", "peerd status", "peerd peers", "peerd tasks",
        "peerd task", "peerd task show", "peerd task rm", "peerd demo", "peerd scheduler",
        "peerd explain",
    }  # fmt: skip


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=lambda value: str(value))
def test_help_says_what_it_does_and_shows_an_example(words: str, command: click.Command) -> None:
    text = command.help or ""
    assert len(text.splitlines()[0]) > 20
    assert f"Example: {words}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert len(parameter.help or "") > 10, f"{words} {parameter.name} says nothing"


async def test_help_and_version_go_to_standard_output() -> None:
    result = await peerd("get", "--help")
    assert result.returncode == 0
    assert b"Example: peerd get https://" in result.stdout
    version = await peerd("--version")
    assert version.stdout.startswith(b"peerd")


def test_the_systemd_unit_uses_flags_that_exist() -> None:
    unit = Path("deploy/peerd.service").read_text().replace("\\\n", " ")
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = start.removeprefix("ExecStart=/usr/bin/env peerd join").split()
    context = group.commands["join"].make_context("join", words)
    assert context.params["socket_mode"] == "0660"
    refused = {UsageError.exit_code, StoreDamaged.exit_code, IdentityCloned.exit_code}
    assert f"RestartPreventExitStatus={' '.join(map(str, sorted(refused)))}" in unit
