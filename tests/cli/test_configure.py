"""`configure containerd` and `unconfigure` as they are called."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from p2pmirror.cli import main
from tests.hostconfig.trees import MIRROR, snapshot, write_tree

AGENT = "http://127.0.0.1:29999"


@pytest.fixture
def root(tmp_path):
    """Give a certs.d with a user's mirror in it."""
    write_tree(tmp_path, {"certs.d/docker.io/hosts.toml": MIRROR})
    return tmp_path / "certs.d"


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def configure(root, *arguments):
    return run("configure", "containerd", "--config-path", root, *arguments)


def test_it_says_what_it_did_and_nothing_twice(root):
    """Each file that was written, then that there is nothing to do, then each that was given back."""
    first, second = configure(root), configure(root)
    back, again = run("unconfigure", "--config-path", root), run("unconfigure", "--config-path", root)
    assert [each.exit_code for each in (first, second, back, again)] == [0] * 4
    assert first.output == f"wrote {root}/docker.io/hosts.toml\nwrote {root}/_default/hosts.toml\n"
    assert second.output == again.output == "nothing to do: all is as it should be\n"
    assert back.output == (
        f"gave back {root}/docker.io/hosts.toml\ngave back {root}/_default/hosts.toml, which was not there\n"
    )


def test_a_second_owner_is_told_of_the_first(root):
    """Two releases of the chart in one cluster: the second one configures nothing, and its end takes nothing away."""
    assert configure(root, "--owner", "one/mirror").exit_code == 0
    before = snapshot(root)
    second = configure(root, "--owner", "two/mirror")
    assert (second.exit_code, configure(root, "--owner", "two/mirror", "--lenient").exit_code) == (1, 0)
    assert f"{root} is configured for one/mirror, and not for two/mirror" in second.output
    end = run("unconfigure", "--config-path", root, "--owner", "two/mirror")
    assert (end.exit_code, snapshot(root)) == (0, before)
    assert "is configured for one/mirror: left as it is" in end.output
    assert configure(root, "--owner", "x" * 254).exit_code == 2
    assert configure(root, "--owner", "two/mirror", "--take-over").exit_code == 0
    assert run("unconfigure", "--config-path", root, "--owner", "one/mirror").output.count("two/mirror") == 1
    assert run("unconfigure", "--config-path", root, "--owner", "two/mirror").output.count("gave back") == 2


def test_a_dry_run_shows_a_diff(root):
    """What would change, as `diff -u` shows it, and nothing changes; the same for the way back."""
    before = snapshot(root)
    shown = configure(root, "--dry-run")
    assert shown.exit_code == 0
    assert f"--- {root}/docker.io/hosts.toml\n+++ {root}/docker.io/hosts.toml\n" in shown.output
    assert f"--- /dev/null\n+++ {root}/_default/hosts.toml\n" in shown.output
    assert f'\n+[host."{AGENT}"]\n' in shown.output
    assert snapshot(root) == before
    configure(root)
    after = snapshot(root)
    back = run("unconfigure", "--config-path", root, "--dry-run")
    assert f'\n-[host."{AGENT}"]\n' in back.output
    assert "+++ /dev/null\n" in back.output
    assert snapshot(root) == after


