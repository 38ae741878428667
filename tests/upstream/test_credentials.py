"""Promises of where a login comes from: files that change, files that are broken, and helper programs."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pmirror.store.files import Files
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.memoryfiles import MemoryFiles
from p2pmirror.upstream.credentials.helper import ask, helpers_in
from p2pmirror.upstream.credentials.login import BadCredentials, Login
from p2pmirror.upstream.credentials.setting import CredentialsSetting, Kind
from p2pmirror.upstream.credentials.source import HELPER_ANSWER_S, LOOK_S, Source
from tests.registries.docker import PASSWORD, USER, DockerRegistry
from tests.registries.holdings import Holdings
from tests.upstream.conformance import REGISTRY
from tests.upstream.setting import client

ADA = Login("ada", "secret")
BOB = Login("bob", "secret")
PATH = Path("/etc/registry/login")


def source(files: Files, kind: Kind = "file", path: Path = PATH, search_path: str = "") -> Source:
    return Source(CredentialsSetting(kind, path), "ghcr.io", "ghcr.io", files, helpers_in(search_path))


def auths(login: Login) -> bytes:
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return json.dumps({"auths": {"ghcr.io": {"auth": pair}}, "credsStore": ""}).encode()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    names = [record.getMessage() for record in caplog.records]
    assert "hunter2" not in str([vars(record) for record in caplog.records])
    caplog.clear()
    return names


async def test_a_file_is_read_again_when_it_changes(autojump_clock: MockClock) -> None:
    """A new login counts within seconds, and the file is not read in between."""
    files = MemoryFiles()
    files.put(PATH, b"ada:secret")
    logins = source(files)
    assert await logins.login() == ADA
    files.put(PATH, b"bob:secret")
    assert await logins.login() == ADA
    await trio.sleep(LOOK_S)
    assert await logins.login() == BOB


@pytest.mark.parametrize("content", [None, b"", b"hunter2", b"\xff", b":hunter2"])
async def test_a_broken_file_is_said_once_and_nobody_is_logged_in(
    content: bytes | None, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is gone or wrong is one warning and no login; mended, it counts again."""
    caplog.set_level(logging.INFO, "p2pmirror.upstream")
    files = MemoryFiles()
    logins = source(files)
    for _ in range(2):
        if content is not None:
            files.put(PATH, content)
        elif PATH in files.entries:
            files.remove(PATH)
        for _ in range(5):
            await trio.sleep(LOOK_S)
            assert await logins.login() is None
        assert events(caplog) == ["upstream.credentials_refused"]
        files.put(PATH, b"ada:secret\n")
        await trio.sleep(LOOK_S)
        assert await logins.login() == ADA
        assert events(caplog) == ["upstream.credentials_accepted"]


async def test_secrets_of_both_kinds(autojump_clock: MockClock) -> None:
    """A mounted secret is a Docker config, or a name and a password; the one file of a config will do as well."""
    files = MemoryFiles()
    where = Path("/run/secrets/registry")
    files.put(where / "username", b"ada\n")
    files.put(where / "password", b"secret")
    logins = source(files, "kubernetes-secret", where)
    assert await logins.login() == ADA
    files.put(where / ".dockerconfigjson", auths(BOB))
    await trio.sleep(LOOK_S)
    assert await logins.login() == BOB
    assert await source(files, "kubernetes-secret", where / ".dockerconfigjson").login() == BOB
    assert await source(files, "docker-config", where / ".dockerconfigjson").login() == BOB


async def test_a_secret_names_no_program(tmp_path: Path, autojump_clock: MockClock) -> None:
    """On the word of a mounted secret no helper is run."""
    files = MemoryFiles()
    files.put(PATH, json.dumps({"credsStore": "loud"}).encode())
    make_helper(tmp_path, "loud", "open('%s', 'w')" % (tmp_path / "ran"))
    assert await source(files, "kubernetes-secret", PATH, str(tmp_path)).login() is None
    assert not (tmp_path / "ran").exists()


def make_helper(directory: Path, name: str, code: str) -> Path:
    """Make a helper program of these lines of Python; `server` is what stands on its stdin."""
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!{sys.executable} -IS\nimport json, os, sys, time\nserver = sys.stdin.read()\n{code}\n")
    program.chmod(0o755)
    return program


ANSWER = "print(json.dumps({'ServerURL': server, 'Username': 'ada', 'Secret': server + sys.argv[1]}))"


