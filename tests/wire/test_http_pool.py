"""Kept connections: the one used last is used first, none when too old, and never more than are allowed."""

from typing import Any

from p2pmirror.wire.address import Address
from p2pmirror.wire.http_pool import Pool

A, B, C = (Address(f"10.0.0.{number}", 80) for number in (1, 2, 3))


def pool(*, idle_s: float = 10.0, per_address_max: int = 2, total_max: int = 3) -> Any:
    """Return a pool, of which only identity matters what it keeps: texts stand for streams here."""
    return Pool(idle_s=idle_s, per_address_max=per_address_max, total_max=total_max)


def test_the_last_used_first() -> None:
    """Connections come back in the reverse of the order in which they were kept, then there is none."""
    kept = pool()
    assert kept.take(A, 0.0) is None
    assert kept.give(A, "one", 0.0) == []
    assert kept.give(A, "two", 1.0) == []
    assert kept.take(B, 1.0) is None
    assert [kept.take(A, 2.0) for _ in range(3)] == ["two", "one", None]
    assert len(kept) == 0


def test_too_old_is_not_used() -> None:
    """At its deadline a connection is not taken any more; looking through the pool returns it to be closed, once."""
    kept = pool()
    kept.give(A, "old", 0.0)
    kept.give(A, "young", 5.0)
    kept.give(B, "old too", 0.0)
    assert kept.take(B, 10.0) is None
    assert kept.expire(10.0) == ["old", "old too"]
    assert kept.expire(10.0) == []
    assert kept.take(A, 14.9) == "young"


def test_too_many_are_closed_oldest_first() -> None:
    """Beyond what an address may have, and beyond what all may have, the one used longest ago goes."""
    kept = pool()
    kept.give(A, "a1", 0.0)
    kept.give(A, "a2", 1.0)
    assert kept.give(A, "a3", 2.0) == ["a1"]
    assert kept.give(B, "b1", 3.0) == []
    assert kept.give(C, "c1", 4.0) == ["a2"]
    assert kept.give(B, "b2", 5.0) == ["a3"], "and with its last connection the address is forgotten"
    assert len(kept) == 3
    assert kept.give(C, "c2", 20.0) == ["b1", "b2", "c1"], "what is too old makes room first"


def test_forgetting() -> None:
    """A host that restarted takes all its connections along; clearing takes everybody's."""
    kept = pool()
    kept.give(A, "a1", 0.0)
    kept.give(A, "a2", 0.0)
    kept.give(B, "b1", 0.0)
    assert kept.forget(A) == ["a1", "a2"]
    assert kept.forget(A) == []
    kept.give(C, "c1", 0.0)
    assert kept.clear() == ["b1", "c1"]
    assert len(kept) == 0
