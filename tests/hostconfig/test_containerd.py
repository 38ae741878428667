"""`configure` and `unconfigure` on whole directories: nothing is lost, whatever was there."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig.containerd import Setup, configure, other_owner, plan, plan_back, unconfigure
from p2pmirror.hostconfig.hosts import Wanted, order
from p2pmirror.hostconfig.ledger import NAME, Lost
from tests.hostconfig.trees import MIRROR, snapshot, write_odd, write_tree

AGENT, CACHE = "http://127.0.0.1:29999", "http://10.0.0.9:30500"
ODD_FILES = {"broken.corp", "pipe.corp", "tree.corp"}


def setup(root, *registries, wanted=None, daemon=None):
    return Setup((root,), registries or ("_default",), wanted or Wanted((AGENT,)), daemon)


def hosts_of(root, name):
    return order((root / name / "hosts.toml").read_text())


def test_an_odd_directory_is_configured_and_given_back(tmp_path):
    """Files, links, certificates, broken, odd and empty things: ours come first where it goes, and all comes back.

    Bytes, modes, owners, links and times of change are compared; a second run in between writes nothing at all.
    """
    root = tmp_path / "certs.d"
    write_odd(root)
    before = snapshot(root)

    done = configure(setup(root))

    assert {path.parent.name for path, _ in done.left} == ODD_FILES
    written = {change.path.parent.name for change in done.changes}
    assert written == {"docker.io", "registry.corp_5000_", "quay.io", "ghcr.io", "empty.corp", "far.corp", "_default"}
    assert hosts_of(root, "docker.io") == [AGENT, "https://mirror.corp:8443"]
    assert hosts_of(root, "linked.corp") == [AGENT, "https://mirror.corp:8443"]
    quay = tomllib.loads((root / "quay.io/hosts.toml").read_text())
    assert quay["ca"] == ["ca.crt"]
    assert quay["client"] == [["both.cert", "both.cert"], ["client.cert", "client.key"]]
    assert "server" not in tomllib.loads((root / "_default/hosts.toml").read_text())
    assert (root / "docker.io/hosts.toml").stat().st_mode & 0o777 == 0o600
    after = snapshot(root)
    odd = {name: each for name, each in before.items() if each[0] == b"odd" or name.split("/")[0] in ODD_FILES}
    assert odd.items() <= after.items()

    again = configure(setup(root))
    assert again.is_empty
    assert snapshot(root) == after

    back = unconfigure((root,))
    assert {change.path for change in back.given_back} == {change.path for change in done.changes}
    assert back.left == []
    assert snapshot(root) == before


def test_a_missing_directory_is_made_and_removed(tmp_path):
    """Parents too; what somebody else put into one of them keeps it."""
    root = tmp_path / "etc" / "containerd" / "certs.d"
    configure(setup(root))
    assert hosts_of(root, "_default") == [AGENT]
    assert oct(root.stat().st_mode & 0o777) == "0o755"
    unconfigure((root,))
    assert not (tmp_path / "etc").exists()
    configure(setup(root))
    write_tree(tmp_path, {"etc/theirs": ""})
    unconfigure((root,))
    assert [path.name for path in tmp_path.rglob("*")] == ["etc", "theirs"]


def test_a_directory_that_is_a_link_is_written_through(tmp_path):
    """The link stays what it is."""
    (tmp_path / "real").mkdir()
    root = tmp_path / "certs.d"
    root.symlink_to("real")
    configure(setup(root))
    assert hosts_of(tmp_path / "real", "_default") == [AGENT]
    unconfigure((root,))
    assert root.is_symlink()
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "nowhere"])
def test_what_is_no_directory_is_refused(tmp_path, kind):
    """A file in its place, and a link that leads nowhere: one line, and nothing is made."""
    root = tmp_path / "certs.d"
    root.write_text("x") if kind == "file" else root.symlink_to("nowhere")
    before = snapshot(tmp_path)
    for command in (lambda: configure(setup(root)), lambda: plan(setup(root)), lambda: unconfigure((root,))):
        with pytest.raises(BadRequest, match="is no directory" if kind == "file" else "leads nowhere"):
            command()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff", "UTF-8"), (b"#" * (2 << 20), "more than"), (None, "leads nowhere")]
)
def test_a_file_that_is_no_text_is_left(tmp_path, content, said):
    """Bytes that are no UTF-8, a file of megabytes, a link that leads nowhere: told, and untouched."""
    path = tmp_path / "certs.d" / "docker.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content) if content is not None else path.symlink_to("nowhere")
    before = snapshot(path.parent)
    done = configure(setup(tmp_path / "certs.d"))
    assert [(left, said in why) for left, why in done.left] == [(path, True)]
    assert snapshot(path.parent) == before


def test_half_a_mark_is_left_to_its_user(tmp_path):
    """He cut one of the marks out: nothing is guessed, it is said, and what is kept stays kept until it is mended."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    configure(setup(root))
    path = root / "docker.io" / "hosts.toml"
    whole = path.read_text()
    path.write_text(whole.replace("# <<< p2pmirror\n", ""))
    left = unconfigure((root,)).left
    assert [(each, "marks is missing" in why) for each, why in left] == [(path, True)]
    assert [path for path, _ in configure(setup(root)).left] == [path]
    path.write_text(whole)
    assert unconfigure((root,)).left == []
    assert path.read_text() == MIRROR
    assert not (root / NAME).exists()


