"""The tree of running tasks as text, with where each of them waits; no values of variables, which may be secrets."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

import trio

TASKS_MAX: Final = 2_000  # a page of some megabytes: 1,000 open responses and what belongs to them
FRAMES_MAX: Final = 30  # of one task, innermost last


def task_tree() -> str:
    """Return every task of this run, children under their parents, each with its stack."""
    root = trio.lowlevel.current_root_task()
    lines: list[str] = []
    waiting = [(root, 0)] if root is not None else []
    count = 0
    while waiting and count < TASKS_MAX:
        task, depth = waiting.pop()
        count += 1
        lines += _described(task, "  " * depth)
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        waiting += [(child, depth + 1) for child in sorted(children, key=lambda child: child.name, reverse=True)]
    if waiting:
        lines.append(f"… and more: the first {TASKS_MAX} tasks are shown")
    return "\n".join(lines) + "\n"


def _described(task: trio.lowlevel.Task, indent: str) -> Iterator[str]:
    yield f"{indent}{task.name}"
    for index, (frame, line_number) in enumerate(task.iter_await_frames()):
        if index == FRAMES_MAX:
            yield f"{indent}    …"
            return
        code = frame.f_code
        yield f"{indent}    {'/'.join(PurePath(code.co_filename).parts[-3:])}:{line_number} {code.co_qualname}"
