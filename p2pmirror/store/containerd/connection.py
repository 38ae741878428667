"""One HTTP/2 connection to a gRPC server, shared by many calls.

Laws:
- two tasks own the socket, one for each direction; a call only changes state and wakes them, so cancelling a call never
  leaves half a frame on the wire;
- a call that is left before its end is reset; its late frames cost nothing;
- the connection's window is given back on receipt, a call's own window when its reader takes the bytes: a slow reader
  holds up nobody but itself, and holds at most `CALL_WINDOW_BYTES`;
- whatever breaks the connection, every call on it raises `Unreachable`, and the connection is never used again.

Follows RFC 9113 by way of h2, and the gRPC over HTTP/2 protocol description.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio

from p2pmirror.errors import Unreachable
from p2pmirror.store.containerd.call import Call
from p2pmirror.store.containerd.framing import FrameLengths, frame
from p2pmirror.store.containerd.status import (
    Code,
    RpcError,
    error_in_headers,
    error_in_trailers,
    error_of_reset,
    has_status,
    printable,
)

RECEIVE_BYTES = 256 * 1024  # one socket buffer of a unix socket
CALL_WINDOW_BYTES = 1024 * 1024  # what one call may hold unread; containerd reads content in portions of this size
CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024  # several busy calls at once
REQUEST_BYTES_MAX = 1024 * 1024  # ours are digests, names and filters; anything like this is a mistake
OUTGOING_BYTES_MAX = 256 * 1024  # beyond it nothing is read: a server that does not read gets no more answers
WRITE_LIMIT_S = 30.0  # a server that takes no byte for so long is gone, as gRPC's own keepalive would say
STREAM_ID_MAX = 2**31 - 2**16  # the protocol's end of stream ids is near: a new connection starts from 1 again

Headers = Iterable[tuple[str, str]]


class Connection:
    """An open connection. `run` must be running while it is used."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: CALL_WINDOW_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,  # h2 refuses more; a status is one line
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,  # bounds what h2 keeps of streams it must refuse
            },
        )
        self._frames = FrameLengths(self._h2.max_inbound_frame_size)
        self._calls: dict[int, Call] = {}
        self._owed: dict[int, int] = {0: 0}  # window not yet given back, by stream; 0 is the connection's own
        self._outgoing = bytearray()
        self._outgoing_changed = trio.lowlevel.ParkingLot()
        self._call_ended = trio.lowlevel.ParkingLot()
        self.lost: str | None = None  # why the connection is over
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - 65_535)
        self._flush()

    @property
    def usable(self) -> bool:
        """Whether a new call may start on it."""
        return self.lost is None

    async def run(self) -> None:
        """Move bytes until the connection breaks or this is cancelled; then every call is told. Never raises."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._lose("the connection to containerd was closed")
            await trio.aclose_forcefully(self._stream)

    @asynccontextmanager
    async def call(self, path: str, request: bytes, metadata: Headers) -> AsyncIterator[Call]:
        """Send a request and give the call, to be iterated over for its messages; leaving it early resets it.

        Raises `Unreachable` when the connection is over, ValueError for a request that is too large. The caller sets
        the deadline, also for a server that allows no further stream.
        """
        if len(request) > REQUEST_BYTES_MAX:
            raise ValueError(f"a request of {len(request)} bytes; at most {REQUEST_BYTES_MAX} are sent")
        await self._wait_for_a_place()
        call = self._begin(path, metadata)
        try:
            await self._send(call, frame(request))
            yield call
        finally:
            self._forget(call)

    def _take_back(self, call: Call, window_bytes: int) -> None:
        """Give back `window_bytes` of a call's window, which its reader has taken; half a window at a time."""
        call_owed = self._owed.get(call.stream_id, 0) + window_bytes
        if call.ended or self.lost is not None:
            return
        if call_owed >= CALL_WINDOW_BYTES // 2:
            self._h2.increment_flow_control_window(call_owed, call.stream_id)
            self._flush()
            call_owed = 0
        self._owed[call.stream_id] = call_owed

    async def _wait_for_a_place(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.lost is None and self._h2.open_outbound_streams >= self._h2.remote_settings.max_concurrent_streams:
            await self._call_ended.park()
        if self.lost is not None:
            raise Unreachable(self.lost)

    def _begin(self, path: str, metadata: Headers) -> Call:
        stream_id = self._h2.get_next_available_stream_id()
        if stream_id > STREAM_ID_MAX:
            self._lose("the connection to containerd is used up")
            raise Unreachable("the connection to containerd is used up")
        self._h2.send_headers(
            stream_id,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "p2pmirror"),
                *metadata,
            ],
        )
        self._flush()
        call = Call(stream_id, self._take_back)
        self._calls[stream_id] = call
        return call

    async def _send(self, call: Call, body: bytes) -> None:
        """Send the body as the server gives room for it; stop when the call has ended already."""
        while not call.ended:
            room = min(self._h2.local_flow_control_window(call.stream_id), self._h2.max_outbound_frame_size, len(body))
            if room <= 0:
                await call.wait_changed()
                continue
            portion, body = body[:room], body[room:]
            self._h2.send_data(call.stream_id, portion, end_stream=not body)
            self._flush()
            if not body:
                call.sent = True
                return

    def _forget(self, call: Call) -> None:
        """Reset what has not ended; whatever still comes for it is dropped by h2."""
        del self._calls[call.stream_id]
        self._owed.pop(call.stream_id, None)
        if self.lost is None and not call.reset and not (call.sent and call.closed):
            self._h2.reset_stream(call.stream_id, h2.errors.ErrorCodes.CANCEL)
            self._flush()
        call.finish(RpcError(Code.CANCELLED, "the call was left"))
        self._call_ended.unpark_all()

    def _give_back(self) -> None:
        """Give back the connection's window, half of it at a time."""
        if self._owed[0] >= CONNECTION_WINDOW_BYTES // 2:
            self._h2.increment_flow_control_window(self._owed[0])
            self._owed[0] = 0

    def _flush(self) -> None:
        self._outgoing += self._h2.data_to_send()
        self._outgoing_changed.unpark_all()

    async def _write(self) -> None:
        while self.lost is None:
            if not self._outgoing:
                await self._outgoing_changed.park()
                continue
            data, self._outgoing = self._outgoing, bytearray()
            self._outgoing_changed.unpark_all()
            try:
                with trio.fail_after(WRITE_LIMIT_S):
                    await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._lose(f"containerd closed the connection ({error.__cause__ or error})")
            except trio.TooSlowError:
                self._lose(f"containerd has taken nothing for {WRITE_LIMIT_S:g} s")
        await trio.aclose_forcefully(self._stream)  # lets the reading side end as well

    async def _read(self) -> None:
        while self.lost is None:
            while len(self._outgoing) > OUTGOING_BYTES_MAX and self.lost is None:
                await self._outgoing_changed.park()
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._lose(f"the connection to containerd broke ({error.__cause__ or error})")
                return
            if not data:
                self._lose("containerd closed the connection")
                return
            self._received(data)

    def _received(self, data: bytes | bytearray) -> None:
        """Take what the server sent; anything that is not HTTP/2 ends the connection."""
        try:
            self._frames.check(data)
            for event in self._h2.receive_data(bytes(data)):
                self._happened(event)
            if self.lost is None:
                self._give_back()
                self._flush()
        except Exception as error:  # noqa: BLE001 - h2, hpack and hyperframe parse hostile bytes; all their errors are one
            said = printable(str(error)[:200].encode("utf-8", "replace"))  # h2 quotes names that cannot be printed
            self._lose(f"containerd broke the protocol ({type(error).__name__}: {said})")

    def _happened(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._data_came(event)
            case h2.events.ResponseReceived():
                self._headers_came(event)
            case h2.events.TrailersReceived():
                self._end_call(event.stream_id, error_in_trailers(_pairs(event)))
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self._stream_closed(event)
            case h2.events.ConnectionTerminated():
                self._lose(f"containerd ended the connection (GOAWAY {int(event.error_code or 0):#x})")
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room_came()
            case _:
                pass  # pings and settings are answered by h2 itself

    def _data_came(self, event: h2.events.DataReceived) -> None:
        window_bytes = event.flow_controlled_length or 0
        self._owed[0] += window_bytes
        call = self._calls.get(event.stream_id or 0)
        if call is not None and not call.ended and window_bytes:
            call.arrived(event.data or b"", window_bytes)

    def _headers_came(self, event: h2.events.ResponseReceived) -> None:
        headers = _pairs(event)
        if (error := error_in_headers(headers)) is not None:
            self._end_call(event.stream_id, error)
        elif has_status(headers):
            self._end_call(event.stream_id, error_in_trailers(headers))

    def _stream_closed(self, event: h2.events.StreamEnded | h2.events.StreamReset) -> None:
        call = self._calls.get(event.stream_id or 0)
        if call is None:
            return
        if isinstance(event, h2.events.StreamReset):
            call.reset = True
            self._end_call(event.stream_id, error_of_reset(int(event.error_code or 0)))
        else:
            call.closed = True
            self._end_call(event.stream_id, RpcError(Code.UNKNOWN, "the response ended without a status"))

    def _end_call(self, stream_id: int | None, error: RpcError | None) -> None:
        call = self._calls.get(stream_id or 0)
        if call is not None:
            call.finish(error)
        self._call_ended.unpark_all()

    def _room_came(self) -> None:
        for call in self._calls.values():
            call.wake()
        self._call_ended.unpark_all()

    def _lose(self, why: str) -> None:
        """Say once why the connection is over, and wake everybody who waits on it."""
        if self.lost is None:
            self.lost = why
        for call in self._calls.values():
            call.finish(Unreachable(self.lost))
        self._call_ended.unpark_all()
        self._outgoing_changed.unpark_all()


def _pairs(event: h2.events.ResponseReceived | h2.events.TrailersReceived) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in event.headers or []]
