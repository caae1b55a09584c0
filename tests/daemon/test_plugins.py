"""An operator's evaluator: found by name, refused in words, and not trusted with the daemon."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from peerd.daemon.plugins import Guarded, evaluator_named
from peerd.errors import UsageError
from peerd.ids import PeerId
from peerd.scheduler.evaluator import Candidate, Child, evaluate

CHILD = Child(PeerId("child"), "", 0.0)
SOME = [Candidate(PeerId(name), "", False, True, 0.5, 0, 0, None) for name in "ab"]

PLUGIN = """
def least(child, candidates):
    return [float(len(candidates) - place) for place, _ in enumerate(candidates)]

number = 7
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that offers evaluators, as pip would have put it there."""
    (tmp_path / "my_evaluators.py").write_text(PLUGIN)
    about = tmp_path / "my_evaluators-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-evaluators\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[peerd.evaluator]\nleast = my_evaluators:least\nnumber = my_evaluators:number\n"
        "gone = my_evaluators:gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_evaluators", None)


def test_ours_where_none_is_named() -> None:
    assert evaluator_named(None) is evaluate


@pytest.mark.usefixtures("installed")
def test_the_named_one_is_asked() -> None:
    assert evaluator_named("least")(CHILD, SOME) == [2.0, 1.0]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody's", "there are: gone, least, number"),
        ("number", "no function, but int"),
        ("gone", "cannot be loaded"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluator_named(name)


def test_one_that_fails_is_said_once_and_ours_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def broken(child: Child, candidates: Sequence[Candidate]) -> list[float]:
        asked.append(child)
        raise ZeroDivisionError

    guarded = Guarded("broken", broken)
    assert guarded(CHILD, SOME) == evaluate(CHILD, SOME)
    assert guarded(CHILD, SOME) == evaluate(CHILD, SOME)
    assert len(asked) == 1
    assert len(caplog.records) == 1
    assert "broken" in caplog.text


def test_what_are_no_numbers_is_a_failure() -> None:
    guarded = Guarded("words", lambda child, candidates: ["good", "bad"])  # type: ignore[list-item]
    assert guarded(CHILD, SOME) == evaluate(CHILD, SOME)