def test_what_somebody_put_in_the_place_of_ours_is_left(tmp_path):
    """A pipe where we wrote a file: it is not opened, it is told, and everything else is given back."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    configure(setup(root))
    path = root / "_default" / "hosts.toml"
    path.unlink()
    os.mkfifo(path)
    done = unconfigure((root,))
    assert [each for each, _ in done.left] == [path]
    assert (root / "docker.io" / "hosts.toml").read_text() == MIRROR
    path.unlink()
    assert unconfigure((root,)).left == []
    assert not (root / NAME).exists()


def test_what_a_killed_command_left_half_written_is_swept_away(tmp_path):
    """Files under names of ours that no command is writing any more."""
    root = tmp_path / "certs.d"
    configure(setup(root))
    write_tree(root, {"_default/.p2pmirror-new-1-hosts.toml": "x"})
    unconfigure((root,))
    assert not root.exists()


def test_what_a_user_changed_since_stays(tmp_path):
    """After our writing he adds a host, edits a comment, removes a file, makes one: ours goes, his stays."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR, "ghcr.io/hosts.toml": MIRROR})
    configure(setup(root, "_default", "new.corp"))
    docker = root / "docker.io" / "hosts.toml"
    docker.write_text(docker.read_text().replace("the company's own", "edited") + '[host."https://added"]\n')
    (root / "ghcr.io" / "hosts.toml").unlink()
    new = root / "new.corp" / "hosts.toml"
    new.write_text(new.read_text() + '[host."https://added"]\n')
    write_tree(root, {"his.corp/hosts.toml": "a = 1\n"})

    unconfigure((root,))

    assert docker.read_text() == MIRROR.replace("the company's own", "edited") + '[host."https://added"]\n'
    assert new.read_text() == '[host."https://added"]\n'
    assert {path.name for path in root.iterdir()} == {"docker.io", "ghcr.io", "new.corp", "his.corp"}
    assert list((root / "ghcr.io").iterdir()) == []


def test_what_a_user_changed_between_two_runs_is_what_comes_back(tmp_path):
    """A file that he replaced is configured anew, and it is his newest that unconfigure gives back, byte for byte."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    configure(setup(root))
    write_tree(root, {"docker.io/hosts.toml": 'server = "https://new"'})
    (root / "docker.io" / "hosts.toml").chmod(0o640)
    before = snapshot(root / "docker.io")
    configure(setup(root))
    assert hosts_of(root, "docker.io") == [AGENT]
    unconfigure((root,))
    assert snapshot(root / "docker.io")["hosts.toml"] == before["hosts.toml"]


def test_a_call_says_how_all_is_to_be(tmp_path):
    """Another address takes the place of the first; a registry that is not named any more is given back."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    before = snapshot(root)
    configure(setup(root, "docker.io", "ghcr.io"))
    done = configure(setup(root, "docker.io", wanted=Wanted((AGENT, CACHE))))
    assert [change.path.parent.name for change in done.given_back] == ["ghcr.io"]
    assert {path.name for path in root.iterdir()} == {"docker.io", NAME}
    assert hosts_of(root, "docker.io") == [AGENT, CACHE, "https://mirror.corp:8443"]
    unconfigure((root,))
    assert snapshot(root)["docker.io/hosts.toml"] == before["docker.io/hosts.toml"]


