import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.oci import Descriptor, Digest, Invalid, Role, Visit, Walk, mediatype, walk
from tests.oci.documents import descriptor, encoded, image, index, named

AMD = encoded(image(b"base", b"amd", config_content=b"amd config"))
ARM = encoded(image(b"base", b"arm", config_content=b"arm config"))
SUBJECT = encoded(image(b"old"))
NESTED = encoded(index(descriptor(mediatype.OCI_MANIFEST, ARM)))
TOP = encoded(
    index(
        descriptor(mediatype.OCI_MANIFEST, AMD),
        descriptor(mediatype.OCI_INDEX, NESTED),
        subject=descriptor(mediatype.OCI_MANIFEST, SUBJECT),
    )
)
ROOT = named(TOP, mediatype.OCI_INDEX)


def store(*contents):
    held = {Digest.of(content): content for content in contents}
    return lambda wanted: held.get(wanted.digest)


def digests_of(*contents):
    return {Digest.of(content) for content in contents}


def test_everything_below_an_index_is_found():
    """Index, nested index, manifests, configs, layers and the subject are found, each once, parents before children."""
    visits = list(walk(ROOT, store(TOP, NESTED, AMD, ARM, SUBJECT)))
    order = [visit.descriptor.digest for visit in visits]
    assert len(order) == len(set(order)) == 12
    assert set(order) == digests_of(
        *(TOP, NESTED, AMD, ARM, SUBJECT),
        *(b"amd config", b"arm config", b"{}", b"base", b"amd", b"arm", b"old"),
    )
    for visit in visits[1:]:
        assert order.index(visit.parent) < order.index(visit.descriptor.digest)
    roles = {visit.descriptor.digest: (visit.role, visit.depth) for visit in visits}
    assert visits[0] == Visit(ROOT, Role.ROOT, None, 0)
    assert roles[Digest.of(NESTED)] == (Role.MANIFEST, 1)
    assert roles[Digest.of(SUBJECT)] == (Role.SUBJECT, 1)
    assert roles[Digest.of(b"amd config")] == (Role.CONFIG, 2)
    assert roles[Digest.of(b"base")] == (Role.LAYER, 2)
    assert roles[Digest.of(b"arm")] == (Role.LAYER, 3)


def test_subjects_can_be_left_out():
    """What an artifact is about is no part of the artifact for whoever pulls it."""
    found = {visit.descriptor.digest for visit in walk(ROOT, store(TOP, NESTED, AMD, ARM, SUBJECT), subjects=False)}
    assert not found & digests_of(SUBJECT, b"old")
    assert found > digests_of(AMD, ARM)


def test_absent_and_broken_documents_end_their_own_branch():
    """A missing manifest and one with other bytes are recorded as such, and all else is found."""
    held = {Digest.of(TOP): TOP, Digest.of(NESTED): NESTED, Digest.of(AMD): AMD + b" "}
    state = Walk(ROOT)
    while reads := state.next_reads():
        for wanted in reads:
            state.answered(wanted, held.get(wanted.digest))
    assert state.is_done
    assert set(state.missing) == digests_of(ARM, SUBJECT)
    assert set(state.invalid) == digests_of(AMD)
    assert set(state.found) == digests_of(TOP, NESTED, AMD, ARM, SUBJECT)
    assert not state.is_truncated


def test_a_document_that_is_no_manifest_is_invalid():
    """The digest is right but the bytes are none of what the descriptor says: recorded, not raised."""
    state = Walk(named(b"{}", mediatype.OCI_MANIFEST))
    (wanted,) = state.next_reads()
    assert state.answered(wanted, b"{}") is None
    assert isinstance(state.invalid[wanted.digest], Invalid)


def test_content_without_children_is_not_read():
    """A root that is a plain blob is found and nothing is asked for."""
    state = Walk(named(b"blob", mediatype.OCTET_STREAM))
    assert state.is_done
    assert state.next_reads() == []
    assert set(state.found) == digests_of(b"blob")


def test_each_document_is_asked_for_and_taken_in_once():
    """The walk hands out each read once; answers that are not owed change nothing."""
    state = Walk(ROOT)
    stranger = named(AMD, mediatype.OCI_MANIFEST)
    assert state.answered(stranger, AMD) is None
    assert state.next_reads() == [ROOT]
    assert state.next_reads() == []
    assert not state.is_done
    assert state.answered(ROOT, TOP) is not None
    assert state.answered(ROOT, None) is None
    assert not state.missing
    assert len(state.found) == 4
    assert len(state.next_reads()) == 3


