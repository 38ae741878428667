"""The paths of the registry API, read and built.

Laws: percent-encoding is taken off once, before anything else is looked at; what is read is well formed (so it has no
NUL, no `..` and no empty component); a path that is not one of these is `NotAPath`, one of these with a wrong part is
`Invalid`.

Follows the OCI distribution specification, section "Endpoints": the ones that read.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from p2pmirror.oci.digest import Digest
from p2pmirror.oci.errors import Invalid
from p2pmirror.oci.reference import check_repository, check_tag

# Harbor's own: by it scripts see that a mirror is up, whatever a mirror is made of
HARBOR_PING: Final = "/api/v2.0/ping"
# characters: repository, sha512 digest and the words between need 410, percent-encoding of all of them three times that
PATH_CHARACTERS_MAX: Final = 1_536
PATHS_REMEMBERED: Final = 2_048  # paths: a rollout asks for some hundreds again and again; at the very most 6 MiB

_ESCAPE_BROKEN: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class NotAPath(Invalid):
    """The path is none of the registry API's: catch it before `Invalid`, which it also is."""


@dataclass(frozen=True, slots=True)
class Base:
    """`/v2/`: asks whether a registry is here."""


@dataclass(frozen=True, slots=True)
class ManifestPath:
    """`/v2/<repository>/manifests/<tag or digest>`; a str is a tag."""

    repository: str
    reference: str | Digest


@dataclass(frozen=True, slots=True)
class BlobPath:
    """`/v2/<repository>/blobs/<digest>`."""

    repository: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsPath:
    """`/v2/<repository>/tags/list`."""

    repository: str


@dataclass(frozen=True, slots=True)
class ReferrersPath:
    """`/v2/<repository>/referrers/<digest>`."""

    repository: str
    digest: Digest


Path = Base | ManifestPath | BlobPath | TagsPath | ReferrersPath

_BASE: Final = Base()


def parse_path(path: str) -> Path:
    """Read the path of a request, without its query.

    Raises NotAPath for a path of no endpoint; Invalid (NAME_INVALID, TAG_INVALID, DIGEST_INVALID) for a wrong part.
    """
    if len(path) > PATH_CHARACTERS_MAX:
        raise Invalid("NAME_INVALID", f"a path has at most {PATH_CHARACTERS_MAX} characters", path)
    return _parse(path)


def manifest_path(repository: str, reference: str | Digest) -> str:
    """Build the path of a manifest by tag or digest; Invalid if a part is not well formed."""
    last = str(reference) if isinstance(reference, Digest) else check_tag(reference)
    return f"/v2/{check_repository(repository)}/manifests/{last}"


def blob_path(repository: str, digest: Digest) -> str:
    """Build the path of a blob; Invalid if the repository's name is not well formed."""
    return f"/v2/{check_repository(repository)}/blobs/{digest}"


@lru_cache(maxsize=PATHS_REMEMBERED)
def _parse(path: str) -> Path:
    plain = _decoded(path) if "%" in path else path
    if plain in {"/v2/", "/v2"}:
        return _BASE
    # The last two components say what is asked for, so a repository may itself have `manifests` or `blobs` in its name.
    head, _, last = plain.rpartition("/")
    front, _, kind = head.rpartition("/")
    if not front.startswith("/v2/"):
        raise NotAPath("UNSUPPORTED", "not a path of the registry API", path)
    repository = front[len("/v2/") :]
    match kind:
        case "blobs":
            return BlobPath(check_repository(repository), Digest.parse(last))
        case "manifests":
            return ManifestPath(check_repository(repository), Digest.parse(last) if ":" in last else check_tag(last))
        case "referrers":
            return ReferrersPath(check_repository(repository), Digest.parse(last))
        case "tags" if last == "list":
            return TagsPath(check_repository(repository))
        case _:
            raise NotAPath("UNSUPPORTED", "not a path of the registry API", path)


def _decoded(path: str) -> str:
    if _ESCAPE_BROKEN.search(path):
        raise Invalid("NAME_INVALID", "percent sign without two hex digits", path)
    return unquote(path)
