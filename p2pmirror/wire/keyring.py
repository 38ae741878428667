"""The cluster's keys: tags that only those who have a key can make, and a key that is changed without a pause.

Laws:
- the first key signs, all verify: so a key is changed by adding the new one behind the old one everywhere, then putting
  it first, then taking the old one away, and at no moment do two agents refuse one another;
- a tag covers its parts and where each of them ends, and is of use in one domain only;
- tags are compared in constant time; no key and no tag is ever written out.

BLAKE2b with a key is a MAC by itself (RFC 7693, section 2.9); the domain is its personalisation. This module only
thinks.
"""

import hmac
from collections.abc import Sequence
from hashlib import blake2b

KEY_BYTES = 32  # as long as the tags could ever be strong: BLAKE2b-256 of whatever the operator wrote
KEYS_MAX = 2  # the one in use and the one before or after it
TAG_BYTES = 16  # 2^128 guesses, each of which costs a datagram
DOMAIN_BYTES_MAX = 16  # what BLAKE2b takes as personalisation
FINGERPRINT_BYTES = 4  # tells an operator's two keys apart in a log; too short to be worth a search
_LENGTH_BYTES = 4  # of a part's length in front of it

_FINGERPRINT = b"p2pmirror-print"


class KeyRing:
    """One or two keys of `KEY_BYTES` bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Hold `keys`, of which the first one signs; ValueError unless there are one or two of the right length."""
        self.replace(keys)

    def replace(self, keys: Sequence[bytes]) -> None:
        """Hold these keys from now on; ValueError, and no change, unless they are as `__init__` wants them."""
        if not 1 <= len(keys) <= KEYS_MAX or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a ring has 1 to {KEYS_MAX} keys of {KEY_BYTES} bytes")
        self._keys = tuple(keys)
        self._primed: dict[bytes, list[blake2b]] = {}  # for each domain and key, a hash that has taken the key in

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What may be shown of each key, the signing one first: 8 hexadecimal digits."""
        return tuple(
            blake2b(key=key, person=_FINGERPRINT, digest_size=FINGERPRINT_BYTES).hexdigest() for key in self._keys
        )

    def tag(self, domain: bytes, *parts: bytes) -> bytes:
        """Return the tag of `parts` in `domain` (at most 16 bytes, a constant of the caller's)."""
        return _finish(self._hashes(domain)[0], parts)

    def verifies(self, tag: bytes, domain: bytes, *parts: bytes) -> bool:
        """Return whether `tag` was made of these parts in this domain with one of the keys."""
        return any(hmac.compare_digest(_finish(each, parts), tag) for each in self._hashes(domain))

    def _hashes(self, domain: bytes) -> list[blake2b]:
        primed = self._primed.get(domain)
        if primed is None:
            primed = [blake2b(key=key, person=domain, digest_size=TAG_BYTES) for key in self._keys]
            self._primed[domain] = primed
        return primed

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self.fingerprints)})"


def _finish(primed: blake2b, parts: tuple[bytes, ...]) -> bytes:
    running = primed.copy()
    for part in parts:
        running.update(len(part).to_bytes(_LENGTH_BYTES, "big"))
        running.update(part)
    return running.digest()
