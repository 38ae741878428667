"""`status` and `find` against an agent that answers well, badly, or not at all."""

import copy
import json
import socket

import pytest
from click.testing import CliRunner

from p2pmirror.cli import main
from tests.cli.answering import answering

NODE = "4f" * 20
PEER = "a0" * 20
DIGEST = "sha256:" + "0d" * 32

STATUS = {
    "node_id": NODE,
    "version": "0.1.0",
    "ready": True,
    "reasons": [],
    "members": [
        {"node_id": NODE, "address": "10.0.0.1:29999", "zone": "", "state": "alive", "last_seen_s": 0.0},
        {"node_id": PEER, "address": "10.0.0.2:29999", "zone": "b", "state": "suspect", "last_seen_s": 3.2},
    ],
    "held": {"blobs": 12, "tags": 2, "bytes": 5 << 30},
    "cache": {"bytes": 0, "max_bytes": 0, "free_bytes": 0},
    "transfers": [
        {
            "digest": DIGEST,
            "name": "docker.io/library/nginx",
            "size": 64 << 20,
            "sent_bytes": 32 << 20,
            "peer": PEER,
            "resumes": 1,
            "seconds": 2.5,
        }
    ],
    "hit_ratio": 0.5,
}
FOUND = {
    "key": "00" * 20,
    "subject": DIGEST,
    "seconds": 0.0021,
    "providers": [{"node_id": PEER, "address": "10.0.0.2:29999", "zone": "", "complete": True, "leading": False}],
    "held": False,
}


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_status_tells_what_the_agent_said():
    """Node, readiness, what is held, members and transfers are all there, this node named as itself."""
    with answering((200, STATUS)) as (url, asked):
        result = run("status", "--agent", url)
    assert result.exit_code == 0
    assert asked == ["/api/v1/status"]
    for shown in (
        NODE,
        "12 blobs, 2 tags, 5.00 GiB",
        "50%",
        "this node",
        "suspect",
        "3.2 s ago",
        "50%   32.0 MiB of 64.0 MiB  -     10.0.0.2:29999",
    ):
        assert shown in result.output, shown


def test_status_lists_the_sources_of_a_transfer():
    """Where there are several each has a line with its address or the registry's name, and its bytes."""
    sources = [
        {"peer": PEER, "registry": None, "bytes": 20 << 20},
        {"peer": None, "registry": "docker.io", "bytes": 10 << 20},
        {"peer": "cd" * 20, "registry": None, "bytes": 2 << 20},
    ]
    transfer = {**STATUS["transfers"][0], "sources": sources, "rate": 12 << 20}
    with answering((200, {**STATUS, "transfers": [transfer]})) as (url, _):
        lines = run("status", "--agent", url).output.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("1 running transfer"))
    columns = [line.split("  ") for line in lines[at + 1 :]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in columns] == [
        ["DIGEST", "NAME", "DONE", "SENT", "RATE", "FROM", "RESUMES", "FOR"],
        [
            "sha256:" + DIGEST[7:19],
            "docker.io/library/nginx",
            "50%",
            "32.0 MiB of 64.0 MiB",
            "12.0 MiB/s",
            "3 sources",
            "1",
            "2.5 s",
        ],
        ["20.0 MiB", "10.0.0.2:29999"],
        ["10.0 MiB", "docker.io"],
        ["2.00 MiB", "cd" * 6],
    ]


def test_status_says_why_an_agent_is_not_ready():
    """The reasons stand beside `no`; asking succeeded all the same."""
    status = {**STATUS, "ready": False, "reasons": ["containerd is absent"], "hit_ratio": None, "transfers": []}
    with answering((200, status)) as (url, _):
        result = run("status", "--agent", url)
    assert result.exit_code == 0
    assert "no: containerd is absent" in result.output


