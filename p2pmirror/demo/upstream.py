"""A registry for the demo: it wants a token, counts what it gives, and limits how many manifests are fetched.

Laws: nothing is given without a token, which lasts for the demo; a HEAD costs no quota; what it says of its quota is
true. Follows the OCI distribution specification and the token specification of Docker's registry.
"""

import json
import secrets
from pathlib import Path
from typing import Final

import trio

from p2pmirror.demo.image import Image
from p2pmirror.errors import NotHere
from p2pmirror.oci import BlobPath, Digest, Invalid, ManifestPath, parse_path
from p2pmirror.store.files import Files
from p2pmirror.wire.address import Address
from p2pmirror.wire.http import FileBody, Request, Response
from p2pmirror.wire.http_server import HttpServer, ServerOptions
from p2pmirror.wire.network import Network
from p2pmirror.wire.ranges import Unsatisfiable, content_range, parse_range

MANIFESTS_MAX: Final = 10  # fetched in `WINDOW_S`: an image has two, so that one node may pull it and five may not
WINDOW_S: Final = 6 * 3600
SERVICE: Final = "demo"


class Upstream:
    """Serves one image out of a layout."""

    def __init__(self, address: Address, layout: Path, files: Files) -> None:
        """Listen at `address` once it runs; `image` is set before anybody asks."""
        self.address = address
        self.image: Image | None = None
        self.sent_bytes = 0  # of blobs and manifests
        self.requests = {"tag": 0, "manifest": 0, "blob": 0}  # but those for tokens and those without one
        self.manifests = 0  # fetched by GET
        self._layout = layout
        self._files = files
        self._token = secrets.token_hex(16)

    async def run(self, network: Network, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be listened on."""
        server = HttpServer(self.handle, ServerOptions())
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run, await network.listen(self.address))
            task_status.started()

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == "/token":
            return _json(200, {"token": self._token, "expires_in": 3600})
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return self._challenge(request)
        try:
            return await self._content(request)
        except Unsatisfiable:
            return _json(416, _error("RANGE_INVALID"))
        except (Invalid, NotHere):
            return _json(404, _error("NOT_FOUND"))

    async def _content(self, request: Request) -> Response:
        path = parse_path(request.path)
        if isinstance(path, ManifestPath):
            self.requests["manifest" if isinstance(path.reference, Digest) else "tag"] += 1
            return await self._manifest(path.reference, request)
        if isinstance(path, BlobPath):
            self.requests["blob"] += 1
            return await self._file(path.digest, "application/octet-stream", request)
        return _json(200, {})

    async def _manifest(self, reference: Digest | str, request: Request) -> Response:
        assert self.image is not None, "the image is made before anybody is told of it"
        known = {each.digest: each.media_type for each in self.image.pulled}
        digest = self.image.index.digest if reference == self.image.name.tag else reference
        if not isinstance(digest, Digest) or digest not in known:
            raise NotHere(f"{reference} is not here")
        if request.method == "GET":
            if self.manifests == MANIFESTS_MAX:
                return self._limited(_json(429, _error("TOOMANYREQUESTS")))
            self.manifests += 1
        return self._limited(await self._file(digest, known[digest], request))

    async def _file(self, digest: Digest, media_type: str, request: Request) -> Response:
        file = await self._files.open(self._layout / "blobs" / digest.algorithm / digest.hex)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": str(digest), "Accept-Ranges": "bytes"}
        try:
            span = parse_range(request.headers.get("range", ""), file.size) if "range" in request.headers else None
        except Unsatisfiable:
            file.close()
            raise
        offset, count = (0, file.size) if span is None else (span.offset, span.count)
        if span is not None:
            headers["Content-Range"] = content_range(span, file.size)
        return Response(200 if span is None else 206, headers, FileBody(file, offset, count), done=self._sent)

    def _sent(self, count: int, is_whole: bool) -> None:  # noqa: FBT001 - the server calls it like this
        del is_whole
        self.sent_bytes += count

    def _challenge(self, request: Request) -> Response:
        realm = f'realm="http://{self.address}/token",service="{SERVICE}"'
        path = request.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        response = _json(401, _error("UNAUTHORIZED"))
        response.headers["WWW-Authenticate"] = f'Bearer {realm},scope="repository:{path}:pull"'
        return response

    def _limited(self, response: Response) -> Response:
        response.headers["RateLimit-Limit"] = f"{MANIFESTS_MAX};w={WINDOW_S}"
        response.headers["RateLimit-Remaining"] = f"{MANIFESTS_MAX - self.manifests};w={WINDOW_S}"
        if response.status == 429:
            response.headers["Retry-After"] = "60"
        return response


def _json(status: int, value: object) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _error(code: str) -> dict[str, object]:
    return {"errors": [{"code": code, "message": code.lower()}]}