def test_a_manifest_disguised_as_a_layer_is_read_all_the_same():
    """A digest that is first called a layer and later a manifest is found once, and its children are found."""
    disguise = encoded(image(media_type=mediatype.OCI_MANIFEST, layers=[descriptor(mediatype.OCI_LAYER, AMD)]))
    nested = encoded(index(descriptor(mediatype.OCI_MANIFEST, AMD)))
    top = encoded(index(descriptor(mediatype.OCI_MANIFEST, disguise), descriptor(mediatype.OCI_INDEX, nested)))
    order = [
        visit.descriptor.digest for visit in walk(named(top, mediatype.OCI_INDEX), store(top, disguise, nested, AMD))
    ]
    assert order.count(Digest.of(AMD)) == 1
    assert Digest.of(b"amd") in order


def test_depth_is_bounded():
    """A chain of indexes is followed to the limit, and the walk says that it left something out."""
    chain = [encoded(image(b"end"))]
    for _ in range(12):
        chain.append(encoded(index(descriptor(mediatype.OCI_INDEX, chain[-1]))))
    root = named(chain[-1], mediatype.OCI_INDEX)
    assert max(visit.depth for visit in walk(root, store(*chain))) == 8
    assert [visit.depth for visit in walk(root, store(*chain), depth_max=2)] == [0, 1, 2]


def test_number_is_bounded():
    """No more descriptors are found than allowed, and the walk says so."""
    wide = encoded(image(*[bytes([number]) for number in range(20)]))
    root = named(wide, mediatype.OCI_MANIFEST)
    assert len(list(walk(root, store(wide), nodes_max=5))) == 5
    state = Walk(root, nodes_max=5)
    assert state.next_reads() == [root]
    assert not state.is_truncated
    state.answered(root, wide)
    assert state.is_truncated


def test_a_document_under_two_parents_is_read_once():
    """What several documents name is found and read once (a true cycle would need a digest that contains itself)."""
    shared = encoded(index(descriptor(mediatype.OCI_INDEX, NESTED), descriptor(mediatype.OCI_INDEX, NESTED)))
    reads = []

    def read(wanted):
        reads.append(wanted.digest)
        return store(shared, NESTED)(wanted)

    found = [visit.descriptor.digest for visit in walk(named(shared, mediatype.OCI_INDEX), read)]
    assert found == [Digest.of(shared), Digest.of(NESTED), Digest.of(ARM)]
    assert reads == found


def test_a_walk_reads_as_late_as_it_can():
    """Who stops after the root has caused no read; what `read` raises comes through."""

    def read(wanted):
        raise OSError("unreadable")

    visits = walk(ROOT, read)
    assert next(visits).descriptor == ROOT
    with pytest.raises(OSError, match="unreadable"):
        next(visits)


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=12), st.sets(st.integers(0, 12)))
def test_any_graph_is_walked_once(edges, absent):
    """Whatever names whatever, and whatever is missing: exactly the reachable is found, in any order of answers."""
    made, held, reachable_from = [], {}, []
    for number, targets in enumerate(edges):
        below = [target % number for target in targets] if number else []
        blobs = [descriptor(mediatype.OCI_LAYER, f"blob {target}".encode()) for target in targets]
        data = encoded(index(*[descriptor(mediatype.OCI_INDEX, made[target]) for target in below], *blobs))
        made.append(data)
        reach = {Digest.of(data)}
        if number not in absent:
            held[Digest.of(data)] = data
            reach |= {Digest.parse(blob["digest"]) for blob in blobs}.union(
                *(reachable_from[target] for target in below)
            )
        reachable_from.append(reach)
    if len(set(made)) != len(made):  # two equal documents: one may not be absent alone
        return
    root = named(made[-1], mediatype.OCI_INDEX)
    order = [visit.descriptor.digest for visit in walk(root, lambda wanted: held.get(wanted.digest), depth_max=100)]
    assert len(order) == len(set(order))
    assert set(order) == reachable_from[-1]

    state = Walk(root, depth_max=100)
    open_reads: list[Descriptor] = []
    while not state.is_done:
        open_reads += state.next_reads()
        wanted = open_reads.pop()
        state.answered(wanted, held.get(wanted.digest))
    assert set(state.found) == reachable_from[-1]
    assert set(state.missing) == {
        digest for digest in map(Digest.of, made) if digest in state.found and digest not in held
    }