def test_a_ledger_that_was_lost_still_leaves_nothing_behind(tmp_path):
    """Somebody removed `_p2pmirror`: the marks tell what is ours."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    before = {name: each[0] for name, each in snapshot(root).items()}
    configure(setup(root))
    for path in (root / NAME).iterdir():
        path.unlink()
    (root / NAME).rmdir()
    unconfigure((root,))
    assert {name: each[0] for name, each in snapshot(root).items()} == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 2}', '{"version": 1, "files": {"a": {"b": 1}}, "directories": []}']
)
def test_a_damaged_ledger_changes_nothing(tmp_path, text):
    """What it kept is not overwritten by a guess; the way out is said."""
    root = tmp_path / "certs.d"
    configure(setup(root))
    (root / NAME / "ledger.json").write_text(text)
    before = snapshot(root)
    for command in (lambda: configure(setup(root, "ghcr.io")), lambda: unconfigure((root,))):
        with pytest.raises(Lost, match=r"ledger\.json"):
            command()
    assert snapshot(root) == before


def test_a_registrys_directory_does_not_hide_the_users_default(tmp_path):
    """His `_default` names a mirror for all: a new directory for one registry would take it away from that one."""
    root = tmp_path / "certs.d"
    write_tree(root, {"_default/hosts.toml": MIRROR})
    before = snapshot(root)
    done = configure(setup(root, "docker.io"))
    assert done.is_empty
    assert "--registry _default" in done.left[0][1]
    assert snapshot(root) == before


def test_of_several_directories_none_is_hidden(tmp_path):
    """Of `a:b`, a `_default` in `a` would hide what `b` says of single registries; so it goes into `b`."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_tree(tmp_path, {"a/docker.io/hosts.toml": MIRROR, "b/registry.corp/ca.crt": "x"})
    before = snapshot(tmp_path)
    configure(Setup((a, b), ("_default",), Wanted((AGENT,))))
    assert {path.name for path in a.iterdir()} == {"docker.io", NAME}
    assert hosts_of(a, "docker.io")[0] == hosts_of(b, "registry.corp")[0] == hosts_of(b, "_default")[0] == AGENT
    unconfigure((a, b))
    assert snapshot(tmp_path) == before


def test_containerds_own_configuration_is_set_and_given_back(tmp_path):
    """With --daemon-config: `config_path` in it, kept, written, and as it was afterwards; later runs leave it alone."""
    root, daemon = tmp_path / "certs.d", tmp_path / "config.toml"
    daemon.write_text("version = 3\n# mine")
    daemon.chmod(0o600)
    before = snapshot(tmp_path)
    configure(setup(root, daemon=daemon))
    assert str(root) in daemon.read_text()
    assert configure(setup(root)).is_empty
    assert str(root) in daemon.read_text()
    unconfigure((root,))
    assert snapshot(tmp_path) == before


