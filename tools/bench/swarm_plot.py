"""Time against the number of peers, as a picture, with the command, the date and the machine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from peerd.errors import UsageError


def plot(rows: list[dict[str, Any]], told: dict[str, Any], path: Path) -> None:
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
        ticker: Any = importlib.import_module("matplotlib.ticker")
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: type make setup-lab") from error
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    systems = list(dict.fromkeys(row["system"] for row in rows))
    for system in systems:
        own = [row for row in rows if row["system"] == system]
        least, middle, most = zip(
            *(
                [value * row["bound_s"] for value in row["spread"]["time_over_bound"]]
                for row in own
            ),
            strict=True,
        )
        errors = [
            [mid - low for mid, low in zip(middle, least, strict=True)],
            [high - mid for high, mid in zip(most, middle, strict=True)],
        ]
        counts = [row["peers"] for row in own]
        axes.errorbar(counts, middle, yerr=errors, marker="o", capsize=3, label=system)
    first = [row for row in rows if row["system"] == systems[0]]
    axes.plot([row["peers"] for row in first], [row["bound_s"] for row in first], "k--",
              label="physical bound")  # fmt: skip
    axes.set_xlabel("peers")
    axes.set_ylabel("seconds until all have it (median, least, most)")
    # What takes N times as long would leave no room to tell the others apart.
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.set_xticks([row["peers"] for row in first])
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    axes.set_title(f"{told['command']}\n{told['date']}, {told['machine']}", fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
