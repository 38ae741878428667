"""A containerd that says anything: its frames and messages are borne, and once it is honest again it is followed."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from p2pmirror.errors import NotHere, Unreachable
from p2pmirror.oci import Digest, TagName, mediatype
from p2pmirror.store.containerd import client as api_paths
from p2pmirror.store.containerd.api import containerd_pb2 as api
from p2pmirror.store.containerd.framing import frame
from p2pmirror.store.containerd.grpc import RpcError, open_channel
from p2pmirror.store.containerd.store import ContainerdStore, Options
from p2pmirror.store.containerd.walker import FILES_CHECK_S
from p2pmirror.store.memoryfiles import MemoryFiles
from simulations.determinism import seeded_scheduler
from tests.hostile.bearing import CASES, CASES_LONG, SEEDS, hold_line, pieces, shown
from tests.hostile.mutation import Mutants, of_bytes
from tests.oci.documents import encoded, image
from tests.store_containerd.fake_server import HEADERS, FakeServer

PATH = "/test.Service/Call"
CALL_S = 10.0  # the caller's own deadline, as every caller has one
HEALED_S = FILES_CHECK_S + 20.0  # what has not changed since the last walk is not looked at again before
MESSAGES = [api.VersionResponse(version="1.2.3"), api.VersionResponse(version="x" * 3000)]

FRAME_INSERTS = (
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",  # settings
    b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff",  # a window of 2^32 - 1
    b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00",  # no streams at all
    b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x7f\xff\xff\xff",  # a window update
    b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08",  # a reset
    b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02",  # GOAWAY
    b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8),  # a ping
    b"\x00\x00\x00\x09\x04\x00\x00\x00\x01",  # a continuation
    b"\x00\x00\x05\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02\x88",  # a push
    b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
)


class Recorded(trio.abc.Stream):
    """The client's end of a connection: says pieces, those behind the first once the request is out; then EOF."""

    def __init__(self, said: list[bytes], request_bytes: int) -> None:
        self._said = list(reversed(said))
        self._heard_bytes = 0
        self._request_bytes = request_bytes
        self._changed = trio.Event()
        self._first = True
        self.is_open = True

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._heard_bytes += len(data)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._first and self._heard_bytes < self._request_bytes and self.is_open:
            with trio.move_on_after(CALL_S / 2) as patience:
                await self._changed.wait()
            if patience.cancelled_caught:
                break
        self._first = False
        if not self.is_open:
            raise trio.ClosedResourceError
        return self._said.pop() if self._said else b""

    async def aclose(self) -> None:
        self.is_open = False
        self._changed.set()
        await trio.lowlevel.checkpoint()


