"""A DaemonSet is waited for until it is ready on every node, and whoever waits is told how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from p2pmirror.cli import main
from p2pmirror.kubernetes import NoAccess, open_session
from p2pmirror.kubernetes.objects import DaemonSet, decode
from p2pmirror.kubernetes.rollout import DaemonSetName, progress, wait_until_ready
from tests.cancellation import cancel_at_every_checkpoint
from tests.kubernetes_api.api import TOKEN, Exchange, daemon_set_object
from tests.kubernetes_api.certificates import Certificate
from tests.kubernetes_api.setting import Pod, pod, real_api

NAME = DaemonSetName("kube-system", "cleaner")


@pytest.mark.parametrize(
    ("found", "is_ready", "said"),
    [
        (daemon_set_object("x", ready=2, desired=3), False, "2 of 3 ready"),
        (daemon_set_object("x", ready=3, desired=3), True, "3 of 3 ready"),
        (daemon_set_object("x", ready=0, desired=0), True, "0 of 0 ready"),
        (daemon_set_object("x", ready=3, desired=2), False, "3 of 2 ready"),
        (daemon_set_object("x", ready=3, desired=3, generation=2, observed=2), True, "3 of 3 ready"),
        (daemon_set_object("x", ready=3, desired=3, generation=2), False, "its last change has not been seen"),
        ({"metadata": {"generation": 1}, "status": {}}, False, "its last change has not been seen"),
        ({"metadata": {"generation": 1}}, False, "its last change has not been seen"),
    ],
)
def test_when_it_is_ready(found: dict[str, Any], is_ready: bool, said: str) -> None:
    """It is ready when every node that should run it has it ready, by the word of a controller that has seen it."""
    told = progress(decode(json.dumps(found).encode(), DaemonSet))
    assert told[0] is is_ready
    assert told[1].startswith(said)


async def wait(place: Pod, told: list[str]) -> None:
    sessions = partial(open_session, place.access(), place.network, place.files, Random(3))
    await wait_until_ready(NAME, sessions, told.append)


async def test_whatever_happens_meanwhile_is_told_and_waited_through(
    certificate: Certificate, autojump_clock: Any
) -> None:
    """Absent, forbidden, broken, silent, nonsense, half ready: each is told once as long as it lasts; ready ends it."""

    async def mute(exchange: Exchange) -> None:
        await trio.sleep_forever()

    async with pod(certificate) as place:
        told: list[str] = []

        async def happen() -> None:
            await trio.sleep(3)
            place.api.may = set()
            place.api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=0, desired=3)
            await trio.sleep(3)
            place.api.may = {"get"}
            for ready in (0, 1):
                place.api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=ready, desired=3)
                await trio.sleep(3)
            place.api.faults += [mute, lambda exchange: exchange.answer(200, b"[]")]
            await trio.sleep(20)
            place.api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=3, desired=3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(happen)
            with trio.fail_after(60):
                await wait(place, told)
    assert "cannot get resource" in told.pop(1)
    assert told.pop(4).startswith("what came is no DaemonSet")
    assert told == [
        "there is none of this name",
        "0 of 3 ready",
        "1 of 3 ready",
        "the API did not answer within 10 s",
        "1 of 3 ready",
        "3 of 3 ready",
    ]


async def test_where_there_is_no_api_nobody_waits(certificate: Certificate, autojump_clock: Any) -> None:
    """Outside of a cluster it ends at once; an API that is only away is asked again."""
    async with pod(certificate, is_served=False) as place:
        told: list[str] = []
        with trio.move_on_after(30) as scope:
            await wait(place, told)
        assert scope.cancelled_caught
        assert told == ["the API cannot be asked: 10.96.0.1:443 did not take a connection within 3000 ms"]
        place.environ = {}
        with trio.fail_after(1), pytest.raises(NoAccess):
            await wait(place, told)


async def test_cancelled_anywhere_nothing_is_left(certificate: Certificate, autojump_clock: Any) -> None:
    """Whoever stops waiting leaves no connection."""
    async with pod(certificate) as place:
        place.api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=3, desired=3)

        async def check() -> None:
            await trio.sleep(3)
            assert place.world.open_streams == 0

        assert await cancel_at_every_checkpoint(lambda: wait(place, []), check) > 8


async def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "p2pmirror", "wait-for-daemonset", *arguments]
    with trio.fail_after(60):
        done = await trio.run_process(command, env=environ, capture_stdout=True, capture_stderr=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_the_command(certificate: Certificate, tmp_path: Path) -> None:
    """A real process asks a real socket: 0 and its progress when ready, 1 and one line when late, 2 when misused."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "ca.crt").write_bytes(certificate.pem)
    where = ("--service-account", str(tmp_path))
    async with real_api(certificate) as (api, environ):
        late = await run(environ, str(NAME), *where, "--timeout", "50ms")
        assert late.returncode == 1
        assert late.stderr.startswith(
            "p2pmirror wait-for-daemonset: kube-system/cleaner was not ready within 50 ms; last:"
        )
        assert late.stderr.count("\n") == 1

        async def finish(exchange: Exchange) -> None:
            await api.answer_well(exchange)
            api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=2, desired=2)

        api.daemon_sets[NAME.path] = daemon_set_object("cleaner", ready=1, desired=2)
        api.faults = [finish]
        done = await run(environ, str(NAME), *where)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "kube-system/cleaner: 1 of 2 ready\nkube-system/cleaner: 2 of 2 ready\n"
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("cleaner",), ("a/b", "--timeout", "soon"), ("a/b", "c/d"), ("A/b",)])
def test_the_command_misused(arguments: tuple[str, ...]) -> None:
    """What cannot be waited for is a mistake in the call: exit code 2."""
    assert CliRunner().invoke(main, ["wait-for-daemonset", *arguments]).exit_code == 2


def test_the_command_outside_of_a_cluster() -> None:
    """Where there is no API it ends at once, with 1 and a line that says what is missing."""
    environ = {"KUBERNETES_SERVICE_HOST": None, "KUBERNETES_SERVICE_PORT": None}
    result = CliRunner().invoke(main, ["wait-for-daemonset", str(NAME)], env=environ)
    assert result.exit_code == 1
    assert result.output.startswith("p2pmirror wait-for-daemonset: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT")
