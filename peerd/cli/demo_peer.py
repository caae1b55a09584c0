"""One peer of the demo: how its daemon is started, and how its download went."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peerd.cli.get import fetch
from peerd.cli.output import target_for
from peerd.errors import PeerdError


@dataclass
class Peer:
    """One daemon, and how its download went."""

    name: str
    place: str
    overlay_port: int
    link_port: int
    held_bytes: int = 0
    seconds: float | None = None
    done: dict[str, Any] = field(default_factory=dict)
    error: PeerdError | None = None
    verified: bool = False

    @property
    def socket(self) -> str:
        return os.path.join(self.place, "s")

    @property
    def output(self) -> str:
        return os.path.join(self.place, "out")

    def arguments(self, bootstrap: Peer | None) -> list[str]:
        """What follows `peerd`."""
        arguments = {
            "--name": self.name,
            "--data-dir": os.path.join(self.place, "data"),
            "--socket": self.socket,
            "--listen": f"/ip4/127.0.0.1/tcp/{self.overlay_port}",
            "--link-listen": f"127.0.0.1:{self.link_port}",
            "--disk-reserve": "0",
            "--metrics-listen": "off",
            "--health-listen": "off",
        }
        if bootstrap is not None:
            arguments["--bootstrap"] = f"127.0.0.1:{bootstrap.overlay_port}"
        return ["join", *(part for pair in arguments.items() for part in pair)]

    def show(self, event: Mapping[str, Any]) -> None:
        self.held_bytes = event["bytes_held"]

    def end(self) -> None: ...

    def get(self, url: str, began: float) -> None:
        """In a thread of its own; what went wrong is kept for the table."""
        wish: dict[str, Any] = {"url": url, "digest": None, "headers": [], "timeout_s": None}
        try:
            self.done = fetch(self.socket, wish, target_for(self.output, url), self)
            self.held_bytes = self.done["bytes"]
        except PeerdError as error:
            self.error = error
        self.seconds = time.monotonic() - began
