"""`p2pmirror agent` as a process: how it starts, what it says, how it stops, and what it does with wrong settings."""

import json
import signal
import socket
import time

import pytest
from click.testing import CliRunner

from p2pmirror.cli import agent as agent_module
from p2pmirror.cli import main
from p2pmirror.config import SETTINGS
from tests.cli.agents import Download, agents, refuses, wait_for, write_image
from tests.store.images import make_image

IMAGE = make_image(layer_bytes=(3_000_000,))
LAYER = IMAGE.layers[0]
DATA = IMAGE.content[LAYER][0]
BLOB = f"/v2/app/blobs/{LAYER}?ns=registry.example"
MODERATE = "2000000"  # bytes per second: the layer takes 1.5 s
SLOW = "100000"  # the layer takes 30 s


@pytest.fixture
def start():
    with agents() as starting:
        yield starting


@pytest.fixture
def layout(tmp_path):
    write_image(tmp_path / "images", IMAGE)
    return f"oci-layout:{tmp_path / 'images'}"


def test_it_says_where_it_runs_and_stops(start, layout):
    """One JSON line tells that it runs and where; it is ready, serves, and ends with 0 and a line after SIGTERM."""
    agent = start(store=layout, zone="z1")
    said = agent.running()
    assert said["registry"] == f"{agent.host}:29999"
    assert said["router"] == f"{agent.host}:29998"
    assert said["observability"] == f"{agent.host}:9090"
    assert (said["zone"], len(said["node_id"])) == ("z1", 40)
    agent.wait_ready()
    assert agent.get(BLOB) == (200, DATA)
    agent.signal()
    code, lines = agent.end()
    assert code == 0
    events = [json.loads(line)["event"] for line in lines]
    assert (events[-2:], sum(event == "agent.running" for event in events)) == (["agent.stopping", "agent.stopped"], 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_download_is_finished(start, layout, number):
    """After a signal it is not ready, refuses new connections, finishes what runs, and then ends with 0."""
    agent = start(store=layout, upload_rate_max=MODERATE)
    agent.running()
    agent.wait_ready()
    download = Download(agent, BLOB)
    agent.signal(number)
    agent.event("agent.stopping")
    assert agent.ready() == (503, "the agent is stopping\n")
    wait_for(lambda: refuses(agent))
    assert agent.process.poll() is None
    assert download.rest() == DATA
    assert agent.end()[0] == 0


def test_a_second_signal_ends_it_at_once(start, layout):
    """The second signal cuts what runs, with a FIN short of its length, and the exit code is 1."""
    agent = start(store=layout, upload_rate_max=SLOW)
    agent.running()
    agent.wait_ready()
    download = Download(agent, BLOB)
    agent.signal()
    agent.event("agent.stopping")
    agent.signal()
    begun = time.monotonic()
    code, lines = agent.end()
    assert time.monotonic() - begun < 5
    assert code == 1
    assert not any("Traceback" in line for line in lines)
    assert outcomes(lines) == ["cut"]
    rest = download.rest()
    assert len(rest) < len(DATA)
    assert DATA.startswith(rest)


def test_a_download_beyond_the_grace_is_cut(start, layout):
    """What is not finished within shutdown_grace is cut with a FIN, and logged as cut; the exit code is 0."""
    agent = start(store=layout, upload_rate_max=SLOW, shutdown_grace="500ms")
    agent.running()
    agent.wait_ready()
    download = Download(agent, BLOB)
    agent.signal()
    begun = time.monotonic()
    rest = download.rest()
    assert DATA.startswith(rest)
    assert len(rest) < len(DATA)
    code, lines = agent.end()
    assert (code, outcomes(lines)) == (0, ["cut"])
    assert 0.4 < time.monotonic() - begun < 6


def outcomes(lines):
    """How each request for a blob that a line of the log tells of has ended."""
    entries = [json.loads(line) for line in lines]
    return [entry["outcome"] for entry in entries if entry["event"] == "request" and entry["bytes"] > 0]


@pytest.mark.parametrize("key", ["registry_addr", "router_addr", "observability_addr"])
def test_a_port_in_use(start, key):
    """A port that somebody has is one line that names the setting, and exit code 2."""
    kind = socket.SOCK_DGRAM if key == "router_addr" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, lines = start(**{key: address}).end()
    assert code == 2
    assert lines == [
        f"p2pmirror agent: {key} = '{address}': allowed: an address that can be listened on (Address already in use)"
    ]


def test_the_node_id_is_kept(start, tmp_path):
    """With a data directory a node is the same after a restart; without one it is another each time."""
    ids = []
    for settings in ({"data_dir": str(tmp_path / "new" / "data")},) * 2 + ({},) * 2:
        agent = start(**settings)
        ids.append(agent.running()["node_id"])
        agent.signal()
        assert agent.end()[0] == 0
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("broken", ["short", "long", "directory", "file above"])
def test_a_broken_node_id(start, tmp_path, broken):
    """An id that cannot be read, or is none, is one line that names the setting and the file, and exit code 2."""
    data_dir = tmp_path / "data"
    if broken == "file above":
        data_dir.write_text("no directory")
    else:
        data_dir.mkdir()
        path = data_dir / "node-id"
        path.mkdir() if broken == "directory" else path.write_bytes(b"x" * (3 if broken == "short" else 999))
    code, lines = start(data_dir=str(data_dir)).end()
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"p2pmirror agent: data_dir = '{data_dir}': allowed: a directory")