def test_headers_are_for_root_alone(tmp_path):
    """Headers may be logins: a file that has them is not readable for others, whatever it was before."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    configure(setup(root, wanted=Wanted((AGENT,), headers=(("Authorization", "Basic x"),))))
    assert {path.stat().st_mode & 0o777 for path in root.glob("*/hosts.toml")} == {0o600}
    unconfigure((root,))
    assert (root / "docker.io" / "hosts.toml").stat().st_mode & 0o777 == 0o644


def test_a_plan_changes_nothing(tmp_path):
    """What `--dry-run` does: no directory, no lock, no ledger."""
    root = tmp_path / "certs.d"
    assert len(plan(setup(root)).changes) == 1
    assert not root.exists()
    write_odd(root)
    before = snapshot(root)
    assert plan(setup(root)).changes
    assert snapshot(root) == before
    configure(setup(root))
    before = snapshot(root)
    assert plan_back((root,)).given_back
    assert snapshot(root) == before


def test_killed_at_any_step_all_can_be_given_back(tmp_path, long):
    """Both commands die before any of their steps on the disk: unconfigure then leaves everything as it was.

    Every fifth step in a long run, some of them otherwise.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostconfig.killed", str(tmp_path / "place"), "5" if long else "61"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_several_at_once_end_as_one(tmp_path):
    """Four configures with an address each, at the same time: one of them stands there whole, and all comes back."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    before = snapshot(root)
    command = [sys.executable, "-m", "p2pmirror", "configure", "containerd", "--config-path", str(root), "--address"]
    addresses = [f"http://127.0.0.1:{port}" for port in range(1, 5)]
    running = [subprocess.Popen([*command, address], stdout=subprocess.DEVNULL) for address in addresses]
    assert [each.wait(timeout=60) for each in running] == [0] * 4
    assert hosts_of(root, "docker.io")[0] in addresses
    assert hosts_of(root, "docker.io")[0] == hosts_of(root, "_default")[0]
    assert len(hosts_of(root, "docker.io")) == 2
    unconfigure((root,))
    assert snapshot(root) == before


@pytest.mark.lab
def test_a_read_only_directory_is_left_alone(tmp_path):
    """On a file system that is read-only: one line, exit code 1, nothing changed; no error where nothing is to do."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    before = snapshot(root)

    def run():
        script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
        command = [sys.executable, "-m", "p2pmirror", "configure", "containerd", "--config-path", str(root)]
        argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(root), *command]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    refused = run()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: ")
    assert "Read-only file system" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert snapshot(root) == before
    configure(setup(root))
    assert run().returncode == 0


@pytest.mark.lab
def test_one_file_that_cannot_be_written_stops_nothing_else(tmp_path):
    """A mount in the place of one registry's file (as Kubernetes mounts one): that is left, the rest is done."""
    root = tmp_path / "certs.d"
    write_tree(root, {"docker.io/hosts.toml": MIRROR, "ghcr.io/hosts.toml": MIRROR})
    script = 'mount --bind "$1" "$1" && shift && exec "$@"'
    command = [sys.executable, "-m", "p2pmirror", "configure", "containerd", "--config-path", str(root)]
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(root / "docker.io/hosts.toml"), *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "docker.io/hosts.toml as it is: Device or resource busy" in done.stderr
    assert (root / "docker.io/hosts.toml").read_text() == MIRROR
    assert hosts_of(root, "ghcr.io")[0] == AGENT
    assert [path.name for path in (root / "docker.io").iterdir()] == ["hosts.toml"]


def owned(root, owner, *, takes_over=False):
    return Setup((root,), ("_default",), Wanted((AGENT,)), owner=owner, takes_over=takes_over)


def test_another_owner_leaves_it_alone(tmp_path):
    """Neither configures nor gives back what was done for the first one, until he takes it over."""
    root = tmp_path / "certs.d"
    configure(owned(root, "one/mirror"))
    before = snapshot(root)

    with pytest.raises(BadRequest, match="configured for one/mirror, and not for two/mirror"):
        configure(owned(root, "two/mirror"))
    assert (other_owner((root,), "two/mirror"), snapshot(root)) == ("one/mirror", before)
    assert [other_owner((root,), each) for each in ("one/mirror", "")] == [None, None]

    configure(owned(root, "two/mirror", takes_over=True))
    assert other_owner((root,), "one/mirror") == "two/mirror"
    unconfigure((root,))
    assert not root.exists()


def test_who_configures_for_nobody_changes_no_owner(tmp_path):
    """By hand, between two calls of an owner; what was done before owners had names is the next one's who says his."""
    root = tmp_path / "certs.d"
    configure(setup(root))
    assert other_owner((root,), "one/mirror") is None
    assert configure(owned(root, "one/mirror")).is_empty
    assert other_owner((root,), "two/mirror") == "one/mirror"
    configure(setup(root, wanted=Wanted((AGENT, CACHE))))
    assert other_owner((root,), "two/mirror") == "one/mirror"
