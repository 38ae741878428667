"""Answers with a manifest: always the whole, byte for byte as it was hashed.

Follows the OCI distribution specification, section "Pulling manifests".
"""

from p2pmirror.front.content import headers_of
from p2pmirror.resolve.want import Arriving, Found, Held
from p2pmirror.wire.http import Body, FileBody, PumpBody, Response


def answer(found: Found) -> Response:
    """Return the response, which owns what was found from now on."""
    return Response(200, headers_of(found.content), _body(found))


def _body(found: Found) -> Body:
    if isinstance(found, Held):
        return FileBody(found.file, 0, found.content.size)
    if isinstance(found, Arriving):
        return PumpBody(found.end - found.start, found.pump, found.close)
    return found.data