def test_containerd_comes_later(start, tmp_path):
    """Without its containerd an agent runs, says what it waits for, and answers containerd's questions with 404."""
    sock = tmp_path / "containerd.sock"
    agent = start(store="containerd", containerd_sock=str(sock))
    agent.running()
    wait_for(lambda: str(sock) in agent.ready()[1])
    assert agent.ready()[0] == 503
    begun = time.monotonic()
    for path in (BLOB, f"/v2/app/manifests/{IMAGE.root.digest}?ns=docker.io", "/v2/library/nginx/manifests/1"):
        status, body = agent.get(path)
        assert status == 404
        assert json.loads(body)["errors"][0]["code"].endswith("_UNKNOWN")
    assert time.monotonic() - begun < 3
    assert agent.get("/v2/")[0] == 200
    assert not any("Traceback" in line for line in agent.lines)


def test_settings_come_from_file_environment_and_flag(start, tmp_path):
    """A flag wins over the environment, and that over the file."""
    file = tmp_path / "settings.toml"
    file.write_text('zone = "file"\nlog_level = "debug"\nlog_format = "text"\ndata_dir = "%s"\n' % (tmp_path / "id"))
    environment = {"P2PMIRROR_CONFIG": str(file), "P2PMIRROR_ZONE": "environment", "P2PMIRROR_LOG_FORMAT": "json"}
    agent = start(environment=environment, zone="flag")
    assert agent.running()["zone"] == "flag"
    assert (tmp_path / "id" / "node-id").stat().st_size == 20
    other = start("--config", str(file), environment={"P2PMIRROR_ZONE": "environment"}, log_format="json")
    assert other.running()["zone"] == "environment"


def test_a_pull_with_errors_is_one_line_a_request(start, layout):
    """Pulls, misses and nonsense: each request is one JSON line on stderr, and none is a traceback."""
    agent = start(store=layout)
    agent.running()
    agent.wait_ready()
    for path in (BLOB, f"/v2/app/manifests/{IMAGE.root.digest}?ns=registry.example", "/v2/app/manifests/v1"):
        agent.get(path)
    for path in ("/v2/App/manifests/v1", "/v2/app/blobs/sha256:00", "/%00", "/v2/app/blobs/..%2f..%2fetc?ns=%0a"):
        agent.get(path)
    agent.get(BLOB, headers={"Range": "bytes=9999999999-"})
    with socket.create_connection((agent.host, 29999)) as client:
        client.sendall(b"\x16\x03\x01\x02\x00 TLS\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 4")
    agent.signal()
    _, lines = agent.end()
    entries = [json.loads(line) for line in lines]
    requests = [entry for entry in entries if entry["event"] == "request"]
    assert [entry["status"] for entry in requests] == [200, 200, 404, 400, 400, 404, 404, 416]
    assert not any("exception" in entry for entry in entries)