async def test_a_helper_is_asked_as_docker_asks_it(tmp_path: Path) -> None:
    """`docker-credential-NAME get` with the server on stdin; the login is what it prints."""
    make_helper(tmp_path, "good", ANSWER)
    assert await ask(str(tmp_path), "good", "https://index.docker.io/v1/") == Login(
        "ada", "https://index.docker.io/v1/get"
    )
    make_helper(tmp_path, "empty", "print('credentials not found in native keychain'); sys.exit(1)")
    assert await ask(str(tmp_path), "empty", "x") is None


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print('hunter2'); sys.exit(3)", "ended with 3"),
        ("print('hunter2')", "not JSON"),
        ('print(\'{"Username": "hunter2"}\')', "no Username and Secret"),
        ("sys.stdout.write('x' * 1000000); sys.stdout.flush(); time.sleep(60)", "more than 65536 bytes"),
        ("os.close(1); time.sleep(60)", "did not answer within 1 s"),
        ("time.sleep(60)", "did not answer within 1 s"),
        ("os.fork() or time.sleep(60); time.sleep(0.1)", "did not answer within 1 s"),
        ("os.kill(os.getpid(), 9)", "ended with -9"),
    ],
)
async def test_a_helper_that_fails_or_hangs_is_told_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    """Within its deadline a helper answers, or it is killed with all that it started; nothing it printed is shown."""
    monkeypatch.setattr("p2pmirror.upstream.credentials.helper.HELPER_S_MAX", 1.0)
    make_helper(tmp_path, "bad", code)
    with trio.fail_after(20), pytest.raises(BadCredentials, match=says) as caught:
        await ask(str(tmp_path), "bad", "ghcr.io")
    assert "hunter2" not in str(caught.value)
    await trio.sleep(0.2)
    assert not running(str(tmp_path))


def running(part: str) -> list[str]:
    """Return the command lines of processes that name `part` and are no zombies."""
    found = []
    for each in Path("/proc").iterdir():
        try:
            if each.name.isdigit() and part.encode() in (each / "cmdline").read_bytes():
                found.append((each / "stat").read_text())
        except OSError:
            continue
    return [stat for stat in found if stat.rpartition(")")[2].split()[0] != "Z"]


async def test_a_cancelled_asker_kills_the_helper(tmp_path: Path) -> None:
    """Whoever waits for a helper and leaves, leaves no process behind."""
    make_helper(tmp_path, "slow", "time.sleep(60)")
    with trio.move_on_after(0.5):
        await ask(str(tmp_path), "slow", "ghcr.io")
    await trio.sleep(0.2)
    assert not running(str(tmp_path))


@pytest.mark.parametrize("search_path", ["", "relative", ":.:"])
async def test_helpers_are_found_in_absolute_places_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_path: str
) -> None:
    """A directory that depends on where the agent was started is not searched, nor is one that nobody named."""
    (tmp_path / "relative").mkdir()
    make_helper(tmp_path / "relative", "near", ANSWER)
    make_helper(tmp_path, "near", ANSWER)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadCredentials, match="no program docker-credential-near"):
        await helpers_in(search_path)("near", "ghcr.io")


async def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    """What is there and is no program is told."""
    program = make_helper(tmp_path, "text", "")
    program.write_bytes(b"\x00\x01\x02")
    with pytest.raises(BadCredentials):
        await ask(str(tmp_path), "text", "ghcr.io")


async def test_a_helper_s_answer_counts_for_a_while(tmp_path: Path) -> None:
    """The helper is asked once, and again when the registry has refused its answer."""
    counter = tmp_path / "count"
    make_helper(tmp_path, "good", f"open({str(counter)!r}, 'a').write('x')\n{ANSWER}")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credHelpers": {"ghcr.io": "good"}}))
    logins = source(HostFiles(), "docker-config", config, str(tmp_path))
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(logins.login)
    assert await logins.login() == Login("ada", "ghcr.ioget")
    await trio.sleep(LOOK_S)
    await logins.login()
    assert counter.read_text() == "x"
    logins.forget()
    await trio.sleep(LOOK_S)
    await logins.login()
    assert counter.read_text() == "xx"
    assert HELPER_ANSWER_S >= 60


async def test_a_pull_with_a_helper(tmp_path: Path, holdings: Holdings) -> None:
    """All together: a real registry with passwords, and a real program that knows one."""
    registry = DockerRegistry(tmp_path)
    registry.start()
    registry.push(holdings)
    registry.stop()
    registry.start_with_passwords()
    code = f"print(json.dumps({{'Username': {USER!r}, 'Secret': {PASSWORD!r}}}))"
    make_helper(tmp_path, "lab", code)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": "lab"}))
    setting = CredentialsSetting("docker-config", config)
    try:
        path = f"{os.environ['PATH']}:{tmp_path}"
        async with client(registry.url, credentials=setting, path=path) as made:
            assert await made.upstream.resolve(REGISTRY, holdings.repository, "v1") == holdings.root
    finally:
        registry.stop()
