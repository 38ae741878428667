"""What is found wrong on a node: each fault is named, with something to do, and nothing else is."""

import socket

import pytest

from p2pmirror.hostconfig.containerd import Setup, configure
from p2pmirror.hostconfig.daemon import CRI_2, CRI_3
from p2pmirror.hostconfig.doctor import asking, node
from p2pmirror.hostconfig.doctor.daemon import config_files, config_findings, version_finding
from p2pmirror.hostconfig.doctor.finding import is_healthy
from p2pmirror.hostconfig.doctor.hosts import hosts_findings
from p2pmirror.hostconfig.doctor.node import Limits, Space
from p2pmirror.hostconfig.hosts import Wanted
from tests.hostconfig.trees import MIRROR, write_tree

AGENT = "http://127.0.0.1:29999"
GIB = 1 << 30


def faults(findings):
    """Return check and level of all that is not in order; each of these must say what to do."""
    wrong = [each for each in findings if each.level in {"bad", "warn"}]
    assert all(each.todo for each in wrong)
    return [(each.check, each.level) for each in wrong]


def config(place, text, *, version="2.2.9", root="/etc/containerd/certs.d", **more):
    """Judge a configuration; None: there is no file."""
    main = place / "config.toml"
    if text is not None:
        main.write_text(text)
    return list(config_findings(config_files(main), main, [type(place)(root)], version, **more))


GOOD_2 = f'version = 2\n[plugins."{CRI_2}".registry]\nconfig_path = "/etc/containerd/certs.d"\n'
GOOD_3 = f'version = 3\n[plugins."{CRI_3}".registry]\nconfig_path = "/etc/containerd/certs.d:/etc/docker/certs.d"\n'


@pytest.mark.parametrize(
    ("text", "version", "found"),
    [
        (GOOD_2, "1.6.20~ds1", []),
        (GOOD_3, "2.0.0", []),
        (None, "2.2.9", []),
        ("version = 3\n", "v2.3.0", []),
        (None, "1.6.20", [("config_path", "bad")]),
        ("version = 2\n", "1.7.1", [("config_path", "bad")]),
        ("version = 3\n", None, [("config_path", "bad")]),
        (GOOD_2.replace("/etc/containerd", "/srv"), "1.7.1", [("config_path", "bad")]),
        ("version = \n", "1.7.1", [("config", "bad"), ("config_path", "bad")]),
        ('disabled_plugins = ["cri"]\n', "1.7.1", [("cri", "bad"), ("config", "bad")]),
        (f'{GOOD_2}[plugins."{CRI_2}".registry.mirrors."a"]\nendpoint = ["b"]\n', "1.7.1", [("mirrors", "bad")]),
        (f'{GOOD_2}[plugins."{CRI_2}".containerd]\ndiscard_unpacked_layers = true\n', "1.7.1", [("layers", "warn")]),
        (f'{GOOD_3}[plugins."{CRI_3}"]\ndiscard_unpacked_layers = true\n', "2.2.9", [("layers", "warn")]),
        (f'{GOOD_3}[plugins."{CRI_2}".containerd]\ndiscard_unpacked_layers = false\n', "2.2.9", [("config", "warn")]),
        (f'{GOOD_2}[plugins."{CRI_3}".registry]\nconfig_path = "/x"\n', "2.2.9", [("config", "warn")]),
    ],
)
def test_containerds_configuration(tmp_path, text, version, found):
    """config_path set and ours, nothing in conflict with it, layers kept, tables in the form of the file's version."""
    assert faults(config(tmp_path, text, version=version)) == found


def test_a_directory_that_containerd_does_not_know_by_itself_must_be_named(tmp_path):
    """Where config_path is not set, 2.2 reads two directories; ours is another one."""
    assert faults(config(tmp_path, "version = 3\n", root="/srv/certs.d")) == [("config_path", "bad")]


def test_imports_count_as_containerd_counts_them(tmp_path):
    """A later file wins; patterns, loops, missing and broken ones are met; a fragment of the other form is named."""
    write_tree(
        tmp_path,
        {
            "conf.d/1.toml": f'[plugins."{CRI_3}".registry]\nconfig_path = "/etc/containerd/certs.d"\n',
            "conf.d/2.toml": f'imports = ["../config.toml"]\n[plugins."{CRI_2}".registry]\nconfig_path = "/x"\n',
            "conf.d/3.toml": "x = \n",
        },
    )
    text = 'version = 3\nimports = ["conf.d/*.toml", "/nowhere.toml"]\n'
    assert faults(config(tmp_path, text, version="2.0.0")) == [("config", "bad"), ("config", "warn")]


