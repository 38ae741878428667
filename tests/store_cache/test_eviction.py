"""What goes and what stays, as thinking alone."""

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Digest
from p2pmirror.store.cache.eviction import HIGH_SHARE, LOW_SHARE, Rules, expired, surplus, victims

NOW = 10_000.0
GONE, HERE = "gone.example/a", "here.example/a"
RULES = Rules(
    ttl_of=lambda names: 1000.0 if GONE not in names else 100.0,
    is_reachable=lambda registry: registry == "here.example",
    is_pinned=lambda kept: kept.size == 13,
    age_s_min=60.0,
)


@dataclass(frozen=True)
class Blob:
    digest: Digest
    size: int = 10
    names: frozenset[str] = frozenset({HERE})
    kept_s: float = 0.0
    used_s: float = 0.0
    is_open: bool = False


def blob(number: int, **more: object) -> Blob:
    return replace(Blob(Digest.of(str(number).encode())), **more)  # type: ignore[arg-type]


blobs = st.lists(
    st.builds(
        Blob,
        st.integers().map(lambda number: Digest.of(str(number).encode())),
        st.integers(0, 20),
        st.frozensets(st.sampled_from([GONE, HERE])),
        st.floats(0, NOW + 100),
        st.floats(0, NOW + 100),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda each: each.digest,
)


def may_go(each: Blob) -> bool:
    return not each.is_open and each.size != 13 and NOW - each.kept_s >= 60


def test_expiry() -> None:
    """What was not used for its time goes; not what is open, pinned, young, or cannot be fetched again."""
    kept = [
        blob(1),
        blob(2, used_s=NOW - 1000),
        blob(3, is_open=True),
        blob(4, size=13),
        blob(5, names=frozenset({HERE, GONE})),
        blob(6, names=frozenset()),
        blob(7, kept_s=NOW - 59, used_s=0.0),
        blob(8, size=0),
    ]
    assert expired(kept, RULES, NOW) == [kept[0].digest, kept[5].digest, kept[7].digest]


def test_a_registry_that_is_back_lets_its_images_expire() -> None:
    """Nothing expires while its registry cannot be asked; once it can, what is overdue goes, by its own time."""
    kept = [blob(1, names=frozenset({GONE}), used_s=NOW - 101), blob(2, names=frozenset({GONE}), used_s=NOW - 99)]
    assert expired(kept, RULES, NOW) == []
    assert expired(kept, replace(RULES, is_reachable=lambda registry: True), NOW) == [kept[0].digest]


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 1000))
def test_surplus(held: int, coming: int, most: int) -> None:
    """Below the high mark nothing goes; above it enough must go to fit, and down to the low mark should."""
    must, should = surplus(held, coming, most)
    total = held + coming
    if total <= HIGH_SHARE * most:
        assert (must, should) == (0, 0)
    else:
        assert total - must <= most
        assert total - should <= LOW_SHARE * most
        assert should >= must >= 0


@given(blobs, st.integers(0, 60), st.integers(0, 60))
def test_victims(kept: list[Blob], must: int, more: int) -> None:
    """The longest unused go, no more than needed; never what may not; and nothing where it would be in vain."""
    should = must + more
    chosen = victims(kept, RULES, NOW, must=must, should=should)
    free = [each for each in kept if may_go(each) and each.size]
    if chosen is None:
        assert sum(each.size for each in free) < must
        return
    gone = {each.digest: each for each in kept if each.digest in chosen}
    assert len(gone) == len(chosen)
    assert all(may_go(each) for each in gone.values())
    stay = [each for each in free if each.digest not in gone]
    assert not gone or not stay or max(x.used_s for x in gone.values()) <= min(x.used_s for x in stay)
    freed = sum(each.size for each in gone.values())
    assert freed >= must
    assert freed >= should or not stay
    assert not chosen or freed - gone[chosen[-1]].size < should


@given(blobs, st.randoms())
def test_order_of_the_facts_does_not_matter(kept: list[Blob], chance: object) -> None:
    """The same facts in another order give the same victims."""
    shuffled = list(kept)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert victims(kept, RULES, NOW, must=0, should=30) == victims(shuffled, RULES, NOW, must=0, should=30)
    assert set(expired(kept, RULES, NOW)) == set(expired(shuffled, RULES, NOW))
