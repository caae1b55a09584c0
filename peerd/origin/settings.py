"""How origins are read: limits, proxies and trust, as the daemon's configuration says.

Always: nothing here is read from the environment; the daemon decides what it hands in.
"""

from __future__ import annotations

from msgspec import Struct


class OriginConfig(Struct, frozen=True, kw_only=True):
    """`ca_file` replaces the system's trust store; `no_proxy` is a list with commas, as usual."""

    ca_file: str | None = None
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str = ""
    connections_max: int = 16  # A keeper lets 8–16 peers read at once (design.md, 4.4).
    connect_timeout_s: float = 10.0  # Guess: three lost SYNs are 7 s.
    stall_timeout_s: float = 30.0  # Guess; most servers and proxies give up at 60 s.
    resume_after_s: float = 1.0  # Guess: half of the shortest lease; doubles without progress.
    retries_max: int = 4  # With the backoff below at most 3 s; a keeper has other readers.
    backoff_first_s: float = 0.2  # Guess.
    backoff_max_s: float = 8.0  # Guess.
    retry_after_max_s: float = 60.0  # Guess: longer, and the caller should hear of it.
    cuts_max: int = 5  # Guess.
    cut_progress_bytes: int = 16 * 1024  # Guess: fewer bytes between two cuts are no progress.
    redirects_max: int = 10  # What curl's users set and browsers have about twice over.
    user_agent: str = "peerd"
