"""registries.yaml: ours first in every entry that counts, every other byte as it was."""

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.cli import main
from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.hosts import Unmergeable
from p2pmirror.hostconfig.k3s import merged
from tests.hostconfig.trees import snapshot, write_tree

AGENT, CACHE = "http://127.0.0.1:29999", "http://10.0.0.9:30500"
OURS = (AGENT, CACHE)

FILE = """\
# of the company
mirrors:
  docker.io:  # the hub
    endpoint:
    - "https://mirror.corp"
    # after it
    rewrite:
      "^library/(.*)": "hub/$1"
  quay.io:
  ghcr.io: {endpoint: ["https://g.corp"]}  # in one line
  gcr.io:
    endpoint: [https://h.corp,
      https://i.corp]
  registry.k8s.io:
    rewrite: {"a": "b"}

# logins
configs:
  registry.corp:5000:
    auth:
      username: x
      password: |
        several
        lines
  10.0.0.9:30500:
    tls: {insecure_skip_verify: true}
  nothing.corp:
"""


def mirrors(text):
    return {name: (each or {}).get("endpoint") for name, each in yaml.safe_load(text)["mirrors"].items()}


def test_every_registry_that_star_does_not_cover_is_given_ours():
    """Entries of their own, in whatever form, and those that have only a login: k3s would not take `*` for them.

    All else means what it meant, every line is there, and without ours the file is what it was.
    """
    text = merged(FILE, ["_default"], OURS)
    assert mirrors(text) == {
        "*": [*OURS],
        "registry.corp:5000": [*OURS],
        "docker.io": [*OURS, "https://mirror.corp"],
        "quay.io": [*OURS],
        "ghcr.io": [*OURS, "https://g.corp"],
        "gcr.io": [*OURS, "https://h.corp", "https://i.corp"],
        "registry.k8s.io": [*OURS],
    }
    said, was = yaml.safe_load(text), yaml.safe_load(FILE)
    assert said["configs"] == was["configs"]
    assert said["mirrors"]["docker.io"]["rewrite"] == was["mirrors"]["docker.io"]["rewrite"]
    assert marks.without(text) == FILE


def test_named_registries_alone_are_changed():
    """One that is there and one that is not; the others keep what they have."""
    text = merged(FILE, ["docker.io", "new.corp"], (AGENT,))
    assert mirrors(text)["docker.io"] == [AGENT, "https://mirror.corp"]
    assert mirrors(text)["new.corp"] == [AGENT]
    assert mirrors(text)["ghcr.io"] == ["https://g.corp"]
    assert "*" not in mirrors(text)


def test_what_is_first_already_is_left():
    """A file that somebody wrote as we would is not changed."""
    text = f'mirrors:\n  "*":\n    endpoint: ["{AGENT}", "{CACHE}", "https://x"]\n'
    assert merged(text, ["_default"], OURS) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "---\n",
        "mirrors:\n",
        "mirrors: {}\n",
        "mirrors:",
        "configs: {}\n",
        'mirrors: {"a.b": {endpoint: [c]}, d.e: }',
    ],
)
def test_small_files(text):
    """Empty, without mirrors, with an empty or a one-line mapping: ours are in it, and go out again."""
    said = merged(text, ["_default"], OURS)
    assert mirrors(said)["*"] == [*OURS]
    assert marks.without(said) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mirrors: [", "no YAML"),
        ("a: 1\n---\nb: 2\n", "no YAML"),
        ("- a\n", "form"),
        ("{mirrors: {}}", "form"),
        ("mirrors: [a]\n", "form"),
        ("mirrors:\n  a: [b]\n", "form"),
        ("mirrors:\n  a:\n    endpoint: b\n", "no list"),
        ("x: &x [a]\nmirrors:\n  a:\n    endpoint: *x\n", "aliases"),
        ("mirrors:\n  a: {endpoint: [b], rewrite: {c: 2001-01-01}}\n", "in quotes"),
        ("mirrors:\n  a:\n    endpoint: [b]\nx: |\n  #p2pmirror# y\n#p2pmirror# z: 1\n", "losing"),
        ("mirrors: {}\n...\n# end\n", None),
        ("\x00", "no YAML"),
    ],
)
def test_other_forms_are_refused_or_kept(text, reason):
    """A file that is not understood is left alone, with the reason."""
    if reason is None:
        assert marks.without(merged(text, ["_default"], OURS)) == text
        return
    with pytest.raises(Unmergeable, match=reason):
        merged(text, ["_default"], OURS)


