"""An origin over TLS that speaks nothing but HTTP/2. For tests of who reads it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio


class H2Origin:
    """One content at every path; ranges work; `cut_after_bytes` resets the stream there, once."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.url = ""
        self.connections = 0
        self.requests: list[dict[str, str]] = []
        self.cut_after_bytes: int | None = None

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        machine.initiate_connection()
        pending: dict[int, bytes] = {}
        try:
            await stream.send_all(machine.data_to_send())
            while data := await stream.receive_some(65536):
                for event in machine.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        assert event.headers is not None
                        headers = {k.decode(): v.decode() for k, v in event.headers}
                        pending[event.stream_id] = self._answer(machine, event.stream_id, headers)
                for number in list(pending):
                    self._pump(machine, number, pending)
                await stream.send_all(machine.data_to_send())
        except (trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.H2Error):
            pass  # The client left, or speaks HTTP/1.1.
        finally:
            await trio.aclose_forcefully(stream)

    def _answer(
        self, machine: h2.connection.H2Connection, number: int, headers: dict[str, str]
    ) -> bytes:
        self.requests.append(headers)
        content, status, extra = self.content, "200", []
        if "range" in headers:
            first, _, last = headers["range"].removeprefix("bytes=").partition("-")
            end = min(int(last or len(content)), len(content) - 1)
            extra = [("content-range", f"bytes {first}-{end}/{len(content)}")]
            content, status = content[int(first) : end + 1], "206"
        machine.send_headers(
            number,
            [
                (":status", status),
                ("content-length", str(len(content))),
                ("accept-ranges", "bytes"),
                ("etag", '"v"'),
                *extra,
            ],
        )
        return content

    def _pump(
        self, machine: h2.connection.H2Connection, number: int, pending: dict[int, bytes]
    ) -> None:
        while data := pending[number]:
            room = min(machine.local_flow_control_window(number), machine.max_outbound_frame_size)
            if room <= 0:
                return
            if self.cut_after_bytes is not None:
                machine.send_data(number, data[: min(room, self.cut_after_bytes)])
                machine.reset_stream(number)
                self.cut_after_bytes = None
                del pending[number]
                return
            machine.send_data(number, data[:room])
            pending[number] = data[room:]
        machine.end_stream(number)
        del pending[number]


@asynccontextmanager
async def h2_origin(content: bytes, tls: ssl.SSLContext) -> AsyncIterator[H2Origin]:
    """`tls` is the server's context; only h2 is offered."""
    tls.set_alpn_protocols(["h2"])
    origin = H2Origin(content)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    origin.url = f"https://localhost:{port}/content"
    secured = [trio.SSLListener(one, tls, https_compatible=True) for one in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, origin.serve, secured)
        yield origin
        nursery.cancel_scope.cancel()
