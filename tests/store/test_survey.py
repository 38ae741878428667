"""A survey of all roots: what is broken or absent ends its own branch, and nothing is asked for twice."""

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.survey import Survey
from tests.oci.documents import descriptor, encoded, image, index

NAME = TagName("docker.io", "library/nginx", "1.27")


def root(data: bytes) -> Descriptor:
    return Descriptor(mediatype.OCI_MANIFEST, Digest.of(data), len(data))


def test_a_broken_root_is_named_and_hides_nothing() -> None:
    """A root whose bytes are no manifest is listed with its cause; what other roots lead to is found all the same."""
    whole, broken, absent = encoded(image(b"layer")), b"{broken", b"absent"
    survey = Survey([(root(whole), [NAME]), (root(broken), []), (root(absent), []), (root(whole), [])])
    answers = {Digest.of(whole): whole, Digest.of(broken): broken}
    asked = []
    while reads := survey.next_reads():
        for wanted in reads:
            asked.append(wanted.digest)
            survey.answered(wanted, answers.get(wanted.digest))
    assert len(asked) == len(set(asked)) == 3
    assert set(survey.invalid) == {Digest.of(broken)}
    assert survey.found()[Digest.of(b"layer")].names == {"docker.io/library/nginx"}
    assert survey.referrers == ()


def test_what_was_answered_is_not_asked_again() -> None:
    """A manifest that is a root and is met again later, below an index, is read once and carries both names."""
    whole = encoded(image(b"layer"))
    above = encoded(index(descriptor(mediatype.OCI_MANIFEST, whole)))
    other = TagName("ghcr.io", "a", "1")
    top = Descriptor(mediatype.OCI_INDEX, Digest.of(above), len(above))
    survey = Survey([(top, [NAME]), (root(whole), [other])])
    answers = {Digest.of(whole): whole, Digest.of(above): above}
    asked = []
    while reads := survey.next_reads():
        for wanted in reads:
            asked.append(wanted.digest)
            survey.answered(wanted, answers[wanted.digest])
    assert sorted(asked) == sorted(answers)
    assert survey.found()[Digest.of(b"layer")].names == {"docker.io/library/nginx", "ghcr.io/a"}
