"""May this peer take part, and as what? The one place where overlay and link ask.

Until clusters have certificates everyone is admitted: whoever reaches the port can take part and
attest. `peerd join` and the README say so.
"""

from __future__ import annotations

from peerd.ids import PeerId

OPEN_WARNING = (
    "admission is open: anyone who can reach these ports can join, read what is shared and attest "
    "to content without a digest; keep the ports inside a network you trust"
)


class OpenAdmission:
    """Admits everyone."""

    def admit(self, peer: PeerId) -> None:
        """Never raises; a later one raises AdmissionRefused."""
