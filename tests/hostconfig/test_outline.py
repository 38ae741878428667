"""Cutting TOML into tables and statements, and putting marked text into it."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.outline import Broken, Part, is_toml, read, statements, tables

ODD = '''\
title = """
[not.a.table]
# no comment
"""
list = [
  1, [2,
  3], # ]
[4]]
'x y'.z = 1

[a] # first
 b = \'\'\'
[no]\'\'\'
[[many."d.e"]]
[a."]".c]
k = { x = "[y]" }
'''


def test_tables_are_found_where_they_are():
    """Brackets within texts, arrays, comments and keys begin no table; headers with odd keys do."""
    parts = tables(ODD)
    assert [(part.key, part.many) for part in parts] == [
        ((), False),
        (("a",), False),
        (("many", "d.e"), True),
        (("a", "]", "c"), False),
    ]
    assert "".join(ODD[part.start : part.end] for part in parts) == ODD


def test_statements_take_the_lines_that_they_take():
    """A statement is all its lines and no comment's; its key is the first of a dotted one."""
    found = statements(ODD, tables(ODD)[0])
    assert [part.key for part in found] == [("title",), ("list",), ("x y",)]
    assert ODD[found[1].start : found[1].end] == "list = [\n  1, [2,\n  3], # ]\n[4]]\n"
    assert [part.key for part in statements(ODD, tables(ODD)[1])] == [("b",)]


@pytest.mark.parametrize("text", ["a = ", "[a\n", "a = 1\na = 2\n", "\ufeffa = 1\n", "[a]\n[a]\n", "a = " + "[" * 5000])
def test_what_is_no_toml_is_broken(text):
    """One error, with the place where the reader stopped."""
    with pytest.raises(Broken, match="no TOML"):
        tables(text)
    assert not is_toml(text)


LINES = st.sampled_from(
    [
        "",
        "# c",
        "[t{}]",
        "[t{}.x]",
        "k{} = 1",
        'k{} = """\n[no]\n"""',
        "k{} = [\n[1],\n]",
        "  [u{}] # [x]",
        "k{}='#'",
        "\t",
    ]
)
TEXTS = st.builds(
    lambda lines, end: "\n".join(line.format(number) for number, line in enumerate(lines)) + end,
    st.lists(LINES, max_size=12),
    st.sampled_from(["", "\n", "\r\n", "\n\n# \u2028 \x85 end"]),
)


@given(TEXTS)
def test_any_text_is_cut_exactly(text):
    """The parts are the text, each is TOML by itself, and their statements are all that it says."""
    parts = tables(text)
    assert "".join(text[part.start : part.end] for part in parts) == text
    assert all(is_toml(text[part.start : part.end]) for part in parts)
    said = {part.key[0] for part in statements(text, parts[0])}
    assert said | {part.key[0] for part in parts[1:]} == set(read(text))


@given(TEXTS, st.data())
def test_what_is_put_in_comes_out(text, data):
    """A block at any line's beginning or the end, and any tables set aside: without ours the text is what it was."""
    starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n"), len(text)]
    at = data.draw(st.sampled_from(starts))
    aside = data.draw(
        st.sets(st.sampled_from([part for part in tables(text)[1:] if part.end <= at] or [Part(at, at, ())]))
    )
    put = marks.put_in(text, at, 'x = "y"\n', aside)
    assert marks.without(put) == text
    assert marks.is_marked(put)
    assert not marks.is_marked(text)


@pytest.mark.parametrize("left", [marks.BEGIN, marks.END])
def test_half_a_block_is_not_guessed_at(left):
    """Where one of the marks was taken out by hand nothing is taken out with the other."""
    put = marks.put_in("a = 1\n", 0, "b = 2\n")
    other = marks.END if left == marks.BEGIN else marks.BEGIN
    with pytest.raises(marks.Damaged, match="marks is missing"):
        marks.without("".join(line for line in put.splitlines(keepends=True) if not line.startswith(other)))


def test_marks_are_comments():
    """What is set aside and what is put in means only what is between the marks."""
    text = "a = [\n 1,\n]\nb = 2\n"
    put = marks.put_in(text, len(text), "c = 3\n", [Part(0, 12, ("a",))])
    assert tomllib.loads(put) == {"b": 2, "c": 3}
