"""What the bench asks the kernel about processes."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.processes import cpu_s, undisturbed

BURN_S = 0.05


def test_the_time_of_ended_threads_counts():
    """A process has used what all its threads have, those included that have ended."""

    def burn():
        end = time.thread_time() + BURN_S
        while time.thread_time() < end:
            pass

    known, before = time.process_time(), cpu_s(os.getpid())
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
    spent = cpu_s(os.getpid()) - before
    assert BURN_S <= spent <= time.process_time() - known


def test_the_time_of_another_process():
    """Another process' time is told while it runs, and is not this one's; of none that is gone."""
    source = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.1 <= cpu_s(process.pid) < 1.0
        process.kill()
    with pytest.raises(OSError):
        cpu_s(process.pid)


def test_going_first_ends_with_the_block():
    """However the block ends, this process is scheduled as before; where it may not go first, it goes on as it is."""
    before = os.sched_getscheduler(0)
    with contextlib.suppress(KeyError), undisturbed() as is_first:
        assert (os.sched_getscheduler(0) == os.SCHED_FIFO) is is_first
        raise KeyError
    assert os.sched_getscheduler(0) == before
