"""What all links of a service have carried since its start.

Always: bytes are those of frames, seals included, handshakes and TCP not; a piece byte is counted
when it is with the kernel, or with the handler.
"""

from __future__ import annotations


class Counters:
    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.piece_bytes_in = 0
        self.piece_bytes_out = 0
