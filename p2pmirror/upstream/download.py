"""A blob that is read to its end whatever breaks on the way.

Laws:
- never a byte more than was announced, and none twice: after a break it goes on at the next byte;
- each time it is the registry that is asked, since signed addresses of blob stores run out;
- a few openings in a row without progress are the end; what the registry refuses in so many words is the end at once.

Follows RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range) and 14.4 (Content-Range).
"""

import re
from contextlib import suppress
from typing import Final

import trio

from p2pmirror.errors import MirrorError, Unreachable, UpstreamRefused
from p2pmirror.oci import Digest, blob_path
from p2pmirror.upstream.answer import Answer, Question, content_length
from p2pmirror.upstream.asking import Asker

TRIES_MAX: Final = 5  # openings without progress
PROGRESS_BYTES: Final = 16 << 10  # 16 KiB of an opening are progress: one byte each time would never end
PAUSE_S: Final = 0.25  # after an opening without progress; then twice as long each time
END_S_MAX: Final = 1.0  # for the end of a body whose bytes are all here

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")


async def ask_blob_size(asker: Asker, repository: str, digest: Digest) -> int:
    """Return a blob's length: by HEAD, or by asking for its first byte where HEAD tells nothing."""
    question = blob_question("HEAD", repository, digest)
    try:
        async with asker.answer(question) as answer:
            if answer.length is not None:
                return answer.length
    except UpstreamRefused as error:
        if error.status not in {403, 405, 501, 502}:  # signed addresses may be good for GET alone
            raise
    async with asker.answer(blob_question("GET", repository, digest, {"Range": "bytes=0-0"})) as answer:
        size = answer.length if answer.status == 200 else _range_of(answer)[2]
    if size is None:
        raise UpstreamRefused(f"{asker.name} does not say how long {digest} is", status=502)
    return size


def blob_question(method: str, repository: str, digest: Digest, headers: dict[str, str] | None = None) -> Question:
    """Return the question for a blob."""
    return Question(
        "blob",
        "HEAD" if method == "HEAD" else "GET",
        blob_path(repository, digest),
        repository,
        str(digest),
        way="documents" if method == "HEAD" else "blobs",
        headers=headers or {},
    )


class RegistryDownload:
    """See `protocol.Download`; for one task at a time."""

    def __init__(self, asker: Asker, repository: str, digest: Digest, start: int) -> None:
        """Open nothing yet; `begin` does."""
        self._asker = asker
        self._repository = repository
        self._digest = digest
        self._next = start
        self._size: int | None = None
        self._skip = 0  # bytes of the body that come before the next
        self._etag: str | None = None
        self._answer: Answer | None = None
        self._opened_at = start
        self._tries = 0
        self._overrun = False

    @property
    def size(self) -> int:
        """Length of the whole blob in bytes."""
        assert self._size is not None, "a download is handed out once its length is known"
        return self._size

    async def begin(self) -> None:
        """Open it. Raises `NotHere`, `UpstreamRefused`, `Unreachable`. Cancellation: closed by `aclose`."""
        try:
            await self._open()
        except UpstreamRefused as error:
            if error.status != 416 or self._next == 0:
                raise
            self._size = await ask_blob_size(self._asker, self._repository, self._digest)
            if self._size != self._next:  # at its very end there is nothing to send, which many say by 416
                raise

    async def receive(self) -> bytes:
        """Return the next bytes, b"" after the last. Raises `Unreachable`, `UpstreamRefused` when it cannot go on.

        Cancelled, the download may only be closed.
        """
        while self._next < self.size:
            try:
                if self._answer is None:
                    await self._open()
                part = await self._part()
            except (Unreachable, UpstreamRefused) as error:
                await self._give_up(error)
                continue
            if part:
                self._next += len(part)
                return part
        await self._finish()
        return b""

    async def aclose(self, error: BaseException | None = None) -> None:
        """Let go of the connection. Cancellation: done all the same."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.aclose(error)

    async def _open(self) -> None:
        headers = {}
        if self._next or self._etag:
            headers["Range"] = f"bytes={self._next}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        answer = await self._asker.ask(blob_question("GET", self._repository, self._digest, headers))
        self._answer, self._opened_at = answer, self._next
        if answer.status == 206:
            first, last, size = _range_of(answer)
            if first > self._next or last + 1 > size or answer.length not in {None, last + 1 - first}:
                raise UpstreamRefused(f"{self._asker.name} answered with another range than asked for", status=502)
            self._skip = self._next - first
        else:
            size = await self._whole_size(answer)
            self._skip = self._next
        if self._size not in {None, size}:
            raise UpstreamRefused(f"{self._asker.name} has changed its mind about the length of a blob", status=502)
        if self._next > size:
            raise UpstreamRefused(f"{self._asker.name} has no byte {self._next} of {self._digest}", status=416)
        self._size = size
        etag = answer.headers.get("etag", "")
        self._etag = etag if etag.startswith('"') else None  # a weak one may not be used here

    async def _whole_size(self, answer: Answer) -> int:
        length = content_length(answer.headers)
        if length is None:
            length = await ask_blob_size(self._asker, self._repository, self._digest)
        return length

    async def _part(self) -> bytes:
        """Return the next bytes that are wanted, b"" when what came is still to be skipped."""
        assert self._answer is not None, "it has just been opened"
        part = await self._answer.receive()
        if not part:
            raise Unreachable(f"{self._asker.name}: the download ended at byte {self._next} of {self.size}")
        skipped = min(self._skip, len(part))
        self._skip -= skipped
        wanted = part[skipped : skipped + self.size - self._next]
        self._overrun = len(part) - skipped > len(wanted)
        return wanted

    async def _give_up(self, error: MirrorError) -> None:
        """Close what broke, and wait before the next opening; raise when there shall be none."""
        opened = self._answer is not None
        await self.aclose(error)
        if opened and self._next - self._opened_at >= PROGRESS_BYTES:
            self._tries = 0
        self._tries += 1
        final = isinstance(error, UpstreamRefused) and (error.status < 500 or error.status == 502)
        if final or self._tries >= TRIES_MAX:
            raise error
        if self._tries > 1:
            await trio.sleep(PAUSE_S * 2.0 ** (self._tries - 2) * (1 + self._asker.random.random()))

    async def _finish(self) -> None:
        """See to it that the body ends where it should, and let go of its connection."""
        answer = self._answer
        if answer is None:
            await trio.lowlevel.checkpoint()
            return
        rest = b""
        if not self._overrun:
            # All bytes are here already; whether they are right, their digest says.
            with trio.move_on_after(END_S_MAX), suppress(Unreachable):
                rest = await answer.receive()
        error = None
        if self._overrun or rest:
            error = Unreachable(f"{self._asker.name}: the download goes on after its last byte")
        await self.aclose(error)
        if error is not None:
            raise error


def _range_of(answer: Answer) -> tuple[int, int, int]:
    """Return first and last byte and the whole length, as a 206 says. Raises `UpstreamRefused`."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
    if match is None:
        raise UpstreamRefused(f"{answer.url.host} answered with a range and does not say which", status=502)
    return int(match[1]), int(match[2]), int(match[3])
