"""What a cache writes beside its content: one small file a blob, a tag and a pin.

Laws: it only thinks; what cannot be read is None, never an error: a lost record costs a hash, not a blob; a name that
comes from outside never becomes a part of a path.

The directory:

    blobs/<algorithm>/<hex>     content, whole
    facts/<algorithm>/<hex>     what is known of it, as JSON; written before the blob has its name; its time of change
                                is when the blob was used last
    tags/<sha256 of the name>   what a tag stands for, as JSON
    pins/<sha256 of the pin>    what is never evicted, as JSON
    lock                        held while several files are changed together
    .incoming-…                 being written, or left half there; `progress` says what is noted of it
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from p2pmirror.oci import Descriptor, Digest, Invalid, TagName

ALGORITHMS: Final = ("sha256", "sha512")
LOCK_NAME: Final = "lock"
RECORD_BYTES_MAX: Final = 64 * 1024  # 64 KiB: 64 names of 500 characters and a referrer's annotations
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # text that is no UTF-8 is its own error
NAMES_MAX: Final = 64  # images that share one layer: beyond that it is a base of everything, and filters see enough


class Referrer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the referrers list says of a manifest that has a subject."""

    subject: str
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One blob, as its record says; `kept_s` is the time of day."""

    size: int
    kept_s: float
    media_type: str | None = None
    names: tuple[str, ...] = ()
    referrer: Referrer | None = None


class TagRecord(msgspec.Struct, frozen=True):
    """One tag; `confirmed_s` is the time of day at which it was said last."""

    name: str
    digest: str
    media_type: str
    size: int
    confirmed: bool
    confirmed_s: float


class PinRecord(msgspec.Struct, frozen=True):
    """One pin: a digest, `registry/repository`, or that with a tag."""

    pin: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in a cache's directory."""

    root: Path

    def blob(self, digest: Digest) -> Path:
        """Return where content is."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def facts(self, digest: Digest) -> Path:
        """Return where its record is."""
        return self.root / "facts" / digest.algorithm / digest.hex

    def tag(self, name: TagName) -> Path:
        """Return where a tag's record is: names are longer than file names may be."""
        return self.tags / _hashed(str(name))

    def pin(self, pin: str) -> Path:
        """Return where a pin's record is."""
        return self.pins / _hashed(pin)

    @property
    def tags(self) -> Path:
        """Return the directory of tags."""
        return self.root / "tags"

    @property
    def pins(self) -> Path:
        """Return the directory of pins."""
        return self.root / "pins"

    @property
    def lock(self) -> Path:
        """Return the lock file."""
        return self.root / LOCK_NAME

    def content(self, kind: str) -> list[tuple[str, Path]]:
        """Return the directories of `blobs` or of `facts`, with the algorithm of each."""
        return [(algorithm, self.root / kind / algorithm) for algorithm in ALGORITHMS]

    @property
    def watched(self) -> list[Path]:
        """Return all directories whose names mean something."""
        return [*(path for kind in ("blobs", "facts") for _, path in self.content(kind)), self.tags, self.pins]


def encode(record: Facts | TagRecord | PinRecord) -> bytes:
    """Write a record; a referrer whose annotations are too long goes without them."""
    data = msgspec.json.encode(record)
    if len(data) > RECORD_BYTES_MAX and isinstance(record, Facts) and record.referrer is not None:
        short = msgspec.structs.replace(record.referrer, annotations={})
        data = msgspec.json.encode(msgspec.structs.replace(record, referrer=short))
    return data


def read_facts(data: bytes | None) -> Facts | None:
    """Read a blob's record."""
    if data is None:
        return None
    try:
        facts = msgspec.json.decode(data, type=Facts)
    except _UNREADABLE:
        return None
    return facts if facts.size >= 0 else None


def read_tag(data: bytes | None) -> tuple[TagName, Digest, TagRecord] | None:
    """Read a tag's record."""
    if data is None:
        return None
    try:
        record = msgspec.json.decode(data, type=TagRecord)
        return TagName.parse(record.name), Digest.parse(record.digest), record
    except (*_UNREADABLE, Invalid):
        return None


def read_pin(data: bytes | None) -> str | None:
    """Read a pin's record."""
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=PinRecord).pin
    except _UNREADABLE:
        return None


def referrer_of(facts: Facts, digest: Digest) -> tuple[Digest, Descriptor] | None:
    """Return the subject of a manifest and how the referrers list describes it."""
    said = facts.referrer
    if said is None or facts.media_type is None:
        return None
    try:
        subject = Digest.parse(said.subject)
    except Invalid:
        return None
    return subject, Descriptor(
        facts.media_type, digest, facts.size, artifact_type=said.artifact_type, annotations=said.annotations
    )


def bounded(names: Iterable[str]) -> frozenset[str]:
    """Return the names, or the first of them by the alphabet where there are too many."""
    every = frozenset(names)
    return every if len(every) <= NAMES_MAX else frozenset(sorted(every)[:NAMES_MAX])


def _hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()
