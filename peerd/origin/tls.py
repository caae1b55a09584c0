"""TLS of a client over any stream, in large reads.

Always: an end without TLS's own goodbye is a failure, not an end: an answer that ends with its
connection could have been cut short by anybody. One task uses a stream at a time. trio.SSLStream
gives a record (16 KiB) a read; this takes 0.4 of its CPU (ADR-0010).
"""

from __future__ import annotations

import ssl
from typing import cast

import trio

FILL_BYTES = 256 * 1024
"""Read from the connection at once; Guess: more is decrypted for a millisecond and longer."""


class TlsStream:
    """After `handshake`, the other end is who its certificate says. Failures are trio's."""

    def __init__(
        self,
        transport: trio.SocketStream | TlsStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
    ) -> None:
        self.transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )

    def selected_alpn_protocol(self) -> str | None:
        return self._tls.selected_alpn_protocol()

    async def handshake(self) -> None:
        """ssl.SSLError where the other end is not trusted, or speaks no TLS."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # The alert tells the other end why.
                raise
            else:
                break
        await self._flush()

    async def receive_some(self, max_bytes: int) -> bytes:
        """All that is there up to `max_bytes`; b"" after the other end's goodbye."""
        while (data := self._decrypted(max_bytes)) is None:
            await self._flush()
            await self._fill()
        return data

    async def send_all(self, data: bytes) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        await self._flush()

    async def aclose(self) -> None:
        """Without a goodbye: HTTP says itself where it ends, and nobody waits for one."""
        await self.transport.aclose()

    def _decrypted(self, max_bytes: int) -> bytes | None:
        """None: more must come first."""
        buffer, filled = memoryview(bytearray(max_bytes)), 0
        try:
            while filled < max_bytes:
                # With a buffer it returns a number; typeshed knows only the other form.
                size = cast(int, self._tls.read(max_bytes - filled, buffer[filled:]))
                if size == 0:
                    break
                filled += size
        except ssl.SSLWantReadError:
            return bytes(buffer[:filled]) if filled else None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        return bytes(buffer[:filled])

    async def _fill(self) -> None:
        data = await self.transport.receive_some(FILL_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self.transport.send_all(data)
