"""Names of Kubernetes are read as people write them, and what is none is refused."""

import pytest

from p2pmirror.kubernetes.names import read_name, read_service_name


@pytest.mark.parametrize(
    "text", ["", "a", "a/", "/b", "a/b/c", "A/b", "a/B", "a.b/c", "a/b_", "a/.b", "a/b..c", "a/b\n"]
)
def test_names_that_are_none(text: str) -> None:
    """What cannot be the name of a DaemonSet or a service in a namespace is refused, in one line."""
    for read in (read_name, read_service_name):
        with pytest.raises(ValueError, match="is not as NAMESPACE/") as caught:
            read(text)
        assert str(caught.value).isprintable()


def test_names() -> None:
    """A DaemonSet may have dots and 253 characters, a service is one label of 63."""
    assert read_name("a/b.c-d") == ("a", "b.c-d")
    assert read_name("a/" + "b" * 253)[1] == "b" * 253
    assert read_service_name("kube-system/p2pmirror") == ("kube-system", "p2pmirror")
    for read, name in ((read_name, "b" * 254), (read_service_name, "b" * 64), (read_service_name, "b.c")):
        with pytest.raises(ValueError, match="is not as NAMESPACE/"):
            read(f"a/{name}")
