"""`p2pmirror cache`: images come into a directory and go out of it, beside a running agent or without one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pmirror.cli import main
from p2pmirror.oci import Descriptor, Digest, mediatype
from p2pmirror.store.cache.records import Places
from tests.cli.agents import Agent, agents, wait_for
from tests.operations.archives import directory, layout, saved, tar
from tests.store.images import Image, make_image

IMAGE = make_image("registry.example/app:v1", layer_bytes=(3000, 70_000))
OTHER = make_image("registry.example/other:v1", seed=3, layer_bytes=(5000,))
NAME = "registry.example/app:v1"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(cache: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", *arguments, "--cache-dir", str(cache)])


def said(cache: Path, *arguments: str, code: int = 0) -> dict:
    """Run with --json and return what it printed."""
    result = run(cache, *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def add(cache: Path, tmp_path: Path) -> None:
    for image in (IMAGE, OTHER):
        path = tar(tmp_path / "image.tar", layout(image))
        assert run(cache, "add", str(path)).exit_code == 0


@pytest.mark.parametrize("name", ["add", "list", "remove", "verify"])
def test_each_has_help_with_an_example(name: str) -> None:
    """`--help` of each ends well and shows a line that can be copied."""
    result = CliRunner().invoke(main, ["cache", name, "--help"])
    assert result.exit_code == 0
    assert f"p2pmirror cache {name}" in result.output
    assert "Example:" in result.output


def test_added_images_are_listed(cache: Path, tmp_path: Path) -> None:
    """What was added is listed by tag, with sizes, ages, uses and pins, for people and as JSON."""
    add(cache, tmp_path)
    path = directory(tmp_path / "layout", layout(IMAGE))
    brought = said(cache, "add", str(path), "--name", "quay.io/org/app", "--pin")
    assert brought["added"][0]["images"] == [{"digest": str(IMAGE.root.digest), "tags": ["quay.io/org/app:latest"]}]
    assert brought["added"][0]["new_blobs"] == 0
    held = said(cache, "list")
    assert [each["name"] for each in held["tags"]] == ["quay.io/org/app:latest", NAME, str(OTHER.tags[0])]
    assert held["pins"] == ["quay.io/org/app:latest"]
    assert [each["pinned"] for each in held["tags"]] == [True, True, False]
    sizes = sum(len(data) for data, _ in {**IMAGE.content, **OTHER.content}.values())
    assert held["bytes"] == sum(each["bytes"] for each in held["blobs"]) == sizes
    assert all(each["age_s"] < 60 and each["used_s"] < 60 for each in (*held["tags"], *held["blobs"]))
    text = run(cache, "list", "--blobs").output
    assert "3 tags, " in text
    assert all(str(digest) in text for digest in IMAGE.content)


def test_several_archives_of_which_one_is_bad(cache: Path, tmp_path: Path) -> None:
    """A bad archive is told on stderr and does not keep the others out; the exit code says that it was a part."""
    good, bad = tar(tmp_path / "good.tar", saved()), tar(tmp_path / "bad.tar", {"readme": b"x"})
    result = run(cache, "add", str(bad), str(good))
    assert result.exit_code == 3
    assert "neither an OCI image layout" in result.stderr
    assert "docker.io/library/nginx:1.27" in result.stdout
    told = said(cache, "add", str(bad), code=1)
    assert (told["added"], [each["source"] for each in told["failed"]]) == ([], [str(bad)])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "/No Such File"], "no such file"),
        (["add", "nginx:1.27", "--name", "a"], "one archive"),
        (["add"], "Missing argument"),
        (["add", ".", "--name", "a/b@sha256:" + "0" * 64], "tag"),
        (["add", ".", "--name", "Not A Name"], "name"),
        (["add", ".", ".", "--name", "a"], "one archive"),
        (["add", ".", "--cache-max-bytes", "much"], "512Mi"),
        (["remove", "sha256:12"], "sha256"),
        (["remove", "Not A Name"], "name"),
    ],
)
def test_mistakes_in_the_call(arguments: list[str], says: str, cache: Path) -> None:
    """A mistake in the call is exit code 2 and one that can be mended; nothing is made."""
    result = run(cache, *arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert not cache.exists()


def test_without_a_directory() -> None:
    """The directory is named by the flag or by the agent's variable; without either it is a mistake in the call."""
    assert CliRunner().invoke(main, ["cache", "list"], env={"P2PMIRROR_CACHE_DIR": ""}).exit_code == 2


