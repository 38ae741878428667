"""What a cache is told at its start."""

import time
from collections.abc import Callable
from dataclasses import dataclass

DEFAULT_BYTES_MAX = 20 * 1024**3
DEFAULT_TTL_S = 168 * 3600.0


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """How much to keep, for how long, and how often to look at the directory."""

    bytes_max: int = DEFAULT_BYTES_MAX
    ttl_s: float = DEFAULT_TTL_S  # since it was used last; 0: without end
    free_bytes_min: int = 1024**3  # 1 GiB: the node's other programs write to this disk too
    age_s_min: float = 120.0  # the kubelet's own minimum: a pull must not evict what it has just fetched
    poll_s: float = 2.0  # one stat of six directories: what a command did shows in seconds
    walk_s: float = 300.0  # a stat of each blob, some 10 us: 10,000 blobs cost 0.03 % of a core
    walk_s_min: float = 5.0  # between two walks: a pull of many layers changes the directory all the time
    sweep_s: float = 60.0  # between looks at what has expired; last uses are put on the disk as often
    half_s: float = 600.0  # a blob that is half there, after its last byte: longer than any restart, and than a retry
    orphan_s: float = 3600.0  # a record whose blob has not come: longer than any fsync takes


@dataclass(frozen=True, slots=True)
class CacheHooks:
    """What a cache asks of others.

    `ttl_of` replaces `ttl_s` for content of these `registry/repository` names; `is_reachable` says whether a registry
    can be asked again for what is removed; `wall_s` is the time of day, seconds since 1970.
    """

    ttl_of: Callable[[frozenset[str]], float] | None = None
    is_reachable: Callable[[str], bool] = lambda registry: True  # noqa: ARG005
    wall_s: Callable[[], float] = time.time
