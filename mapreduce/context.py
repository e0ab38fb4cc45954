"""What user code may ask of the task it runs in: `from mapreduce import task`.

There is one running task per child process, so one module-level object serves: the executor fills it
before a task's first record.  Outside a job (a unit test that calls a mapper by hand) it answers with
empty params and throw-away counters, so user code needs no second path for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

MAX_COUNTERS = 4_096  # of one task; on a swarm, of a job too
MAX_COUNTER_CHARS = 256


def can_name_a_counter(text: str) -> bool:
    """Whether a counter may be called so: the text is short, and has no half characters in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return len(text) <= MAX_COUNTER_CHARS


class TaskContext:
    """The running task, as user code sees it.

    Attributes:
        counters: add to any name; exact over the job, because only committed attempts count.
        params: the job's parameters, defaults overlaid with what the submitter gave.
        input_path: the input the current record came from, as the user named it ("" in a reduce task).
        step: the name of the running step.
        task_id: e.g. "map-00012"; the same in every attempt.
        attempt: 1 for the first attempt.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.params: Mapping[str, Any] = {}
        self.input_path = ""
        self.step = ""
        self.task_id = ""
        self.attempt = 1
        self._side_files: Mapping[str, str] = {}
        self._lock: Callable[[str], AbstractContextManager[int]] | None = None
        self._status: Callable[[str], None] | None = None

    def __reduce__(self) -> str:
        # Functions of a script or a notebook travel with what they name; their `task` is the child's own.
        return "task"

    def side_file(self, name: str) -> str:
        """Return the local path of a file that the job brought along under `name`.

        Raises:
            KeyError: the job names no such side file.
        """
        try:
            return self._side_files[name]
        except KeyError:
            known = ", ".join(sorted(self._side_files)) or "none"
            raise KeyError(f"the job has no side file {name!r}; it has: {known}") from None

    def lock(self, name: str) -> AbstractContextManager[int]:
        """Hold the job's lock `name` for a `with` block; the value is a fencing token that only grows.

        Raises:
            RuntimeError: called outside a job, where there is nobody to exclude.
        """
        if self._lock is None:
            raise RuntimeError("task.lock() works inside a running job only")
        return self._lock(name)

    def status(self, text: str) -> None:
        """Show one line about what this task is doing beside the job's progress."""
        if self._status is not None:
            self._status(text)


task = TaskContext()
