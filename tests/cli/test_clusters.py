"""Agents that find one another by a file and by a URL, and what the commands then say of them."""

import json
import subprocess
import sys

import pytest

from tests.cli.agents import agents, wait_for, write_image
from tests.store.images import make_image

IMAGE = make_image(layer_bytes=(1000,))
REF = f"{IMAGE.tags[0]}"


@pytest.fixture
def start():
    with agents() as starting:
        yield starting


def command(agent, *arguments):
    """Run `p2pmirror` against an agent; return its exit code and what it printed."""
    argv = [sys.executable, "-m", "p2pmirror", *arguments, "--agent", f"http://{agent.host}:9090"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def alive(agent):
    members = json.loads(agent.get("/api/v1/members", port=9090)[1])["members"]
    return sum(member["state"] == "alive" for member in members)


def test_a_file_that_appears_and_a_url_make_one_cluster(start, tmp_path):
    """An agent whose file comes later and one that asks another's URL know all three; `find` says who has it."""
    write_image(tmp_path / "images", IMAGE)
    seed = start(store=f"oci-layout:{tmp_path / 'images'}", zone="a")
    seed.running()
    peers = tmp_path / "peers"
    by_file = start(bootstrap=f"file:{peers}", zone="b")
    by_file.running()
    assert alive(by_file) == 1
    by_url = start(bootstrap=f"http://{seed.host}:9090", zone="b")
    by_url.running()
    peers.write_text(f"# the first\n{seed.host}  # port 29998\nno host at all\n")
    wait_for(lambda: [alive(agent) for agent in (seed, by_file, by_url)] == [3, 3, 3])
    wait_for(lambda: command(by_url, "find", REF)[0] == 0)

    code, said = command(by_url, "find", REF, "--trace")
    assert code == 0, said
    assert f"{seed.host}:29999" in said
    assert "the way of a look-up that asks every holder: " in said
    assert f"{seed.host}:29998" in said
    way = json.loads(command(by_url, "find", REF, "--trace", "--json")[1])["trace"]
    assert 0 <= way["seconds"] < 5
    assert sum(step["records"] for step in way["steps"]) >= 1
    assert all(step["answered_s"] is None or step["answered_s"] >= step["asked_s"] >= 0 for step in way["steps"])

    code, said = command(by_file, "status")
    assert code == 0, said
    assert "3 members: 3 alive" in said
    assert f"{by_url.host}:29999" in said
    assert json.loads(command(seed, "status", "--json")[1])["records"] >= 1
    by_file.signal()
    _, lines = by_file.end()
    [warned] = [text for text in lines if f"bootstrap file {peers} is read without" in text]
    assert "line 3 ('no host at all' is no host with a port)" in warned