def test_a_cache_makes_up_for_layers_that_are_thrown_away(tmp_path):
    """And a pod that has no file of containerd's says nothing of it."""
    text = f'{GOOD_3}[plugins."{CRI_3}"]\ndiscard_unpacked_layers = true\n'
    assert faults(config(tmp_path, text, has_cache=True)) == []
    (skipped,) = config(tmp_path / "nowhere", None, in_pod=True)
    assert skipped.level == "skip"


@pytest.mark.parametrize(
    ("said", "level"), [("1.6.20~ds1", "ok"), ("v2.2.9", "ok"), ("1.4.13", "bad"), (None, "bad"), ("unknown", "ok")]
)
def test_containerds_version(tmp_path, said, level):
    """Silence and what is too old are bad; what dials for 30 s is told."""
    found = version_finding(said, tmp_path, "refused")
    assert found.level == level
    assert ("dial_timeout" in found.said) == (said in {"1.6.20~ds1", "unknown"})


def test_hosts_are_read_as_containerd_reads_them(tmp_path):
    """Nothing there, then all in order, then each way in which it may go wrong."""
    root = tmp_path / "certs.d"
    assert faults(hosts_findings([root], [AGENT])) == [("hosts", "bad")]
    write_tree(root, {"docker.io/hosts.toml": MIRROR})
    configure(Setup((root,), ("_default",), Wanted((AGENT,))))
    assert faults(hosts_findings([root], [AGENT])) == []
    write_tree(
        root,
        {
            "a.corp/hosts.toml": "[host.\n",
            "b.corp/ca.crt": "x",
            "c.corp/hosts.toml": f'[host."https://first"]\n[host."{AGENT}"]\n',
            "d.corp/hosts.toml": MIRROR,
            "e.corp/hosts.toml": f'server = "{AGENT}"\n[host."{AGENT}"]\n',
        },
    )
    found = list(hosts_findings([root], [AGENT]))
    assert faults(found) == [("hosts", "bad"), *[("hosts", "warn")] * 3]
    assert "ignores it" in found[0].said
    assert "directory of its own" in found[1].said
    assert "not at all" not in found[2].said
    assert "not at all" in found[3].said
    assert "no fallback" in found[5].said


def test_a_default_that_hides_a_later_directory_is_found(tmp_path):
    """Of `a:b`, whose `_default` stands in `a`, nothing in `b` is reached."""
    write_tree(
        tmp_path, {"a/_default/hosts.toml": f'[host."{AGENT}"]\n', "b/corp.io/hosts.toml": f'[host."{AGENT}"]\n'}
    )
    found = list(hosts_findings([tmp_path / "a", tmp_path / "b"], [AGENT]))
    assert faults(found) == [("hosts", "bad")]
    assert f"hides {tmp_path}/b/corp.io" in found[0].said


def test_a_warning_is_no_illness():
    """Only what is bad makes a node unhealthy."""
    warned = [node.port_finding(AGENT, 200, ""), node.key_finding(None, "", (0, False))]
    assert is_healthy(warned)
    assert not is_healthy([*warned, node.port_finding(AGENT, None, "refused")])


@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (None, "bad"), (403, "bad"), (502, "bad")])
def test_the_port(status, level):
    """Answered, silent, refusing, or somebody else."""
    found = node.port_finding(AGENT, status, "refused")
    assert (found.level, bool(found.todo)) == (level, level != "ok")


def test_the_agent():
    """Ready and not alone; not ready, alone and with a broken cache; silent."""
    members = [{"state": "alive"}, {"state": "alive"}, {"state": "gone"}]
    assert faults(node.agent_findings({"ready": True, "version": "1", "members": members}, "", "")) == []
    status = {"ready": False, "reasons": ["containerd is absent"], "members": members[:1], "cache": {"trouble": "full"}}
    found = list(node.agent_findings(status, "", ""))
    assert faults(found) == [("agent", "bad"), ("peers", "warn"), ("cache", "bad")]
    assert "containerd is absent" in found[0].said
    assert faults(node.agent_findings(None, "http://a", "refused")) == [("agent", "bad")]
    assert faults(node.agent_findings({}, "", "")) == [("agent", "bad"), ("peers", "warn")]