def test_a_directory_from_the_environment(cache: Path) -> None:
    """An empty cache, also one that is not there yet, is listed as such."""
    result = CliRunner().invoke(main, ["cache", "list"], env={"P2PMIRROR_CACHE_DIR": str(cache)})
    assert (result.exit_code, result.output) == (0, "no tags, no blobs, 0 B\n")


def test_no_room(cache: Path, tmp_path: Path) -> None:
    """An archive that is larger than the cache may be is told so, and nothing was kept."""
    result = run(cache, "add", str(tar(tmp_path / "a.tar", layout(IMAGE))), "--cache-max-bytes", "50Ki")
    assert result.exit_code == 1
    assert "the cache may have" in result.stderr
    assert said(cache, "list")["blobs"] == []


def test_removing(cache: Path, tmp_path: Path) -> None:
    """A tag goes with what it alone needs, a blob by its digest; what is not there is exit code 3, or 1 for nothing."""
    add(cache, tmp_path)
    gone = said(cache, "remove", NAME, str(OTHER.layers[0]), "registry.example/none:v1", code=3)
    assert {Digest.parse(each) for each in gone["removed"]} == {*IMAGE.content, OTHER.layers[0]}
    assert gone["absent"] == ["registry.example/none:v1"]
    held = said(cache, "list")
    assert [each["name"] for each in held["tags"]] == [str(OTHER.tags[0])]
    assert {each["digest"] for each in held["blobs"]} == {str(each) for each in OTHER.content} - {str(OTHER.layers[0])}
    result = run(cache, "remove", NAME)
    assert result.exit_code == 1
    assert "is not in" in result.stderr


def test_verifying(cache: Path, tmp_path: Path) -> None:
    """Wrong bytes are found and told with exit code 3, and removed when that is asked for; then all is well."""
    add(cache, tmp_path)
    count = len({**IMAGE.content, **OTHER.content})
    assert said(cache, "verify") == {"verified": count, "wrong": [], "removed": False}
    path = Places(cache).blob(IMAGE.layers[1])
    path.write_bytes(bytes(path.stat().st_size))
    short = Places(cache).blob(IMAGE.layers[0])
    os.truncate(short, 10)
    told = said(cache, "verify", code=3)
    assert told["wrong"] == sorted(map(str, IMAGE.layers))
    assert path.exists()
    assert "is wrong (removed)" in run(cache, "verify", "--remove").output
    assert not path.exists()
    assert not short.exists()
    assert said(cache, "verify")["verified"] == count - 2


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """What cannot be written is one line and exit code 1."""
    (tmp_path / "file").write_bytes(b"")
    result = run(tmp_path / "file" / "cache", "add", str(tar(tmp_path / "a.tar", layout(IMAGE))))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64", "all"])
