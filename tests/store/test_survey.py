"""A survey of all roots: what is broken or absent ends its own branch, and nothing is asked for twice."""

from p2pmirror.oci import Descriptor, Digest, TagName, mediatype
from p2pmirror.store.survey import Survey
from tests.oci.documents import encoded, image

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
