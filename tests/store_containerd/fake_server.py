"""A gRPC server of a test's own making, on h2 over an in-memory stream: says exactly what the test tells it to."""

from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio
import trio.testing

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


class FakeServer:
    """One accepted connection. `h2` is there for the test to misuse; `flush` sends what it has prepared."""

    def __init__(self, stream: trio.abc.Stream, *, settings: dict[int, int] | None = None) -> None:
        self.stream = stream
        self.requests: dict[int, bytes] = {}  # whole requests by stream
        self.headers: dict[int, dict[bytes, bytes]] = {}
        self.resets: list[int] = []
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()

    async def flush(self) -> None:
        """Send what h2 has prepared."""
        await self.stream.send_all(self.h2.data_to_send())

    async def read(self) -> bool:
        """Take what the client sent; False at its end."""
        data = await self.stream.receive_some(65536)
        for event in self.h2.receive_data(data) if data else []:
            match event:
                case h2.events.RequestReceived():
                    self.headers[event.stream_id] = dict(event.headers)
                    self.requests[event.stream_id] = b""
                case h2.events.DataReceived():
                    self.requests[event.stream_id] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamReset():
                    self.resets.append(event.stream_id)
        await self.flush()
        return bool(data)

    async def until(self, happened: Callable[[], object]) -> None:
        """Take from the client until `happened()`."""
        await self.flush()
        while not happened():
            assert await self.read(), "the client closed the connection"

    async def idle(self) -> None:
        """Take from the client until it closes the connection."""
        await self.flush()
        while await self.read():
            pass

    async def request(self, number: int = 0) -> int:
        """Wait for the `number`th whole request; return its stream."""
        await self.until(lambda: len(self.requests) > number and self.requests[sorted(self.requests)[number]])
        return sorted(self.requests)[number]

    async def send(self, stream_id: int, data: bytes) -> None:
        """Send response bytes as the client gives room."""
        while data:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, len(data))
            if room == 0:
                assert await self.read()
                continue
            self.h2.send_data(stream_id, data[:room])
            data = data[room:]
            await self.flush()

    async def answer(self, stream_id: int, body: bytes, *, status: str = "0", message: str = "") -> None:
        """Send a whole response: headers, bytes, trailers."""
        self.h2.send_headers(stream_id, HEADERS)
        await self.send(stream_id, body)
        self.h2.send_headers(stream_id, [("grpc-status", status), ("grpc-message", message)], end_stream=True)
        await self.flush()
