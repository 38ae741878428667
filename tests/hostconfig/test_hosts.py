"""hosts.toml: ours first, everything else as it was."""

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.hosts import Certificates, Unmergeable, Wanted, merged, order
from p2pmirror.hostconfig.outline import Broken
from tests.hostconfig.trees import MIRROR

AGENT, CACHE = "http://127.0.0.1:29999", "http://10.0.0.9:30500"
WANTED = Wanted((AGENT, CACHE))
SERVER = "https://registry-1.docker.io"


def test_a_new_file_names_ours_and_the_registry():
    """Golden: what a host without any configuration is given."""
    assert merged("", WANTED, SERVER) == (
        "# >>> p2pmirror: written by `p2pmirror configure`, taken away by `p2pmirror unconfigure`\n"
        'server = "https://registry-1.docker.io"\n'
        "\n"
        '[host."http://127.0.0.1:29999"]\n'
        '  capabilities = ["pull", "resolve"]\n'
        '  dial_timeout = "200ms"\n'
        "\n"
        '[host."http://10.0.0.9:30500"]\n'
        '  capabilities = ["pull", "resolve"]\n'
        '  dial_timeout = "200ms"\n'
        "# <<< p2pmirror\n"
    )


def test_ours_come_first_and_nothing_is_lost():
    """In a file with hosts, comments and unknown keys every line stays, in order; ours stand before the first host."""
    text = merged(MIRROR, WANTED, SERVER)
    assert order(text) == [AGENT, CACHE, "https://mirror.corp:8443"]
    lines = iter(text.splitlines())
    assert all(line in lines for line in MIRROR.splitlines())
    said, was = tomllib.loads(text), tomllib.loads(MIRROR)
    assert said["server"] == was["server"]
    assert said["host"]["https://mirror.corp:8443"] == was["host"]["https://mirror.corp:8443"]
    assert marks.without(text) == MIRROR


def test_a_table_of_the_same_address_gives_way():
    """Somebody named the agent by hand, last: his table is set aside, not lost, and its comment stays."""
    text = f'[host."https://a"]\n[host."{AGENT}"] # by hand\n  skip_verify = true\n# about b\n[host."https://b"]\n'
    said = merged(text, WANTED, None)
    assert order(said) == [AGENT, CACHE, "https://a", "https://b"]
    assert tomllib.loads(said)["host"][AGENT] == {"capabilities": ["pull", "resolve"], "dial_timeout": "200ms"}
    assert "\n# about b\n" in said
    assert marks.without(said) == text


def test_a_server_stays_and_a_missing_one_is_containerds_own():
    """A file that says no server is not given one: containerd takes the registry itself."""
    assert "server" not in tomllib.loads(merged('[host."https://a"]\n', WANTED, SERVER))
    assert tomllib.loads(merged('server = "http://x:5000"\n', WANTED, SERVER))["server"] == "http://x:5000"


def test_a_server_that_is_the_agent_is_no_fallback():
    """A file whose server is one of ours would leave nobody to fall back to: the registry takes its place."""
    text = f'server = "{AGENT}"\ncapabilities = ["pull"]\n[header]\n  a = "secret of the agent"\n'
    said = tomllib.loads(merged(text, WANTED, SERVER))
    assert said.keys() == {"server", "host"}
    assert said["server"] == SERVER
    assert "server" not in tomllib.loads(merged(text, WANTED, None))


def test_without_fallback_the_last_address_is_the_server():
    """On request nobody but ours is asked; what belonged to the former server goes with it, and comes back."""
    text = f'ca = "/ca.pem"\n{MIRROR}[host."{SERVER}"]\n[header]\n  authorization = "for the registry"\n'
    said = merged(text, dataclasses.replace(WANTED, fallback=False, headers=(("x-a", 'b"c'),)), SERVER)
    document = tomllib.loads(said)
    assert document.keys() == {"server", "capabilities", "dial_timeout", "header", "host"}
    assert document["server"] == CACHE
    assert document["header"] == document["host"][AGENT]["header"] == {"x-a": 'b"c'}
    assert order(said) == [AGENT, CACHE, "https://mirror.corp:8443"]
    assert marks.without(said) == text