def test_status_tells_of_the_cache_and_of_registries():
    """What troubles the cache, what it answered, what was saved, which registries were asked, and whose bytes come."""
    trouble = "cannot write /cache: Read-only file system"
    cache = {"bytes": 1 << 20, "max_bytes": 1 << 30, "free_bytes": 1 << 30, "trouble": trouble, "hits": 7, "misses": 2}
    registry = {"mode": "through", "rests_s": 0.0, "quota_left": None}
    registries = [
        {**registry, "name": "docker.io", "asked": True, "reachable": True, "quota_left": 76},
        {**registry, "name": "ghcr.io", "asked": True, "reachable": False, "rests_s": 12.0},
        {**registry, "name": "quay.io", "asked": False, "reachable": True},
    ]
    transfer = {**STATUS["transfers"][0], "peer": None, "registry": "docker.io", "source": "upstream"}
    status = {**STATUS, "cache": cache, "registries": registries, "transfers": [transfer], "saved_bytes": 3 << 20}
    with answering((200, status)) as (url, _):
        output = run("status", "--agent", url).output
    for shown in (
        "1.00 MiB of 1.00 GiB, 1.00 GiB free on the disk; answered 7 requests, not 2 others",
        f"in trouble, it keeps nothing new: {trouble}",
        "saved      3.00 MiB sent to clients here that no registry had to send",
        "docker.io  reachable    -              76",
        "ghcr.io    unreachable  12 s           -",
        "1 more: not asked yet",
        "32.0 MiB of 64.0 MiB  -     docker.io",
    ):
        assert shown in output, (shown, output)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (None, "no request for an image yet"),
        (0.0, "0%: no peer had what was asked for, nor did this node"),
        (0.999, "99% of the requests for images were answered from here or from a peer"),
    ],
)
def test_status_tells_a_quiet_agent_from_one_that_could_not_help(ratio, said):
    """No request, none that was answered, and nearly all of them answered are told apart; so is holding nothing."""
    held = {"blobs": 0, "tags": 0, "bytes": 0}
    with answering((200, {**STATUS, "hit_ratio": ratio, "held": held, "transfers": []})) as (url, _):
        output = run("status", "--agent", url).output
    assert f"hit ratio  {said}\n" in output
    assert "held       nothing\n" in output
    assert "no running transfers" in output


@pytest.mark.parametrize(("command", "answer"), [(["status"], STATUS), (["find", DIGEST], FOUND)])
def test_json_is_what_the_agent_said(command, answer):
    """`--json` prints the agent's object as it came, on one line."""
    with answering((200, answer)) as (url, _):
        result = run(*command, "--agent", url, "--json")
    assert json.loads(result.stdout) == answer
    assert result.stdout.count("\n") == 1


def test_foreign_text_cannot_move_the_cursor():
    """Names and zones from other nodes are shown without control characters."""
    status = copy.deepcopy(STATUS)
    status["members"][1]["zone"] = "\x1b[2Jevil\nline"
    with answering((200, status)) as (url, _):
        output = run("status", "--agent", url).output
    assert "\x1b" not in output
    assert "?[2Jevil?line" in output


def test_find_names_the_holders():
    """The providers are listed, and finding somebody is exit code 0."""
    with answering((200, FOUND)) as (url, asked):
        result = run("find", DIGEST, "--agent", url)
    assert result.exit_code == 0
    assert asked == [f"/api/v1/find?digest={DIGEST.replace(':', '%3A')}"]
    assert "1 other node has it" in result.output
    assert "10.0.0.2:29999" in result.output


def test_find_shows_what_a_tag_stands_for():
    """The claims of a tag's providers are shown beside them; the reference goes to the agent as it was written."""
    claim = {"digest": DIGEST, "media_type": "a/b", "size": 1, "age_s": 1.0, "confirmed": True}
    found = {**FOUND, "subject": "docker.io/library/nginx:1", "providers": [{**FOUND["providers"][0], "claim": claim}]}
    with answering((200, found)) as (url, asked):
        result = run("find", "nginx:1", "--agent", url)
    assert asked == ["/api/v1/find?ref=nginx%3A1"]
    assert DIGEST in result.output


