"""Files with images in them, read without unpacking: what is in them, and the bytes of each.

Laws: nothing is written anywhere, so no path of an archive means anything on this machine; links are names within the
archive or are refused; every member is hashed before any is used; sizes, numbers and depth are bounded, so that reading
a hostile archive ends, in bounded memory, with `BadArchive`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from p2pmirror.errors import MirrorError
from p2pmirror.oci import Digest

MEMBERS_MAX: Final = 20_000  # a hundred images of a hundred layers, with what Docker writes beside each
NAME_CHARACTERS_MAX: Final = 1024  # `blobs/sha512/` and 128 digits need 141
BLOCK_BYTES: Final = 1024 * 1024  # what is read and hashed at a time

Progress = Callable[[int], None]
"""Told of every part that was read, in bytes."""


class BadArchive(MirrorError):
    """What is wrong with an archive, in one line; nothing of it was kept."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive; `digest` is that of its bytes."""

    name: str
    size: int
    digest: Digest


class Archive(Protocol):
    """An open archive. Works in the thread that calls it; not for two at a time."""

    def scan(self, progress: Progress) -> Mapping[str, Member]:
        """Read everything once and return what is there. Raises `BadArchive`."""
        ...

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield a member's bytes. Raises `BadArchive`."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def whole(archive: Archive, member: Member, bytes_max: int) -> bytes:
    """Return a small member's bytes. Raises `BadArchive`."""
    if member.size > bytes_max:
        raise BadArchive(f"{member.name!r} has {member.size} bytes, more than the {bytes_max} that are read")
    return b"".join(archive.read(member))


def plain_name(text: str) -> str:
    """Return a member's name as `a/b`; BadArchive for one that leads out, or has what no name of an image has."""
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if text.startswith("/") or ".." in parts or len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
        raise BadArchive(f"a path that no archive of images has: {text[:100]!r}")
    return "/".join(parts)


def algorithm_of(name: str) -> str:
    """Say which hash a member is to have: the one that its place in a layout says."""
    return "sha512" if name.startswith("blobs/sha512/") else "sha256"
