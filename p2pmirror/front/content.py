"""What manifests and blobs have in common when they are answered with.

Laws: the media type is the one on record, never a guess and never anything that could break a header; a digest is the
strongest validator there is, so it is the entity tag; what was found is let go of once, by the body or here.
"""

from functools import lru_cache
from typing import Final

from p2pmirror.front.errors import API_VERSION
from p2pmirror.oci import Digest, Invalid, mediatype
from p2pmirror.resolve.want import Arriving, Content, Found, Held
from p2pmirror.wire.http import Response

MEDIA_TYPES_REMEMBERED: Final = 256  # some twenty are in use


def headers_of(content: Content) -> dict[str, str]:
    """Return the headers that every answer with content has."""
    digest = str(content.digest)
    return {
        "Content-Type": _content_type(content.media_type),
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Docker-Distribution-Api-Version": API_VERSION,
    }


def not_modified(found: Found) -> Response:
    """Let go of what was found, and say that the client has it."""
    release(found)
    headers = headers_of(found.content)
    del headers["Content-Type"]
    return Response(304, headers)


def is_known(if_none_match: str, digest: Digest) -> bool:
    """Return whether an If-None-Match names this digest (RFC 9110, section 13.1.2: weak tags compare equal)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return f'"{digest}"' in tags or "*" in tags


def release(found: Found) -> None:
    """Let go of what was found without sending it."""
    if isinstance(found, Held):
        found.file.close()
    elif isinstance(found, Arriving):
        found.close()


@lru_cache(maxsize=MEDIA_TYPES_REMEMBERED)
def _content_type(media_type: str | None) -> str:
    if media_type is None:
        return mediatype.OCTET_STREAM
    try:
        return mediatype.check(media_type)
    except Invalid:
        return mediatype.OCTET_STREAM
