"""Tables, sizes and durations, and how the demo shows itself."""

import io

from hypothesis import example, given
from hypothesis import strategies as st

from p2pmirror.cli.demo import describe
from p2pmirror.cli.progress import Progress, bar, brief
from p2pmirror.cli.text import counted, duration, share, short_digest, size, table
from p2pmirror.demo import NodeView, Report
from p2pmirror.demo.report import ColdReport, NodeReport


def test_sizes_have_three_digits():
    """Each size is shown in the largest unit that leaves a digit before the point."""
    assert [size(n) for n in (0, 999, 1000, 1 << 20, 1280 << 20, 64 << 40)] == [
        "0 B",
        "999 B",
        "0.98 KiB",
        "1.00 MiB",
        "1.25 GiB",
        "64.0 TiB",
    ]


@given(st.integers(0, 1 << 59))
@example(10_235)  # 9.995 KiB
@example(102_349)  # 99.95 KiB
@example(1_023_489)  # 999.5 KiB
def test_no_size_is_wide(count):
    """No size up to half an exbibyte needs more than eight characters, or more than three digits."""
    assert len(size(count)) <= 8
    assert sum(each.isdigit() for each in size(count)) <= 3


def test_durations_are_said_as_people_say_them():
    """Milliseconds below a second, then seconds, minutes, hours."""
    assert [duration(s) for s in (0.0021, 0.9999, 3.25, 180, 9000)] == ["2.1 ms", "1 s", "3.25 s", "3 min", "2.5 h"]


def test_shares_are_not_rounded_up_to_all():
    """Only the whole is 100%, only nothing is 0%, and no share loses a percent to floating point."""
    assert [share(part) for part in (0, 0.004, 0.29, 0.5, 0.999, 1)] == [
        "0%",
        "less than 1%",
        "29%",
        "50%",
        "99%",
        "100%",
    ]


def test_things_are_counted_as_people_count():
    """One thing is singular, none is `no`."""
    assert [counted(count, "tag") for count in (0, 1, 2)] == ["no tags", "1 tag", "2 tags"]


def test_tables_are_aligned():
    """Columns start where their head does, numbers end where theirs does, and no line has spaces at its end."""
    lines = table(("NAME", "COUNT", "WHERE"), [("a", 5, ""), ("longer", 12345, "x\ty")])
    assert lines == ["NAME    COUNT  WHERE", "a           5", "longer  12345  x?y"]


def test_a_table_without_rows_is_its_head():
    """Nothing to show is no error."""
    assert table(("A", "B"), []) == ["A  B"]


def test_short_digests_stay_recognizable():
    """The algorithm and twelve digits are kept; what is no digest is kept whole."""
    assert short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"
    assert short_digest("what") == "what"


VIEWS = [
    NodeView(1, "127.0.0.2", "killed", 0, 100),
    NodeView(2, "127.0.0.3", "pulling", 50, 100, 2.0),
    NodeView(3, "127.0.0.4", "pulled", 100, 100, 4.0),
]


def test_progress_goes_line_by_line_into_a_log():
    """Where no terminal is, nothing is drawn over, and a line comes only while somebody pulls."""
    out = io.StringIO()
    progress = Progress(out)
    progress.stage("beginning")
    progress.nodes(VIEWS)
    progress.nodes(VIEWS[:1])
    assert progress.every_s == 1.0
    assert out.getvalue().count("\n") == 2
    assert "\x1b" not in out.getvalue()
    assert "node 2 pulling 50%" in out.getvalue()


def test_progress_draws_its_block_again_on_a_terminal():
    """The block is drawn over by the next block and by the next stage, which itself stays."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    progress = Progress(out)
    progress.stage("beginning")
    for _ in range(2):
        progress.nodes(VIEWS)
    progress.stage("going on")
    progress.nodes(VIEWS)
    assert out.getvalue().count("\x1b[3F\x1b[J") == 2
    assert "beginning" in out.getvalue().partition("\x1b")[0]


def test_a_node_that_does_not_pull_has_no_bar():
    """A bar says how far a pull is, and nothing else."""
    assert "#" not in bar(VIEWS[0])
    assert f"[{'#' * 10}{'.' * 10}]  50%" in bar(VIEWS[1])
    assert brief(VIEWS[0]) == "node 1 killed"


def test_the_demo_ends_with_who_got_what_from_whom():
    """A row a node, a column for each node that sent something; the last line's object adds it up."""
    nodes = [NodeReport(2, "127.0.0.3", 9.0, {1: 300}, 0), NodeReport(3, "127.0.0.4", 20.0, {1: 100, 2: 200}, 3)]
    cold = ColdReport(
        50,
        4,
        upstream_bytes=55,
        upstream_requests={"tag": 1, "manifest": 2, "blob": 10},
        manifests_fetched=2,
        manifests_max=10,
    )
    report = Report(image_bytes=300, nodes=nodes, cold=cold, seconds=31.04, kept=None)
    lines = describe(report)
    assert lines[0] == "NODE  ADDRESS    TIME    FROM NODE 1  FROM NODE 2  RESUMED"
    assert lines[2] == "   3  127.0.0.4  20.0 s  100 B        200 B              3"
    copies = "4 pulls of an image of 50 B took 1.10 copies from its registry"
    assert f"{copies}, in 13 requests (1 for tags, 2 for manifests, 10 for blobs), and 2 of the 10" in lines[-1]
    assert report.summary() == {
        "nodes": 5,
        "image_bytes": 300,
        "pulled_nodes": 2,
        "from_peers_bytes": 600,
        "resumed": 3,
        "upstream_bytes": 55,
        "upstream_copies": 1.1,
        "upstream_requests": 13,
        "upstream_requests_by_kind": {"tag": 1, "manifest": 2, "blob": 10},
        "verified": True,
        "seconds": 31.0,
    }
