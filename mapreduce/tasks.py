"""The tasks of one stage: which are waiting, which run where, which are done.

state      event                   next state
WAITING    taken by a worker       RUNNING
RUNNING    done                    DONE        (its first finished attempt wins)
RUNNING    failed                  WAITING     while attempts are left, else FAILED
RUNNING    given back, not begun   WAITING     the attempt does not count
DONE       done, failed            DONE        a late attempt changes nothing
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from enum import Enum


class TaskState(Enum):
    """Where a task stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class TaskTable:
    """The states of `count` tasks, numbered from 0.

    Args:
        count: how many tasks.
        max_attempts: how often each may be tried.
    """

    def __init__(self, count: int, max_attempts: int) -> None:
        self.count = count
        self.max_attempts = max_attempts
        self.done_count = 0
        self.attempts = 0
        self.failed_attempts = 0
        self._states = [TaskState.WAITING] * count
        self._tried = [0] * count
        self._waiting = deque(range(count))
        # Where a task failed before: another worker may have what this one lacks.
        self._avoid: dict[int, set[Hashable]] = {}

    @property
    def all_done(self) -> bool:
        """True when every task is done."""
        return self.done_count == self.count

    @property
    def waiting_count(self) -> int:
        """How many tasks no worker has."""
        return len(self._waiting)

    def state(self, task: int) -> TaskState:
        """Return a task's state."""
        return self._states[task]

    def take(self, worker: Hashable, others: bool = False) -> tuple[int, int] | None:
        """Give a waiting task to a worker.

        Args:
            worker: who asks.
            others: True when other workers could run a task that failed on this one.

        Returns:
            (task, attempt), or None when nothing waits that this worker should have.
        """
        for _ in range(len(self._waiting)):
            task = self._waiting.popleft()
            if others and worker in self._avoid.get(task, ()):
                self._waiting.append(task)
                continue
            self._states[task] = TaskState.RUNNING
            self._tried[task] += 1
            self.attempts += 1
            return task, self._tried[task]
        return None

    def give_back(self, task: int) -> None:
        """Take back a task that its worker never began."""
        assert self._states[task] is TaskState.RUNNING
        self._states[task] = TaskState.WAITING
        self._tried[task] -= 1
        self.attempts -= 1
        self._waiting.appendleft(task)

    def done(self, task: int) -> bool:
        """Note a finished attempt; True if it is the task's first and so the one that counts."""
        if self._states[task] is not TaskState.RUNNING:
            return False
        self._states[task] = TaskState.DONE
        self.done_count += 1
        return True

    def failed(self, task: int, worker: Hashable, *, may_retry: bool = True) -> bool:
        """Note a failed attempt; True if the task will be tried again."""
        if self._states[task] is not TaskState.RUNNING:
            return True
        self.failed_attempts += 1
        if not may_retry or self._tried[task] >= self.max_attempts:
            self._states[task] = TaskState.FAILED
            return False
        self._states[task] = TaskState.WAITING
        self._avoid.setdefault(task, set()).add(worker)
        self._waiting.append(task)
        return True