@pytest.mark.parametrize(
    ("path", "reason", "in_agent", "level"),
    [
        (None, "", (0, False), "warn"),
        (None, "", (1, False), "ok"),
        (None, "", (2, False), "ok"),
        (None, "", (1, True), "bad"),
        (None, "", None, "skip"),
        ("key", "", None, "ok"),
        ("key", "it is empty", (1, False), "bad"),
    ],
)
def test_the_key(tmp_path, path, reason, in_agent, level):
    """What the agent has counts; where it is silent, the file; where nobody knows, nothing is said."""
    assert node.key_finding(tmp_path / path if path else None, reason, in_agent).level == level


def test_what_a_node_stands_on(tmp_path):
    """Content, clock, space and limits: in order, dear, and dangerous."""
    assert node.content_finding(tmp_path, is_readable=True).level == "ok"
    assert faults([node.content_finding(tmp_path, is_readable=False)]) == [("content", "warn")]
    assert node.content_finding(None, is_readable=False).level == "skip"
    now = node.EPOCH_S + 1.0
    assert [node.clock_finding(now, is_synchronised=each).level for each in (True, None, False)] == ["ok", "ok", "warn"]
    assert faults([node.clock_finding(0.0, is_synchronised=True)]) == [("clock", "bad")]
    spaces = [Space("x", tmp_path, free, 100 * GIB) for free in (50 * GIB, 5 * GIB, GIB // 2)]
    assert [node.space_finding(each).level for each in spaces] == ["ok", "warn", "bad"]
    limits = [Limits("x"), Limits("x", 256 << 20, 1.0), Limits("x", 64 << 20), Limits("x", None, 0.1)]
    found = [each for limit in limits for each in node.limits_findings(limit)]
    assert [each.level for each in found] == ["ok", "ok", "bad", "warn"]


@pytest.mark.parametrize("form", ["unified", "older"])
def test_limits_are_those_of_the_agents_cgroup(tmp_path, form):
    """Of the process that is an agent, in both forms of cgroups; of this process where there is none."""
    unified = form == "unified"
    write_tree(
        tmp_path,
        {
            "proc/1/cmdline": "/sbin/init\0",
            "proc/40/cmdline": "/opt/bin/python3\0/opt/bin/p2pmirror\0agent\0--zone=a\0",
            "proc/40/cgroup": "0::/pod/x\n" if unified else "9:memory:/pod/x\n8:cpu,cpuacct:/pod/x\n",
            "proc/self/cgroup": "0::/\n",
            "cg/pod/x/memory.max": "134217728\n",
            "cg/pod/x/cpu.max": "50000 100000\n",
            "cg/memory/pod/x/memory.limit_in_bytes": "134217728\n",
            "cg/cpu,cpuacct/pod/x/cpu.cfs_quota_us": "50000\n",
            "cg/cpu,cpuacct/pod/x/cpu.cfs_period_us": "100000\n",
        },
    )
    found = asking.agent_limits(tmp_path / "proc", tmp_path / "cg")
    assert found == Limits("the agent's cgroup", 128 << 20, 0.5)
    (tmp_path / "proc" / "40" / "cmdline").write_text("sleep\0")
    found = asking.agent_limits(tmp_path / "proc", tmp_path / "cg")
    assert (found.memory_bytes, found.cores) == (None, None)
    assert "this command" in found.whose
    assert asking.agent_limits(tmp_path / "nowhere", tmp_path / "cg").memory_bytes is None
    write_tree(tmp_path, {"proc/self/cgroup": "9:memory:/\n", "cg/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"})
    assert asking.agent_limits(tmp_path / "proc", tmp_path / "cg").memory_bytes is None


def test_what_containerd_will_make_is_not_missing(tmp_path):
    """A content directory that is not there yet, in one that is; and one in nothing, as in a pod without the mount."""
    assert asking.is_readable(tmp_path)
    assert asking.is_readable(tmp_path / "content")
    assert not asking.is_readable(tmp_path / "io.containerd" / "content")


async def test_a_containerd_that_never_answers_is_given_up(tmp_path, autojump_clock):
    """A socket that takes the connection and says nothing: a reason, after some seconds."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        version, root, reason = await asking.ask_containerd(path, "k8s.io")
    assert (version, root) == (None, None)
    assert reason


def test_the_kernel_says_something_of_its_clock():
    """On any Linux it is one of two answers, or none; asking sets nothing."""
    assert asking.clock_is_synchronised() in {True, False, None}


def test_room_is_that_of_the_nearest_directory(tmp_path):
    """A cache that is not there yet has the room of what it will be in."""
    space = asking.space_at("the cache", tmp_path / "a" / "b")
    assert space is not None
    assert space.path == tmp_path
    assert space.total_bytes >= space.free_bytes > 0