async def record(message: Message, *, parts: int) -> tuple[list[bytes], int]:
    """Let an honest server answer one call; return what it sent, in two pieces, and how much the client said."""
    ours, theirs = trio.testing.memory_stream_pair()
    server = FakeServer(theirs)
    sent: list[bytes] = [server.h2.data_to_send()]

    async def serve() -> None:
        stream_id = await server.request()
        server.h2.send_headers(stream_id, HEADERS)
        body = frame(message.SerializeToString())
        for at in range(0, len(body), -(-len(body) // parts)):
            server.h2.send_data(stream_id, body[at : at + -(-len(body) // parts)])
        server.h2.send_headers(stream_id, [("grpc-status", "0"), ("grpc-message", "a%20b")], end_stream=True)
        sent.append(server.h2.data_to_send())
        await theirs.send_all(sent[0] + sent[1])

    heard = 0

    async def dial() -> trio.abc.Stream:
        return ours

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_channel(dial) as channel:
            await channel.unary(PATH, Empty(), type(message))
        nursery.cancel_scope.cancel()
    heard = 24 + 9  # preface and an empty frame: less than any client says before its request
    return sent, heard


async def call(said: list[bytes], request_bytes: int) -> None:
    """Call once; the server says what is given. Raises `RpcError`, `Unreachable`, TooSlowError."""
    streams: list[Recorded] = []

    async def dial() -> trio.abc.Stream:
        streams.append(Recorded(said, request_bytes))
        return streams[-1]

    try:
        async with open_channel(dial) as channel:
            with trio.fail_after(CALL_S):
                await channel.unary(PATH, Empty(), api.VersionResponse)
    finally:
        assert not [stream for stream in streams if stream.is_open]


@pytest.mark.parametrize("seed", SEEDS)
async def test_changed_frames(seed: int, long: bool, autojump_clock: Any) -> None:
    """Whatever frames come, a call ends with its message, one of two errors, or the caller's deadline."""
    random = Random(seed)
    recorded = [await record(message, parts=parts) for message in MESSAGES for parts in (1, 3)]
    mutants = of_bytes([sent[1] for sent, _ in recorded], FRAME_INSERTS)
    settings_mutants = of_bytes([recorded[0][0][0]], FRAME_INSERTS)
    for case in range(CASES_LONG // 6 if long else CASES // 8):
        how, data = mutants(random)
        opening = settings_mutants(random)[1] if random.random() < 0.2 else recorded[0][0][0]
        what = f"seed {seed}, case {case} ({how}): {shown(opening)}, {shown(data)}"
        try:
            await call([piece for piece in (opening, *pieces(data, random)) if piece], recorded[0][1])
        except (RpcError, Unreachable) as error:
            hold_line(error, what)
        except trio.TooSlowError:
            pass
        except Exception as error:
            raise AssertionError(f"{what} raised {error!r}") from error


# --- messages that are well framed, to the whole store ---

MANIFEST = encoded(image(b"layer"))
DIGEST = Digest.of(MANIFEST)
TAG = TagName("docker.io", "library/nginx", "1.27")
IMAGE = api.Image(
    name=str(TAG), target=api.Target(media_type=mediatype.OCI_MANIFEST, digest=str(DIGEST), size=len(MANIFEST))
)
INFO = api.ContentInfo(digest=str(DIGEST), size=len(MANIFEST))
EVENT = api.ImageEvent(name=str(TAG))
HONEST: dict[str, Message] = {
    api_paths.PLUGINS: api.PluginsResponse(),
    api_paths.IMAGES_LIST: api.ListImagesResponse(images=[IMAGE]),
    api_paths.IMAGES_GET: api.GetImageResponse(image=IMAGE),
    api_paths.CONTENT_LIST: api.ListContentResponse(infos=[INFO]),
    api_paths.CONTENT_INFO: api.InfoResponse(info=INFO),
    api_paths.CONTENT_READ: api.ReadContentResponse(data=MANIFEST),
    api_paths.SUBSCRIBE: api.Envelope(topic="/images/create"),
}
PROTOBUF_INSERTS = (
    b"\xff" * 10,
    b"\x0a\xff\xff\xff\xff\x07",
    b"\x12",
    b"\x00",
    b"\x7a\x02",
    b"/../../etc/shadow",
    b"\xff\xfe",
)


class Containerd:
    """Answers every call, honestly or with a mutant of what is honest."""

    def __init__(self, random: Random, mutants: Mutants) -> None:
        self.is_honest = False
        self.said: list[bytes] = []  # since the last look
        self._random = random
        self._mutants = mutants

    async def dial_into(self, nursery: trio.Nursery) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(self._serve, FakeServer(theirs))
        await trio.lowlevel.checkpoint()
        return ours

    async def _serve(self, server: FakeServer) -> None:
        answered: set[int] = set()
        await server.flush()
        while await server.read():
            for stream_id in sorted(set(server.requests) - answered):
                if server.requests[stream_id] and stream_id not in server.resets:
                    answered.add(stream_id)
                    await self._answer(server, stream_id, server.headers[stream_id][b":path"].decode())

    async def _answer(self, server: FakeServer, stream_id: int, path: str) -> None:
        subscribed = path == api_paths.SUBSCRIBE
        message = b"" if subscribed and self.is_honest else HONEST[path].SerializeToString()
        if not self.is_honest and self._random.random() < 0.7:
            message = self._mutants(self._random)[1]
            self.said.append(message)
        server.h2.send_headers(stream_id, HEADERS)
        server.h2.send_data(stream_id, frame(message)[:16_000])
        if not (subscribed and self._random.random() < 0.8):
            server.h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
        await server.flush()


def _wrapped(samples: list[bytes]) -> Mutants:
    """Change messages, also within what events carry."""
    plain = of_bytes(samples, PROTOBUF_INSERTS)

    def make(random: Random) -> tuple[str, bytes]:
        how, data = plain(random)
        if random.random() < 0.3:
            envelope = api.Envelope(topic=random.choice(("/images/create", "/content/create", "/images/delete")))
            envelope.event.value = data
            return how, envelope.SerializeToString()
        return how, data

    return make


@pytest.mark.parametrize("seed", SEEDS)
async def test_changed_messages(seed: int, long: bool, autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever containerd's messages hold, the store runs on, and follows it once it is honest."""
    random = Random(seed)
    samples = [message.SerializeToString() for message in HONEST.values()] + [EVENT.SerializeToString()]
    for case in range(30 if long else 5):
        containerd = Containerd(random, _wrapped(samples))
        with seeded_scheduler(f"{seed}/{case}"):
            await _lie_then_heal(containerd, random, f"seed {seed}, case {case}")


async def _lie_then_heal(containerd: Containerd, random: Random, what: str) -> None:
    async with trio.open_nursery() as nursery:
        options = Options(Path("/containerd.sock"), "k8s.io", None)
        store = ContainerdStore(options, MemoryFiles(), dial=lambda: containerd.dial_into(nursery))
        await nursery.start(store.run)
        for _ in range(20):
            await trio.sleep(random.choice((0.1, 1, 6)))
            with trio.move_on_after(CALL_S * 10) as patience:
                await _read(store)
            assert not patience.cancelled_caught, f"{what} hangs: {containerd.said[-5:]}"
        containerd.is_honest = True
        with trio.move_on_after(HEALED_S):
            while store.waiting_for is not None or store.inventory.tag(TAG) is None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)
        held = store.inventory.tag(TAG)
        assert held is not None, f"{what}: {store.waiting_for}, after {containerd.said[-5:]}"
        assert held.digest == DIGEST
        nursery.cancel_scope.cancel()


async def _read(store: ContainerdStore) -> None:
    try:
        with await store.open(DIGEST) as blob:
            await blob.file.read_at(0, blob.file.size)
    except (NotHere, Unreachable) as error:
        hold_line(error, "a blob")