WRONG = [
    ("registry_addr", "x"),
    ("registry_addr", "127.0.0.1:70000"),
    ("registry_addr", "fe80::1%lo:5"),
    ("router_addr", "localhost:29998"),
    ("observability_addr", "٣:٣"),
    ("advertise_addr", "0.0.0.0"),
    ("advertise_addr", "a.name"),
    ("advertise_addr", "fe80::1%eth0"),
    ("zone", "z" * 64),
    ("zone", "two\nlines"),
    ("store", "docker"),
    ("store", "oci-layout:"),
    ("containerd_sock", ""),
    ("containerd_namespace", "../x"),
    ("bootstrap", "static:"),
    ("bootstrap", "10.0.0.7"),
    ("bootstrap", "https://10.0.0.7/api/v1/peers"),
    ("bootstrap", "file:"),
    ("mirror_resolve_timeout", "30"),
    ("mirror_resolve_retries", "0"),
    ("resolve_tags", "yes"),
    ("filters", "("),
    ("filters", "a{99999999999}"),
    ("bootstrap", "static:\0"),
    ("registry_addr", "[fe80::1%lo]:5"),
    ("fallback", "1"),
    ("default_registry", "a b"),
    ("registries_only", ""),
    ("registries", "ghcr.io,a b"),
    ("upload_rate_max", "-1"),
    ("shutdown_grace", "soon"),
    ("log_level", "LOUD"),
    ("log_format", "xml"),
    ("config", "/nonexistent/settings.toml"),
    ("config", "/"),
]


@pytest.fixture
def no_run(monkeypatch):
    """Let a command that takes its settings end at once with 0, in place of an agent in this process."""

    async def end(config):
        return True

    monkeypatch.setattr(agent_module, "_run", end)


@pytest.mark.parametrize(("key", "text"), WRONG)
def test_a_wrong_setting(no_run, key, text):
    """A setting that cannot be is one line on stderr that names key, value and what is allowed; exit code 2."""
    result = CliRunner().invoke(main, ["agent", f"--{key.replace('_', '-')}", text])
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"p2pmirror agent: {key} = ")
    assert ": allowed: " in lines[0]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('data_dir = "a\\u0000b"', "data_dir"),
        ('store = "oci-layout:\\u0000"', "store"),
        ('containerd_sock = "\\u0000"', "containerd_sock"),
        ("zone = 1.5", "zone"),
        ("registries = [1]", "registries"),
        ("[[registries]]\nurl = 5", "registries"),
        ('colour = "blue"', "colour"),
        ("zone = ", "config"),
        ("a = " + "[" * 5000, "config"),
    ],
)
def test_a_wrong_settings_file(no_run, tmp_path, text, key):
    """A file with something that cannot be is one line that names it; exit code 2."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    result = CliRunner().invoke(main, ["agent", "--config", str(file)])
    assert result.exit_code == 2, result.exception
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"p2pmirror agent: {key} = ")


def test_help_lists_every_setting():
    """--help names each flag with what it is for, the exit codes, and an example."""
    result = CliRunner().invoke(main, ["agent", "--help"])
    assert result.exit_code == 0
    for setting in SETTINGS:
        assert f"{setting.flag} VALUE" in result.output
    for said in ("Exit codes:", "Example:", "--config FILE", "P2PMIRROR_", "SIGTERM"):
        assert said in result.output