def test_certificates_beside_a_missing_file_stay_in_use():
    """Containerd reads them only where there is no hosts.toml, so the new one names them."""
    certificates = Certificates(("ca.crt",), (("client.cert", "client.key"),))
    said = tomllib.loads(merged("", WANTED, None, certificates))
    assert said["ca"] == ["ca.crt"]
    assert said["client"] == [["client.cert", "client.key"]]
    alone = tomllib.loads(merged("", dataclasses.replace(WANTED, fallback=False), None, certificates))
    assert not {"ca", "client"} & alone.keys()


@pytest.mark.parametrize(
    "text",
    [
        'host = { "https://a" = { capabilities = ["pull"] } }\n',
        'host."https://a".capabilities = ["pull"]\n',
        '[host]\n"https://a" = { capabilities = ["pull"] }\n',
        "[[host]]\na = 1\n",
    ],
)
def test_hosts_in_other_forms_are_refused(text):
    """Containerd 2 does not see them as hosts and 1.6 puts them first: nobody could come before them."""
    with pytest.raises(Unmergeable, match="tables of their own"):
        merged(text, WANTED, SERVER)


def test_broken_files_are_broken():
    """What is no TOML is not merged."""
    with pytest.raises(Broken):
        merged('[host."a"\n', WANTED, SERVER)


def test_a_text_that_looks_like_our_marks_is_left_alone():
    """A mark within a text of several lines could not be told from ours when it is taken back."""
    with pytest.raises(Unmergeable, match="losing"):
        merged('about = """\n#p2pmirror# x\n"""\n', WANTED, SERVER)


def test_comments_above_the_first_table_stay_with_it():
    """Ours go in front of them, but never into a text whose last line begins like one."""
    text = 'a = """\n# no comment"""\n# about b\n[host."https://b"]\n'
    said = merged(text, WANTED, SERVER)
    assert said.startswith('a = """\n# no comment"""\n# >>>')
    assert said.endswith('# <<< p2pmirror\n# about b\n[host."https://b"]\n')


PIECES = st.sampled_from(
    [
        'server = "https://s"\n',
        f'server = "{AGENT}"\n',
        'capabilities = [\n  "pull", # [x]\n]\n',
        "# comment\n",
        "\n",
        'ca = """\n[a]\n# b"""\n',
    ]
)
HOSTS = st.sampled_from(
    [
        '[host."https://a"]\n',
        f'[host."{AGENT}"]\nx = 1\n',
        f'[host."{CACHE}".header]\nx = "1"\n',
        "# c\n",
        "\n",
        "[header]\na='b'\n",
    ]
)


@given(st.lists(PIECES, unique=True), st.lists(HOSTS, unique=True), st.booleans(), st.booleans(), st.booleans())
def test_any_file_keeps_what_it_says(head, hosts, is_cut, fallback, has_header):
    """Whatever stands in a file: ours come first, the others mean what they meant, and all of it can be taken back."""
    text = "".join([*head, *hosts])
    text = text.removesuffix("\n") if is_cut else text
    try:
        was = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # two servers
        return
    headers = (("Authorization", "Basic \\\"'"),) if has_header else ()
    said = merged(text, Wanted((AGENT, CACHE), headers=headers, fallback=fallback), SERVER)
    document = tomllib.loads(said)
    assert order(said)[:2] == [AGENT, CACHE]
    ours = {AGENT, CACHE}
    assert {k: v for k, v in document["host"].items() if k not in ours} == {
        k: v for k, v in was.get("host", {}).items() if k not in ours
    }
    assert (
        document.get("server")
        == (CACHE if not fallback else was.get("server") if was.get("server") != AGENT else SERVER)
        or not text.strip()
    )
    assert marks.without(said) == text
