"""Options of the whole suite: `--repeat N` runs each end-to-end story N times."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repeat", type=int, default=1, help="run each e2e story so many times")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repetition" in metafunc.fixturenames:
        count = int(metafunc.config.getoption("--repeat"))
        metafunc.parametrize("repetition", range(count))
