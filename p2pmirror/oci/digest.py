"""A digest names content by its hash.

Laws: a `Digest` that exists is well formed; there is one text for each digest and one digest for each text; order is
the order of the texts.

Follows the OCI image specification, descriptor.md, section "Digests": the two registered algorithms and no others.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from p2pmirror.oci.errors import Invalid

_HEX = {  # the algorithms, and how their encoded part looks
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}


class Hasher(Protocol):
    """What a running hash of `hashlib` offers, as far as digests need it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Lower-case hex of the hash of everything taken in so far."""

    def copy(self) -> "Hasher":
        """Return a hash that goes on from here by itself."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm` is sha256 or sha512; `hex` is the hash in lower case, of that algorithm's exact length."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        form = _HEX.get(self.algorithm)
        if form is None:
            raise Invalid("DIGEST_INVALID", "digest algorithm is neither sha256 nor sha512", self.algorithm)
        if form.fullmatch(self.hex) is None:
            raise Invalid("DIGEST_INVALID", f"not the lower-case hex of a {self.algorithm}", self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex`; Invalid (DIGEST_INVALID) for anything else."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise Invalid("DIGEST_INVALID", "a digest is written algorithm:hex", text)
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Hash `data`; Invalid (DIGEST_INVALID) when the algorithm is not one of ours."""
        return cls(algorithm, _new(algorithm, data).hexdigest())

    def hasher(self) -> Hasher:
        """Begin a fresh hash of this digest's algorithm; feed it and ask `matches`."""
        return _new(self.algorithm)

    def matches(self, hasher: Hasher) -> bool:
        """Say whether what went into the hasher is the content that this digest names."""
        return hasher.hexdigest() == self.hex


def _new(algorithm: str, data: bytes = b"") -> "hashlib._Hash":
    if algorithm == "sha256":
        return hashlib.sha256(data)
    if algorithm == "sha512":
        return hashlib.sha512(data)
    raise Invalid("DIGEST_INVALID", "digest algorithm is neither sha256 nor sha512", algorithm)