def test_find_without_holders_fails():
    """Nobody has it: exit code 1, with the same JSON as ever."""
    with answering(*[(200, {**FOUND, "providers": []})] * 2) as (url, _):
        told = run("find", DIGEST, "--agent", url)
        assert told.exit_code == 1
        assert "nobody has it; the answer took" in told.output
        result = run("find", DIGEST, "--agent", url, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["providers"] == []


def test_find_succeeds_when_only_the_asked_agent_has_it():
    """What this node itself holds is had by somebody."""
    with answering((200, {**FOUND, "providers": [], "held": True})) as (url, _):
        result = run("find", DIGEST, "--agent", url)
    assert result.exit_code == 0
    assert "only the agent that was asked has it" in result.output


@pytest.mark.parametrize("what", ["sha256:zz", "a:b:c", "", "UPPER/CASE//x"])
def test_what_is_no_name_is_a_usage_error(what):
    """A reference or digest that cannot be is refused before anybody is asked."""
    assert run("find", what).exit_code == 2


def test_nobody_listens():
    """An agent that does not answer is one line on stderr and exit code 1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = run("status", "--agent", f"http://127.0.0.1:{sock.getsockname()[1]}")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: no agent answers at http://127.0.0.1:")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, {"error": "too many"}), "503: too many"),
        ((404, b"no such page\n"), "404: no such page"),
        ((200, b"[]"), "200"),
    ],
)
def test_a_wrong_answer_is_one_line(answer, said):
    """Errors of an agent, and servers that are no agents, are told in one line."""
    with answering(answer) as (url, _):
        result = run("status", "--agent", url)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_address_that_is_none_is_a_usage_error():
    """`--agent` without http:// is exit code 2, and says what an address looks like."""
    result = run("status", "--agent", "10.0.0.1:9090")
    assert result.exit_code == 2
    assert "http://127.0.0.1:9090" in result.stderr


def test_status_counts_the_records_it_keeps():
    """What is kept for others is a line of its own; an older agent, which says nothing of it, has none."""
    with answering((200, {**STATUS, "records": 1234}), (200, STATUS)) as (url, _):
        assert "records    1234 records of who has what" in run("status", "--agent", url).output
        assert "records" not in run("status", "--agent", url).output


def many_members(count):
    def member(number):
        state = "gone" if number % 100 == 99 else "suspect" if number % 50 == 1 else "alive"
        own = {"node_id": f"{number:040x}", "address": f"10.0.{number // 250}.{number % 250}:29999"}
        return {**own, "zone": ("", "a\x1b[2J", "b")[number % 3], "state": state, "last_seen_s": 1.0}

    return [member(number) for number in range(count)]


def test_status_of_a_large_cluster_is_a_summary():
    """Hundreds of members: counted by state and zone, the first ones listed; `--all` lists every one."""
    status = {**STATUS, "members": many_members(300), "transfers": []}
    with answering(*[(200, status)] * 2) as (url, _):
        short = run("status", "--agent", url).output
        long = run("status", "--agent", url, "--all").output
    assert "300 members: 291 alive, 6 suspect, 3 gone\n" in short
    counted = "ZONE   ALIVE  SUSPECT  GONE  ALL\n-         97        2     1  100\na?[2J     97        2     1  100\n"
    assert counted in short
    assert "\x1b" not in short + long
    assert "the first 20 of 300; --all lists every one" in short
    assert (short.count(":29999"), long.count(":29999")) == (20, 300)
    assert "10.0.1.49:29999" in long
    assert len(short.splitlines()) < 45


def test_status_of_very_many_zones_is_bounded():
    """A zone is what a node says: however many there are, the largest are shown and the others counted."""
    members = [{**each, "zone": f"zone-{number}"} for number, each in enumerate(many_members(300))]
    with answering((200, {**STATUS, "members": members, "transfers": []})) as (url, _):
        output = run("status", "--agent", url).output
    assert "and 280 more zones" in output
    assert len(output.splitlines()) < 60


WAY = {
    "seconds": 0.0031,
    "steps": [
        {
            "hop": 0,
            "node_id": NODE,
            "address": "10.0.0.1:29998",
            "asked_s": 0.0,
            "answered_s": 0.0,
            "records": 0,
            "closer": 2,
        },
        {
            "hop": 1,
            "node_id": PEER,
            "address": "10.0.0.2:29998",
            "asked_s": 0.0,
            "answered_s": 0.0012,
            "records": 1,
            "closer": 3,
        },
        {
            "hop": 2,
            "node_id": "b1" * 20,
            "address": "10.0.0.3:29998",
            "asked_s": 0.0015,
            "answered_s": None,
            "records": 0,
            "closer": 0,
        },
    ],
    "holders": [PEER, NODE],
}


def test_find_shows_the_way():
    """`--trace`: who was asked, in which hop, when, how long the answer took and what it was, or that none came."""
    with answering(*[(200, {**FOUND, "trace": WAY})] * 2) as (url, asked):
        output = run("find", DIGEST, "--trace", "--agent", url).output
        as_json = run("find", DIGEST, "--trace", "--agent", url, "--json")
    assert all(target.endswith("&trace=1") for target in asked)
    assert json.loads(as_json.stdout)["trace"] == WAY
    assert "2 other nodes asked, 1 answered, 2 holders, 3.1 ms" in output
    rows = [" ".join(line.split()) for line in output.splitlines()]
    assert "0 4f4f4f4f4f4f 10.0.0.1:29998 0 ms this node no records, 2 closer nodes; a holder" in rows
    assert "1 a0a0a0a0a0a0 10.0.0.2:29998 0 ms 1.2 ms 1 record, 3 closer nodes; a holder" in rows
    assert "2 b1b1b1b1b1b1 10.0.0.3:29998 1.5 ms - silent" in rows


@pytest.mark.parametrize("answer", [FOUND, {**FOUND, "trace": None}, {**FOUND, "trace": {**WAY, "steps": []}}])
def test_find_without_a_way(answer):
    """An older agent, a look-up that took too long and one that asked nobody are said, and are no failure."""
    with answering((200, answer)) as (url, _):
        result = run("find", DIGEST, "--trace", "--agent", url)
    assert result.exit_code == 0
    assert "did not tell a way" in result.output or "no other nodes asked, 0 answered" in result.output
