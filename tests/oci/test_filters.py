"""Patterns over names: the last that matches decides, and what is no pattern is refused in words."""

import pytest

from p2pmirror.oci.filters import PATTERN_CHARS_MAX, Filters


@pytest.mark.parametrize(
    ("patterns", "allowed", "kept_out"),
    [
        ([], ["docker.io/a"], []),
        (["!ghcr.io/.*"], ["docker.io/a"], ["ghcr.io/a", "ghcr.io/a:v1"]),
        (["docker.io/.*"], ["docker.io/a"], ["ghcr.io/a"]),
        (["docker.io/.*", "!docker.io/secret/.*"], ["docker.io/a"], ["docker.io/secret/a", "ghcr.io/a"]),
        (["!docker.io/.*", "docker.io/a(:.*)?"], ["docker.io/a", "docker.io/a:v1"], ["docker.io/ab"]),
    ],
)
def test_the_last_match_decides(patterns: list[str], allowed: list[str], kept_out: list[str]) -> None:
    """What no pattern matches is let through only when all of them exclude."""
    filters = Filters(patterns)
    assert filters.empty == (not patterns)
    assert [name for name in allowed + kept_out if filters.allows(name)] == allowed


@pytest.mark.parametrize("pattern", ["", "!", "(", "[[a-z]", "a{2,1}", "a" * (PATTERN_CHARS_MAX + 1)])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """It is named in one line; a set that a later Python reads differently is no pattern either."""
    with pytest.raises(ValueError, match="is not a") as caught:
        Filters([pattern])
    assert str(caught.value).isprintable()