def test_an_image_pulled_through_an_agent(platform: str, cache: Path, tmp_path: Path) -> None:
    """An image is pulled through a running agent, for one platform or for all; again nothing comes; a pin holds it."""
    machine = {"linux/amd64": [0], "linux/arm64": [1], "all": [0, 1]}[platform]
    image = _of_two_platforms()
    directory(tmp_path / "layout", layout(image))
    with agents() as start:
        agent = start(store=f"oci-layout:{tmp_path / 'layout'}")
        agent.running()
        agent.wait_ready()
        options = ("--agent", f"http://{agent.host}:29999", "--platform", platform)
        brought = said(cache, "add", NAME, *options, "--pin")["added"][0]
        assert brought["images"] == [{"digest": str(image.root.digest), "tags": [NAME]}]
        held = {each["digest"]: each for each in said(cache, "list")["blobs"]}
        manifests = [digest for digest, (_, kind) in image.content.items() if kind == mediatype.OCI_MANIFEST]
        assert {str(digest) for digest in image.layers} <= set(held)
        assert [str(digest) in held for digest in manifests] == [number in machine for number in (0, 1)]
        assert all(each["pinned"] and each["names"] == ["registry.example/app"] for each in held.values())
        assert all(each["media_type"] == image.content[Digest.parse(digest)][1] for digest, each in held.items())
        assert said(cache, "add", NAME, *options)["added"][0]["new_bytes"] == 0
        assert said(cache, "verify")["wrong"] == []
        failed = run(cache, "add", "registry.example/none:v1", NAME, *options)
        assert (failed.exit_code, "404" in failed.stderr) == (3, True)
    gone = run(cache, "add", NAME, *options)
    assert (gone.exit_code, "no agent answers" in gone.stderr) == (1, True)


def _of_two_platforms() -> Image:
    """Return an image whose index says which manifest is for which machine."""
    image = make_image(NAME, layer_bytes=(3000, 70_000))
    manifests = [digest for digest, (_, kind) in image.content.items() if kind == mediatype.OCI_MANIFEST]
    entries = [
        {
            "mediaType": mediatype.OCI_MANIFEST,
            "digest": str(digest),
            "size": len(image.content[digest][0]),
            "platform": {"os": "linux", "architecture": machine},
        }
        for digest, machine in zip(manifests, ("amd64", "arm64"), strict=True)
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}).encode()
    content = {digest: each for digest, each in image.content.items() if digest != image.root.digest}
    root = Descriptor(mediatype.OCI_INDEX, Digest.of(index), len(index))
    return Image(root, {**content, root.digest: (index, root.media_type)}, image.tags, layers=image.layers)


def answers(agent: Agent, path: str) -> int:
    """Ask after a moment: each question is a line in the agent's log, which nobody reads meanwhile."""
    time.sleep(0.2)
    return agent.get(path)[0]


def test_a_running_agent_follows(cache: Path, tmp_path: Path) -> None:
    """A running agent serves within seconds what was added, by tag and digest, and no more what was removed."""
    with agents() as start:
        agent = start(cache_dir=str(cache))
        agent.running()
        agent.wait_ready()
        path = f"/v2/app/manifests/v1?ns={IMAGE.tags[0].registry}"
        assert agent.get(path)[0] == 404
        archive = tar(tmp_path / "a.tar", layout(IMAGE))
        command = [sys.executable, "-m", "p2pmirror", "cache", "add", str(archive), "--cache-dir", str(cache)]
        subprocess.run(command, check=True, capture_output=True)
        wait_for(lambda: answers(agent, path) == 200)
        assert agent.get(path)[1] == IMAGE.content[IMAGE.root.digest][0]
        blob = f"/v2/app/blobs/{IMAGE.layers[1]}?ns=registry.example"
        assert agent.get(blob) == (200, IMAGE.content[IMAGE.layers[1]][0])
        status = json.loads(agent.get("/api/v1/status", port=9090)[1])
        assert status["cache"]["bytes"] == sum(len(data) for data, _ in IMAGE.content.values())
        assert status["cache"]["max_bytes"] == 20 * 2**30
        assert status["cache"]["free_bytes"] > 0
        assert said(cache, "remove", NAME)["absent"] == []
        wait_for(lambda: answers(agent, path) == 404)
        assert agent.get(blob)[0] == 404
        shutil.rmtree(cache)
        subprocess.run(command, check=True, capture_output=True)
        wait_for(lambda: answers(agent, path) == 200)
