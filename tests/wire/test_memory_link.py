"""Links draw from their distributions and from nothing but the given Random."""

from random import Random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.wire.memory_link import TAIL, Link

DRAWS = 20_000


def latenesses(link: Link) -> list[float]:
    random = Random(1)
    return [link.deliveries(0.0, random)[0] - link.latency_s for _ in range(DRAWS)]


def test_uniform() -> None:
    """Uniform jitter lies between 0 and `jitter_s`, its mean in the middle."""
    late = latenesses(Link(latency_s=1.0, jitter_s=0.5))
    assert 0 <= min(late) < 0.01
    assert 0.49 < max(late) <= 0.5
    assert mean(late) == pytest.approx(0.25, rel=0.02)


def test_exponential() -> None:
    """Exponential jitter has `jitter_s` as its mean, most of it below that, and ends at the tail's limit."""
    late = latenesses(Link(latency_s=1.0, jitter_s=0.5, jitter="exponential"))
    assert min(late) >= 0
    assert mean(late) == pytest.approx(0.5, rel=0.03)
    assert sum(one < 0.5 for one in late) / DRAWS == pytest.approx(0.632, abs=0.01)
    assert 3 < max(late) <= TAIL * 0.5
    assert (
        max(Link(jitter_s=0.5, jitter="exponential").deliveries(0.0, random)[0] for random in [_Highest()])
        == 0.5 * TAIL
    )


class _Highest(Random):
    def random(self) -> float:
        return 1 - 2**-53


def test_reordering() -> None:
    """The stated share of datagrams is late by the stated extra amount."""
    late = latenesses(Link(latency_s=1.0, reordering=0.2, reordering_s=3.0))
    assert {round(one, 9) for one in late} == {0.0, 3.0}
    assert mean(late) == pytest.approx(0.6, rel=0.05)


def test_loss_and_duplication() -> None:
    """The stated shares are lost and doubled."""
    random = Random(1)
    link = Link(loss=0.1, duplication=0.3)
    copies = [len(link.deliveries(0.0, random)) for _ in range(DRAWS)]
    assert copies.count(0) / DRAWS == pytest.approx(0.1, rel=0.1)
    assert copies.count(2) / DRAWS == pytest.approx(0.27, rel=0.1)


def test_streams() -> None:
    """Streams know the latency alone, and repeats where they are asked for."""
    random = Random(1)
    assert {Link(latency_s=1.0, jitter_s=9.0, loss=0.5).stream_delay_s(random) for _ in range(99)} == {1.0}
    delays = [Link(latency_s=1.0, loss=0.1, repeat_s=0.2).stream_delay_s(random) for _ in range(DRAWS)]
    assert set(delays) == {1.0, 1.2}
    assert delays.count(1.2) / DRAWS == pytest.approx(0.1, rel=0.1)


times = st.floats(0, 10)
chances = st.floats(0, 1)
links = st.builds(
    Link,
    latency_s=times,
    jitter_s=times,
    jitter=st.sampled_from(["uniform", "exponential"]),
    loss=chances,
    duplication=chances,
    reordering=chances,
    reordering_s=times,
)


@given(st.integers(), links)
def test_within_bounds(seed: int, link: Link) -> None:
    """No datagram arrives before its latency or after the latest time, more than twice, or otherwise next time."""
    arrivals = link.deliveries(5.0, Random(seed))
    assert len(arrivals) <= 2
    tail = TAIL if link.jitter == "exponential" else 1
    latest = 5.0 + link.latency_s + link.jitter_s * tail + link.reordering_s
    assert all(5.0 + link.latency_s <= at <= latest + 1e-9 for at in arrivals)
    assert arrivals == link.deliveries(5.0, Random(seed))


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"duplication": -0.1}, {"latency_s": -1}, {"jitter_s": float("inf")}])
def test_wrong_links(wrong: dict[str, float]) -> None:
    """A link that cannot be is refused when it is made."""
    with pytest.raises(ValueError, match=r"from 0 to 1|before it was sent"):
        Link(**wrong)
