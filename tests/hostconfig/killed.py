"""Kills `configure` and `unconfigure` before each step that they take on the disk, and looks at what is left.

Run as a program, without threads, so that it can fork: the child dies by `os._exit` in an audit hook, as abruptly as by
SIGKILL. Takes a directory to work in, and how many steps to go on by each time.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from p2pmirror.hostconfig.containerd import Setup, configure, unconfigure
from p2pmirror.hostconfig.hosts import Wanted
from tests.hostconfig.trees import snapshot, write_odd, write_tree

STEPS = {
    "open",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.symlink",
    "os.chmod",
    "os.utime",
    "shutil.rmtree",
}
KILLED = 99
STEPS_MIN = 50  # that each command has, with fourteen files


def main(directory: Path, stride: int) -> None:
    """Kill each command at each step; raises AssertionError when anything is not given back."""
    root, daemon = directory / "certs.d", directory / "config.toml"
    write_odd(root)
    write_tree(directory, {"config.toml": 'version = 2\n# mine\n[plugins."io.containerd.grpc.v1.cri".registry]\n'})
    daemon.chmod(0o640)
    before = snapshot(directory)
    setup = Setup((root,), ("_default", "new.corp"), Wanted(("http://127.0.0.1:29999",)), daemon)

    def look(step: int) -> None:
        unconfigure((root,))
        after = snapshot(directory)
        assert after == before, (step, {key for key in before | after if before.get(key) != after.get(key)})

    _each_step(lambda: configure(setup), lambda: None, look, stride)
    _each_step(lambda: unconfigure((root,)), lambda: configure(setup), look, stride)


def _each_step(
    work: Callable[[], object], prepare: Callable[[], object], look: Callable[[int], None], stride: int
) -> None:
    """Kill `work` before every so many steps until it comes to its end."""
    step = 0
    while True:
        prepare()
        has_ended = _killed_at(step, work)
        look(step)
        if has_ended:
            break
        step += stride
    assert step > STEPS_MIN, "the hook saw next to nothing"


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run something in a child that dies before its step; tell whether it came to its end."""
    child = os.fork()
    if child == 0:
        taken = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal taken
            if event in STEPS:
                if taken == step:
                    os._exit(KILLED)
                taken += 1

        sys.addaudithook(hook)
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, KILLED}, code
    return code == 0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        main(place, int(sys.argv[2]))
    finally:
        shutil.rmtree(place, ignore_errors=True)
