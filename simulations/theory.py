"""How many hops a lookup takes in theory: over ideal tables, in a cluster that stands still.

Laws: an ideal table has, of each bucket, contacts drawn evenly from all nodes of the cluster that belong there; nothing
of the routers' own code is in it but the three numbers that describe them; a cluster draws a table when it is first
looked into, so that ten thousand nodes cost what the ways of the lookups cost.

A hop is a question on the way to the first node that has the record: 0 when the asker has it, 1 when one of its
contacts has, and so on. Kademlia (Maymounkov, Mazieres, 2002), sections 2.2 to 2.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import nsmallest
from random import Random

ID_BITS = 160
FIRST_STEP_CONTACTS = 20  # contacts that a lookup begins with
SILENT_ROUNDS = 8  # a silent node keeps its place for so many round trips: 15 ms, of some 2 ms each

REFERENCE_K = 20  # contacts of a bucket, and holders of a record, in the table below
REFERENCE_HOPS = {50: 0.59, 100: 0.81, 500: 1.06, 1000: 1.26, 5000: 1.68, 10_000: 1.86}  # nodes: hops, published means

Sizes = Callable[[Sequence[int]], list[int]]


def paper_sizes(k: int) -> Sizes:
    """Return the paper's table: `k` contacts of each bucket at most."""
    return lambda counts: [min(k, count) for count in counts]


def filled_sizes(places: int) -> Sizes:
    """Return the table that is built: `places` contacts in all, of the fullest buckets equally many."""

    def sizes(counts: Sequence[int]) -> list[int]:
        left = places
        taken = [0] * len(counts)
        for rank, index in enumerate(sorted(range(len(counts)), key=lambda each: counts[each])):
            taken[index] = min(counts[index], left // (len(counts) - rank))
            left -= taken[index]
        return taken

    return sizes


class Cluster:
    """Nodes with ideal tables of these `sizes`, drawn by `random`; ids and keys are whole numbers of 160 bits."""

    def __init__(self, ids: Iterable[int], sizes: Sizes, random: Random) -> None:
        """Know who is there."""
        self.ids = sorted(ids)
        self._sizes = sizes
        self._random = random
        self._tables: dict[int, list[int]] = {}

    def holders(self, key: int, count: int) -> list[int]:
        """Return the `count` nodes closest to a key, nearest first."""
        low, high = 0, len(self.ids)
        for bit in range(ID_BITS - 1, -1, -1):  # into the half where the key is, while it has enough
            begin, end = self._half(low, high, key, bit)
            if end - begin < count:
                break
            low, high = begin, end
        return nsmallest(count, self.ids[low:high], key=key.__xor__)

    def table(self, owner: int) -> list[int]:
        """Return a node's contacts."""
        table = self._tables.get(owner)
        if table is None:
            buckets = self._buckets(owner)
            taken = self._sizes([end - begin for begin, end in buckets])
            table = self._tables[owner] = []
            for (begin, end), size in zip(buckets, taken, strict=True):
                table += self._random.sample(self.ids[begin:end], size)
        return table

    def turned_away(self, owner: int) -> list[int]:
        """Return one node of each bucket that has more nodes than the table has places for."""
        contacts = set(self.table(owner))
        outside = (
            next((each for each in self.ids[a:b] if each not in contacts), None) for a, b in self._buckets(owner)
        )
        return [each for each in outside if each is not None]

    def _buckets(self, owner: int) -> list[tuple[int, int]]:
        """Return where in the sorted ids each bucket of a node begins and ends, the farthest bucket first."""
        buckets = []
        low, high = 0, len(self.ids)
        for bit in range(ID_BITS - 1, -1, -1):
            if high - low <= 1:
                break
            begin, end = self._half(low, high, owner, bit)
            buckets.append((low, begin) if end == high else (end, high))
            low, high = begin, end
        return [(begin, end) for begin, end in buckets if begin < end]

    def _half(self, low: int, high: int, wanted: int, bit: int) -> tuple[int, int]:
        """Return the part of [low, high), whose ids agree above `bit`, in which they have `wanted`'s bit."""
        border = (wanted >> (bit + 1) << (bit + 1)) | (1 << bit)
        middle = bisect_left(self.ids, border, low, high)
        return (middle, high) if wanted >> bit & 1 else (low, middle)


def greedy_hops(cluster: Cluster, asker: int, key: int, holders: Collection[int]) -> int:
    """Return the hops of one question at a time, each to the contact of the last one asked that is closest to `key`.

    ValueError when nobody closer is known short of a holder, which does not happen with ideal tables.
    """
    hops, at = 0, asker
    while at not in holders:
        closest = min(cluster.table(at), key=key.__xor__)
        if closest ^ key >= at ^ key:
            raise ValueError("a table without its owner's neighbours")
        hops, at = hops + 1, closest
    return hops


def window_hops(
    cluster: Cluster,
    asker: int,
    key: int,
    holders: Collection[int],
    *,
    alpha: int,
    answer: int,
    random: Random,
    dead: Collection[int] = (),
) -> int | None:
    """Return the hops of `alpha` questions at a time to the closest known; each is answered with `answer` contacts.

    All round trips are equal, `random` says who of one round is heard first; `dead` nodes never answer, which nobody
    knows before. None when no living holder is found.
    """
    if asker in holders:
        return 0
    depth = dict.fromkeys(nsmallest(FIRST_STEP_CONTACTS, cluster.table(asker), key=key.__xor__), 1)
    asked: set[int] = {asker}
    busy: list[int] = []  # for each question without an answer, after how many rounds its place is free
    while True:
        busy = [rounds - 1 for rounds in busy if rounds > 1]
        new = nsmallest(alpha - len(busy), (each for each in depth if each not in asked), key=key.__xor__)
        if not new and not busy:
            return None
        asked.update(new)
        answered = [each for each in new if each not in dead]
        busy += [SILENT_ROUNDS] * (len(new) - len(answered))
        found = [each for each in answered if each in holders]
        if found:
            return depth[random.choice(found)]
        for each in answered:
            for closer in nsmallest(answer, cluster.table(each), key=key.__xor__):
                depth.setdefault(closer, depth[each] + 1)
