"""Any bytes in the files of a host: merged and taken back to the byte, or refused in one line; never anything else."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import daemon, hosts, k3s, marks
from tests.hostconfig.test_daemon import DEFAULT_2
from tests.hostconfig.test_k3s import FILE
from tests.hostconfig.trees import MIRROR

WANTED = hosts.Wanted(("http://127.0.0.1:29999",))
PIECES = ["[", "]", "[[", '"""', "'", "{", "}", "=", "\n", "\r\n", "#", "- ", ": ", "*", "&a ", " ", "\x00", "\u2028"]
PIECES += ["host", "mirrors:", "endpoint:", "server", "version = 2", "\t"]

MERGES = {
    "hosts.toml": (MIRROR, lambda text: hosts.merged(text, WANTED, "https://registry.corp")),
    "hosts.toml, no fallback": (
        MIRROR,
        lambda text: hosts.merged(text, hosts.Wanted(WANTED.addresses, fallback=False), None),
    ),
    "config.toml": (DEFAULT_2, lambda text: daemon.with_config_path(text, "/etc/containerd/certs.d")),
    "registries.yaml": (FILE, lambda text: k3s.merged(text, ["_default"], WANTED.addresses)),
}


def try_it(merge, text):
    """Merge one text; tell whether it was taken."""
    merged, refused = None, ""
    try:
        merged = merge(text)
    except BadRequest as error:
        refused = str(error)
    assert (merged is None) == bool(refused)
    assert "\n" not in refused
    if merged is not None and not marks.is_marked(text):
        assert marks.without(merged) == text
    return merged is not None


@pytest.mark.parametrize("name", MERGES)
def test_mutants_of_good_files(name, long):
    """Pieces put in, taken out, doubled and cut off, seeded: some are still taken, and those come back."""
    good, merge = MERGES[name]
    random, taken, rounds = Random(name), 0, 3000 if long else 100
    for _ in range(rounds):
        text = good
        for _ in range(random.randint(1, 4)):
            at, end = sorted(random.randint(0, len(text)) for _ in range(2))
            kind = random.randrange(4)
            if kind == 0:
                text = text[:at] + random.choice(PIECES) + text[at:]
            elif kind == 1:
                text = text[:at] + text[min(end, at + random.randint(1, 20)) :]
            elif kind == 2:
                text = text[:at] + text[at : at + 30] + text[at:]
            else:
                text = text[: max(at, len(text) // 2)]
        taken += try_it(merge, text)
    assert 0 < taken < rounds


@pytest.mark.parametrize("name", MERGES)
@settings(max_examples=40)
@given(text=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
def test_any_text(name, text):
    """Whatever it is."""
    try_it(MERGES[name][1], text)
