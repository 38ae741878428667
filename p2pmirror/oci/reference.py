"""A reference is what people and containerd write to name an image: registry, repository, tag, digest.

Laws: a value that exists is well formed and says all, the registry included; what was parsed has one spelling for
one image (docker.io has three names, its official images a `library/` that people leave out, host names no case);
nothing adds `latest` unless it is asked to.

Follows the grammar of the distribution project's reference package. Its limit of 255 characters is taken as the newer
versions take it, for the repository alone: a long host name costs nobody a repository name that containerd accepts.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from p2pmirror.oci.digest import Digest
from p2pmirror.oci.errors import Invalid

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

REGISTRY_CHARACTERS_MAX = 261  # characters: 255 of a DNS name or an address in brackets, a colon, a port of 5
REPOSITORY_CHARACTERS_MAX = 255  # characters: the distribution grammar's limit
TAG_CHARACTERS_MAX = 128  # characters: the distribution grammar's limit
TEXT_CHARACTERS_MAX = 1024  # characters: the longest parts and a sha512 digest need 783; nothing longer is looked at

_ALIASES = {"index.docker.io": DEFAULT_REGISTRY, "registry-1.docker.io": DEFAULT_REGISTRY}
_OFFICIAL = "library/"  # where docker.io keeps what is named by one component

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,{TAG_CHARACTERS_MAX - 1}}}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TagName:
    """A tag in full: the key under which nodes tell one another what the tag stands for."""

    registry: str
    repository: str
    tag: str

    def __post_init__(self) -> None:
        check_registry(self.registry)
        check_repository(self.repository)
        check_tag(self.tag)

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `registry/repository:tag`, all three there; Invalid (NAME_INVALID, TAG_INVALID) for anything else.

        The first component is the registry whatever it looks like; aliases and `library/` are resolved.
        """
        registry, slash, rest = _bounded(text).partition("/")
        if not slash:
            raise Invalid("NAME_INVALID", "a tag's name is written registry/repository:tag", text)
        repository, colon, tag = rest.partition(":")
        if not colon:
            raise Invalid("TAG_INVALID", "a tag's name ends with its tag", text)
        registry = canonical_registry(check_registry(registry))
        return cls(registry, canonical_repository(registry, repository), tag)


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by name: `registry/repository[:tag][@digest]`. `str()` gives that form, always with the registry."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_registry(self.registry)
        check_repository(self.repository)
        if self.tag is not None:
            check_tag(self.tag)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """Registry and repository, as in `docker.io/library/nginx`."""
        return f"{self.registry}/{self.repository}"

    @property
    def tag_name(self) -> TagName | None:
        """The tag in full, when there is one."""
        return None if self.tag is None else TagName(self.registry, self.repository, self.tag)

    def with_default_tag(self) -> "Reference":
        """Return this reference, with the tag `latest` if it has neither tag nor digest."""
        return self if self.tag is not None or self.digest is not None else replace(self, tag=DEFAULT_TAG)

    @classmethod
    def parse(cls, text: str, *, default_registry: str = DEFAULT_REGISTRY) -> Self:
        """Read what a person writes (`nginx`, `ghcr.io/a/b:v1`).

        A first component with a dot, a colon or an upper-case letter, or `localhost`, is the registry; without one it
        is the default registry. Invalid (NAME_INVALID, TAG_INVALID, DIGEST_INVALID) for what is no reference.
        """
        if _IMAGE_ID.fullmatch(text):
            raise Invalid("NAME_INVALID", "64 hex digits are an image's id, not its name", text)
        host, slash, rest = _bounded(text).partition("/")
        if slash and _is_host(host):
            return cls._of(host, rest, text)
        return cls._of(default_registry, text, text)

    @classmethod
    def parse_strict(cls, text: str) -> Self:
        """Read the full form only, as containerd names images: a host with a dot or a port, or `localhost`, in front.

        Invalid for anything else, as `sha256:…`, CRI's alias of an image.
        """
        host, slash, rest = _bounded(text).partition("/")
        if not slash or not _is_qualified(host):
            raise Invalid("NAME_INVALID", "no registry in front of the image's name", text)
        return cls._of(host, rest, text)

    @classmethod
    def _of(cls, registry: str, rest: str, text: str) -> Self:
        named, at, digest = rest.partition("@")
        repository, colon, tag = named.partition(":")
        if not repository:
            raise Invalid("NAME_INVALID", "the image has no name", text)
        registry = canonical_registry(check_registry(registry))
        repository = canonical_repository(registry, repository)
        return cls(registry, repository, tag if colon else None, Digest.parse(digest) if at else None)


def canonical_registry(name: str) -> str:
    """Return the one spelling of a registry's name: docker.io for its aliases, host names in lower case.

    A name without dot and port keeps its case: upper case is the only sign that it is a host (`Registry/image`).
    """
    lower = name.lower()
    return _ALIASES.get(lower, lower) if _is_qualified(lower) else name


def canonical_repository(registry: str, repository: str) -> str:
    """Return the repository's name in full: docker.io keeps `nginx` as `library/nginx`. `registry` is canonical."""
    return repository if registry != DEFAULT_REGISTRY or "/" in repository else f"{_OFFICIAL}{repository}"


def check_registry(text: str) -> str:
    """Return `text` if it is a host (a name, an IPv4 or a bracketed IPv6 address), port or not; else Invalid."""
    if len(text) > REGISTRY_CHARACTERS_MAX or _REGISTRY.fullmatch(text) is None:
        raise Invalid("NAME_INVALID", "not a registry's host name", text)
    return text


def check_repository(text: str) -> str:
    """Return `text` if it is a repository's name (`library/nginx`); else Invalid (NAME_INVALID)."""
    if len(text) > REPOSITORY_CHARACTERS_MAX:
        raise Invalid("NAME_INVALID", f"a repository's name has at most {REPOSITORY_CHARACTERS_MAX} characters", text)
    if _REPOSITORY.fullmatch(text) is None:
        raise Invalid("NAME_INVALID", "not a repository's name", text)
    return text


def check_tag(text: str) -> str:
    """Return `text` if it is a tag; else Invalid (TAG_INVALID)."""
    if _TAG.fullmatch(text) is None:
        raise Invalid("TAG_INVALID", f"not a tag of at most {TAG_CHARACTERS_MAX} characters", text)
    return text


def _bounded(text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Invalid("NAME_INVALID", f"a reference has at most {TEXT_CHARACTERS_MAX} characters", text)
    return text


def _is_host(component: str) -> bool:
    return _is_qualified(component) or component != component.lower()


def _is_qualified(component: str) -> bool:
    return "." in component or ":" in component or component == "localhost"