def test_every_option_reaches_the_file(root):
    """Addresses in order, capabilities, dial_timeout, headers, registries."""
    options = ["--address", AGENT, "--address", "https://cache.corp:5000/p/", "--capabilities", "pull"]
    options += ["--dial-timeout", "1s", "--header", 'Authorization: Basic "x"', "--registry", "ghcr.io"]
    assert configure(root, *options).exit_code == 0
    said = tomllib.loads((root / "ghcr.io" / "hosts.toml").read_text())
    host = {"capabilities": ["pull"], "dial_timeout": "1s", "header": {"Authorization": 'Basic "x"'}}
    assert said == {"server": "https://ghcr.io", "host": {AGENT: host, "https://cache.corp:5000/p": host}}
    assert list(said["host"]) == [AGENT, "https://cache.corp:5000/p"]
    assert not (root / "_default").exists()
    assert configure(root, "--dial-timeout", "0", "--registry", "localhost:5000", "--no-fallback").exit_code == 0
    said = tomllib.loads((root / "localhost_5000_" / "hosts.toml").read_text())
    assert said == {
        "server": AGENT,
        "capabilities": ["pull", "resolve"],
        "host": {AGENT: {"capabilities": ["pull", "resolve"]}},
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--address", "127.0.0.1:29999"],
        ["--address", "http://"],
        ["--address", "http:///path"],
        ["--address", "http://a:x"],
        ["--address", "http://[::1"],
        ["--address", "http://user:secret@a"],
        ["--address", 'http://a"]'],
        ["--address", "http://a?b"],
        ["--capabilities", "resolve"],
        ["--capabilities", "pull,push"],
        ["--capabilities", "pull,referrers"],
        ["--dial-timeout", "200"],
        ["--dial-timeout", "-1s"],
        ["--header", "no colon"],
        ["--header", "a: b\nc: d"],
        ["--registry", "a/b"],
        ["--registry", "*"],
        ["--config-path", ":"],
    ],
)
def test_a_wrong_value_is_a_usage_error(root, options):
    """Exit code 2, and what is allowed; nothing is written."""
    before = snapshot(root)
    result = configure(root, *options)
    assert result.exit_code == 2
    assert "Error: Invalid value for" in result.stderr
    assert snapshot(root) == before


def test_what_is_left_is_said(root):
    """A broken file and why are told on stderr: exit code 3 when others were written, 1 when there is no other."""
    write_tree(root, {"broken.corp/hosts.toml": "[host.\n"})
    some = configure(root)
    assert some.exit_code == 3
    assert some.stderr.startswith(
        f"p2pmirror configure containerd: left {root}/broken.corp/hosts.toml as it is: no TOML"
    )
    none = configure(root)
    assert none.exit_code == 1
    assert none.stdout == ""


def test_json_says_all(root):
    """One object with what was written, left, given back, and whether a restart is needed."""
    write_tree(root, {"broken.corp/hosts.toml": "[host.\n"})
    (root.parent / "config.toml").write_text("version = 3\n")
    result = configure(root, "--json", "--daemon-config", root.parent / "config.toml")
    said = json.loads(result.stdout)
    assert said["written"] == [
        *(f"{root}/{name}/hosts.toml" for name in ("docker.io", "_default")),
        f"{root.parent}/config.toml",
    ]
    assert [each["path"] for each in said["left"]] == [f"{root}/broken.corp/hosts.toml"]
    assert (said["restart_needed"], said["dry_run"], said["given_back"]) == (True, False, [])
    assert "systemctl restart containerd" in result.stderr
    back = run("unconfigure", "--config-path", root, "--json")
    assert json.loads(back.stdout)["restart_needed"] is True
    assert (root.parent / "config.toml").read_text() == "version = 3\n"


def test_nothing_of_a_whole_directory(tmp_path):
    """What cannot be done at all is one line on stderr and exit code 1."""
    (tmp_path / "certs.d").write_text("")
    result = configure(tmp_path / "certs.d")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path}/certs.d is no directory\n"
    assert run("unconfigure", "--config-path", tmp_path / "nowhere").exit_code == 0


def test_mirrors_in_the_old_form_are_only_printed(root):
    """`--legacy-mirrors` writes nothing."""
    before = snapshot(root)
    result = configure(root, "--legacy-mirrors", "--registry", "docker.io")
    assert tomllib.loads(result.output)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["mirrors"] == {
        "docker.io": {"endpoint": [AGENT, "https://registry-1.docker.io"]}
    }
    assert snapshot(root) == before


def test_a_wrong_platform_is_a_usage_error():
    """And each platform is named in the help."""
    assert run("configure", "docker").exit_code == 2
    assert "  containerd " in run("configure", "--help").output