ENTRIES = st.sampled_from(
    [
        "  a{}.b:\n    endpoint:\n      - x\n      # c\n      - y\n",
        "  a{}.b:\n    endpoint:\n    - x\n    rewrite:\n      c: d\n",
        "  a{}.b:\n\n    # c\n    rewrite: {{c: d}}\n    endpoint: [x, y]\n",
        "  a{}.b:\n",
        "  a{}.b: ~ # c\n",
        "  'a{}.b': {{endpoint: [\n  x], rewrite: {{}}}}\n",
        f"  a{{}}.b:\n    endpoint: [{AGENT}, {CACHE}]\n",
        "  a{}.b:\n    endpoint: []\n",
        "  a{}.b:\n    endpoint:\n",
        "# c\n",
        "\n",
    ]
)


TAILS = st.sampled_from(["", "z: 1\n", "configs:\n  c.d:\n    auth:\n      password: |\n        x\n"])


@settings(max_examples=40)  # each is read five times, by a reader written in Python
@given(st.lists(ENTRIES, max_size=6), st.booleans(), TAILS, st.sampled_from(["", "---\n# head\n"]))
def test_any_file_can_be_taken_back(entries, is_cut, tail, head):
    """Whatever forms the entries have: ours are first in each, the rest means what it meant, and comes back."""
    text = f"{head}mirrors:\n{''.join(entry.format(number) for number, entry in enumerate(entries))}{tail}"
    text = text.removesuffix("\n") if is_cut else text
    said = merged(text, ["_default"], OURS)
    was = yaml.safe_load(text)["mirrors"] or {}
    assert all(each[:2] == [*OURS] for each in mirrors(said).values())
    for name, each in was.items():
        theirs = (each or {}).get("endpoint") or []
        assert mirrors(said)[name][-len(theirs) :] == theirs or not theirs
    assert marks.without(said) == text


def test_a_hosts_file_is_merged_and_given_back(tmp_path):
    """`--merge` and `unconfigure --k3s`: the file with mode and time, the directory, and nothing of ours left."""
    write_tree(tmp_path, {"k3s/registries.yaml": FILE})
    file = tmp_path / "k3s" / "registries.yaml"
    file.chmod(0o600)
    before = snapshot(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(main, [*arguments])

    shown = run("configure", "k3s", "--merge", str(file), "--dry-run")
    assert "+++ " in shown.stdout
    assert snapshot(tmp_path) == before
    done = run("configure", "k3s", "--merge", str(file))
    assert (done.exit_code, done.stdout) == (0, f"wrote {file}\n")
    assert "restart k3s" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("configure", "k3s", "--merge", str(file)).stdout.startswith("nothing to do")
    back = run("unconfigure", "--k3s", str(file))
    assert (back.exit_code, back.stdout) == (0, f"gave back {file}\n")
    assert snapshot(tmp_path) == before


def test_a_host_without_the_file_is_given_one(tmp_path):
    """And without the directory; both go again. A file that is no YAML is left, exit code 1."""
    file = tmp_path / "rancher" / "k3s" / "registries.yaml"
    assert CliRunner().invoke(main, ["configure", "k3s", "--merge", str(file)]).exit_code == 0
    assert mirrors(file.read_text()) == {"*": [AGENT]}
    assert CliRunner().invoke(main, ["unconfigure", "--k3s", str(file)]).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    write_tree(tmp_path, {"registries.yaml": "mirrors: ["})
    result = CliRunner().invoke(main, ["configure", "k3s", "--merge", str(tmp_path / "registries.yaml")])
    assert result.exit_code == 1
    assert "as it is: no YAML" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["registries.yaml"]
    (tmp_path / "odd").write_text("")
    assert CliRunner().invoke(main, ["configure", "k3s", "--merge", str(tmp_path / "odd" / "x")]).exit_code == 1
