"""What is noted of a blob that arrives: read back as it was written; whatever else stands there costs only itself."""

from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.store.cache.progress import BESIDE, Progress, halves, piece_note, prefix_note, spared
from p2pmirror.store.files import Stat

SIZE, PIECE = 1050, 100
PREFIX, HASH, OTHER = "a" * 64, "b" * 64, "c" * 64
HEADER = Progress(SIZE, PIECE).header


def stat(seconds: float) -> Stat:
    return Stat(10, int(seconds * 1e9), 1)


def test_notes_are_read_as_they_were_written() -> None:
    """Prefixes, the last one at the blob's end, and pieces, in any order; of two lines for one the later counts."""
    lines = [piece_note(300, OTHER), prefix_note(200, PREFIX), piece_note(300, HASH), prefix_note(SIZE, PREFIX)]
    progress = Progress.read(HEADER + b"".join(lines))
    assert progress == Progress(SIZE, PIECE, {200: PREFIX, SIZE: PREFIX}, {300: HASH})
    assert Progress.read(Progress(SIZE, PIECE).header + prefix_note(100, "d" * 128)) is not None


def test_there_are_no_notes_without_a_first_line_or_anything_after_it() -> None:
    """Nothing, another program's file, a torn first line, or a first line alone: there is nothing to go on with."""
    for data in (
        None,
        b"",
        b"\n",
        b"hello\n" + prefix_note(100, PREFIX),
        HEADER[:-1],
        HEADER,
        HEADER + b"prefix 100 aa\n",
    ):
        assert Progress.read(data) is None
    for header in (b"p2pmirror 1 0 100\n", b"p2pmirror 1 100 0\n", b"p2pmirror 2 1050 100\n", b"p2pmirror 1 -5 1\n"):
        assert Progress.read(header + prefix_note(100, PREFIX)) is None


def test_what_cannot_be_is_left_out() -> None:
    """Ends beyond the blob or within a piece, pieces that begin nowhere, other hashes, a line without an end."""
    wrong = [
        prefix_note(0, PREFIX),
        prefix_note(150, PREFIX),
        prefix_note(1100, PREFIX),
        piece_note(SIZE, HASH),
        piece_note(1100, HASH),
        piece_note(250, HASH),
        piece_note(200, "d" * 128),
        b"prefix 100 " + b"A" * 64 + b"\n",
        b"\0" * 30 + prefix_note(200, PREFIX),
        b"\xff\xfe\n\n",
    ]
    torn = prefix_note(900, PREFIX)[:-1]
    progress = Progress.read(HEADER + b"".join(wrong) + piece_note(0, HASH) + torn)
    assert progress == Progress(SIZE, PIECE, {}, {0: HASH})


def test_how_far_it_reaches() -> None:
    """The longest prefix, and the pieces that follow it without a hole, to the end of the last, shorter one."""
    assert Progress(SIZE, PIECE, {}, {100: HASH}).reach == 0
    assert Progress(SIZE, PIECE, {200: PREFIX, 100: PREFIX}, {400: HASH}).reach == 200
    assert Progress(SIZE, PIECE, {200: PREFIX}, {200: HASH, 300: HASH, 500: HASH}).reach == 400
    assert Progress(SIZE, PIECE, {900: PREFIX}, {900: HASH, 1000: HASH}).reach == SIZE


@given(st.binary(), st.lists(st.integers(0, 400)), st.binary(max_size=30))
def test_any_garbage(garbage: bytes, cuts: list[int], middle: bytes) -> None:
    """Garbage, whole or in the middle of notes, raises nothing and notes nothing that cannot be of such a blob."""
    whole = HEADER + prefix_note(100, PREFIX) + middle + piece_note(200, HASH) + prefix_note(400, PREFIX)
    for data in (garbage, HEADER + garbage, whole, *(whole[:cut] + garbage + whole[cut:] for cut in cuts)):
        progress = Progress.read(data)
        if progress is not None:
            assert all(0 < end <= progress.size and progress.is_border(end) for end in progress.prefixes)
            assert all(0 <= at < progress.size and at % progress.piece_bytes == 0 for at in progress.pieces)
            assert 0 <= progress.reach <= progress.size


@given(st.integers(0, 300))
def test_cut_anywhere_it_is_what_was_written_before(cut: int) -> None:
    """A file that a crash has cut says what its whole lines say."""
    lines = [prefix_note(100, PREFIX), piece_note(200, HASH), prefix_note(400, PREFIX)]
    whole, kept = HEADER + b"".join(lines), list[bytes]()
    for line in lines:
        if len(HEADER) + sum(map(len, kept)) + len(line) <= min(cut, len(whole)):
            kept.append(line)
        else:
            break
    progress = Progress.read(whole[:cut])
    assert progress == (Progress.read(HEADER + b"".join(kept)) if kept else None)


def test_which_files_are_halves() -> None:
    """Those that have notes beside them, of one digest or of all, the one that was written last first."""
    names = {f".incoming-aa-{n}": stat(n) for n in range(3)} | {f".incoming-aa-{n}{BESIDE}": stat(9) for n in (0, 2)}
    names |= {".incoming-aaa-0": stat(5), f".incoming-aaa-0{BESIDE}": stat(1), f".incoming-b-0{BESIDE}": stat(1)}
    names |= {"lock": stat(1), f"lock{BESIDE}": stat(1)}
    assert list(halves(names, "aa")) == [".incoming-aa-2", ".incoming-aa-0"]
    assert list(halves(names)) == [".incoming-aaa-0", ".incoming-aa-2", ".incoming-aa-0"]
    assert list(halves(names, "b")) == []


def test_which_are_spared() -> None:
    """One of each digest, the latest, with its notes, while it is young; a time that is far ahead is no youth."""
    names = {f".incoming-{name}": stat(at) for name, at in [("a-0", 990), ("a-1", 995), ("b-0", 899), ("c-0", 1101)]}
    names |= {name + BESIDE: stat(1) for name in names}
    assert spared(names, 1000, 100) == {".incoming-a-1", f".incoming-a-1{BESIDE}"}
    assert len(spared(names, 1000, 101)) == 6
