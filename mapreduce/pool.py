"""The tasks of the running stage, as its leader sees them.

state      event                                next state
WAITING    granted to a worker                  GRANTED
GRANTED    granted to another worker as well    GRANTED     (speculation)
GRANTED    an attempt reports success           FINISHED    (the first that does)
GRANTED    its last attempt fails, is given     WAITING     after a pause where it is said so
           back, or is lost with its worker
FINISHED   the record has the winner            COMMITTED
FINISHED   nobody holds the output any more     WAITING
COMMITTED  the record has lost the winner       WAITING
COMMITTED  anything else                        COMMITTED

A task waits at its *home*, the node that should run it.  Whoever is idle takes from the home with the most
waiting tasks, from the end that its owner comes to last.  A task that waits stands in exactly one queue at
least once; what a queue holds of tasks that do not wait any more is skipped when it is met, so every
operation costs constant time in the long run.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

from mapreduce.messages import Phase
from membership.view import NodeId

__all__ = ["GrantedAttempt", "TaskPool", "TaskState"]

MAX_DURATIONS = 512
MAY_RUN_TWICE = 2  # attempts of one task under way at once, at the most


class TaskState(Enum):
    """Where a task stands; see the module's table."""

    WAITING = "waiting"
    GRANTED = "granted"
    FINISHED = "finished"
    COMMITTED = "committed"


@dataclass(slots=True)
class GrantedAttempt:
    """An attempt in a worker's hands.

    Attributes:
        grant: number of the grant that carried it; 0 for one that was taken over from another leader.
        begun_at: when it was first seen running, infinity before.
        mentioned_at: when its worker last spoke of it; the grant counts.
    """

    number: int
    task: int
    worker: NodeId
    grant: int
    granted_at: float
    mentioned_at: float
    begun_at: float = inf
    phase: Phase = Phase.QUEUED


class TaskPool:
    """The tasks of one stage.

    Args:
        homes: the node that should run each task; "" where none should.
        done: tasks that have their winner.
    """

    def __init__(self, homes: Sequence[NodeId], done: Iterable[int] = ()) -> None:
        self.count = len(homes)
        self.states = [TaskState.WAITING] * self.count
        self.granted = [0] * self.count
        self.attempts: dict[int, GrantedAttempt] = {}
        self.failures: dict[int, int] = {}
        self.waiting_count = 0
        self.committed_count = 0
        self.finished_count = 0
        self._homes = list(homes)
        self._queues: dict[NodeId, deque[int]] = {}
        self._loads: dict[NodeId, int] = {}
        self._urgent: deque[int] = deque()
        self._paused: list[tuple[float, int]] = []
        self._running: dict[int, list[int]] = {}
        self._avoid: dict[int, set[NodeId]] = {}
        self._durations: list[float] = []
        self._recent: deque[float] = deque()
        for task in done:
            self.states[task] = TaskState.COMMITTED
            self.committed_count += 1
        for task in range(self.count):
            if self.states[task] is TaskState.WAITING:
                self._queue(task)

    # -- taking ----------------------------------------------------------------------------------------

    def waits(self, task: int) -> bool:
        """Whether the task can be granted."""
        return 0 <= task < self.count and self.states[task] is TaskState.WAITING

    def take(
        self, worker: NodeId, count: int, may_run: Callable[[int], bool], *, may_steal: bool = True
    ) -> list[int]:
        """Choose up to `count` waiting tasks for a worker: the urgent, its own, then others'.

        Args:
            may_run: whether this worker can run, and should be given, a task.
            may_steal: whether it may have others' at all.

        Returns:
            The tasks, which still wait: the caller grants them.
        """
        taken = self._from(self._urgent, count, may_run, from_end=False)
        own = self._queues.get(worker)
        if own and len(taken) < count:
            taken += self._from(own, count - len(taken), may_run, from_end=False)
        if may_steal and len(taken) < count and self.waiting_count > len(taken):
            for home in sorted(self._loads, key=lambda node: (-self._loads[node], node)):
                if len(taken) >= count or self._loads[home] <= 0:
                    break
                if home != worker:
                    taken += self._from(self._queues[home], count - len(taken), may_run, from_end=True)
        return list(dict.fromkeys(taken))

    def _from(
        self, queue: deque[int], count: int, may_run: Callable[[int], bool], *, from_end: bool
    ) -> list[int]:
        """Take from one end of a queue; those that are not for this worker stay where they are."""
        taken: list[int] = []
        passed: list[int] = []
        while queue and len(taken) < count:
            task = queue.pop() if from_end else queue.popleft()
            if self.states[task] is not TaskState.WAITING:
                continue
            if may_run(task):
                taken.append(task)
            else:
                passed.append(task)
        if from_end:
            queue.extend(reversed(passed))
        else:
            queue.extendleft(reversed(passed))
        return taken

    def grant(self, task: int, number: int, worker: NodeId, grant: int, now: float) -> int:
        """Note that an attempt goes to a worker; gives how often the task has been granted."""
        self._leave_waiting(task)
        if self.states[task] is TaskState.WAITING:
            self.states[task] = TaskState.GRANTED
        self.granted[task] += 1
        self.attempts[number] = GrantedAttempt(number, task, worker, grant, now, now)
        self._running.setdefault(task, []).append(number)
        return self.granted[task]

    def adopt(self, task: int, number: int, worker: NodeId, now: float) -> GrantedAttempt | None:
        """Note an attempt that another leader granted; None where the task does not need it."""
        if not 0 <= task < self.count or self.states[task] is TaskState.COMMITTED:
            return None
        if len(self._running.get(task, ())) >= MAY_RUN_TWICE:
            return None
        self.grant(task, number, worker, 0, now)
        return self.attempts[number]

    # -- what becomes of attempts ------------------------------------------------------------------------

    def finished(self, number: int, took_s: float) -> bool:
        """An attempt succeeded; True if it is the first of its task."""
        attempt = self._end(number)
        if attempt is None or self.states[attempt.task] in (TaskState.FINISHED, TaskState.COMMITTED):
            return False
        # It may wait again: another attempt had finished, and its output is gone.
        self._leave_waiting(attempt.task)
        self.states[attempt.task] = TaskState.FINISHED
        self.finished_count += 1
        self._note_duration(took_s)
        return True

    def committed(self, task: int) -> None:
        """The record has the task's winner."""
        if self.states[task] is TaskState.FINISHED:
            self.finished_count -= 1
        if self.states[task] is not TaskState.COMMITTED:
            self._leave_waiting(task)
            self.states[task] = TaskState.COMMITTED
            self.committed_count += 1

    def unfinished(self, task: int) -> None:
        """The output of a finished attempt is gone before it was committed."""
        if self.states[task] is TaskState.FINISHED:
            self.finished_count -= 1
            self._wait_again(task)

    def failed(self, number: int, worker: NodeId, *, counts: bool, resume_at: float = 0.0) -> int:
        """An attempt failed; gives how often its task has failed.

        Args:
            counts: the failure is the task's own, not that of a peer or a lost input.
            resume_at: the task is not granted again before.
        """
        attempt = self._end(number)
        if attempt is None:
            return 0
        task = attempt.task
        if counts:
            self.failures[task] = self.failures.get(task, 0) + 1
            self._avoid.setdefault(task, set()).add(worker)
        self._rest(task, resume_at)
        return self.failures.get(task, 0)

    def lost(self, number: int) -> None:
        """An attempt was given back, or is gone with its worker; it does not count."""
        attempt = self._end(number)
        if attempt is not None:
            self._rest(attempt.task, 0.0)

    def resume(self, now: float) -> bool:
        """Let tasks wait whose pause is over; True if there are any."""
        resumed = False
        while self._paused and self._paused[0][0] <= now:
            _, task = heapq.heappop(self._paused)
            if self.states[task] is TaskState.GRANTED and not self._running.get(task):
                self._wait_again(task)
                resumed = True
        return resumed

    @property
    def resumes_at(self) -> float:
        """When the next pause is over."""
        return self._paused[0][0] if self._paused else inf

    # -- looking ---------------------------------------------------------------------------------------

    def others(self, number: int) -> list[GrantedAttempt]:
        """The other attempts of an attempt's task that are under way."""
        attempt = self.attempts.get(number)
        return [] if attempt is None else self.of_task(attempt.task, but=number)

    def of_task(self, task: int, but: int = 0) -> list[GrantedAttempt]:
        """The attempts of a task that are under way."""
        return [self.attempts[other] for other in self._running.get(task, ()) if other != but]

    def avoids(self, task: int) -> set[NodeId]:
        """The workers on which a task has failed."""
        return self._avoid.get(task, set())

    def home(self, task: int) -> NodeId:
        """The node that should run a task."""
        return self._homes[task]

    def rehome(self, homes: Sequence[NodeId]) -> None:
        """Let the waiting tasks wait elsewhere."""
        self._homes = list(homes)
        self._queues.clear()
        self._loads.clear()
        self._urgent.clear()
        self.waiting_count = 0
        for task in range(self.count):
            if self.states[task] is TaskState.WAITING:
                self._queue(task)

    @property
    def median_s(self) -> float:
        """The median time that a task of this stage has taken; infinity while none is done."""
        return self._durations[len(self._durations) // 2] if self._durations else inf

    # -- inside ----------------------------------------------------------------------------------------

    def _queue(self, task: int) -> None:
        home = self._homes[task]
        self._queues.setdefault(home, deque()).append(task)
        self._loads[home] = self._loads.get(home, 0) + 1
        self.waiting_count += 1

    def _leave_waiting(self, task: int) -> None:
        if self.states[task] is TaskState.WAITING:
            self._loads[self._homes[task]] -= 1
            self.waiting_count -= 1

    def _wait_again(self, task: int) -> None:
        self.states[task] = TaskState.WAITING
        self._urgent.append(task)
        home = self._homes[task]
        self._loads[home] = self._loads.get(home, 0) + 1
        self._queues.setdefault(home, deque())
        self.waiting_count += 1

    def _rest(self, task: int, resume_at: float) -> None:
        """None of a task's attempts may be left: then it waits, at once or after a pause."""
        if self._running.get(task) or self.states[task] is not TaskState.GRANTED:
            return
        if resume_at > 0.0:
            heapq.heappush(self._paused, (resume_at, task))
        else:
            self._wait_again(task)

    def _end(self, number: int) -> GrantedAttempt | None:
        attempt = self.attempts.pop(number, None)
        if attempt is not None:
            running = self._running[attempt.task]
            running.remove(number)
            if not running:
                del self._running[attempt.task]
        return attempt

    def _note_duration(self, took_s: float) -> None:
        insort(self._durations, took_s)
        self._recent.append(took_s)
        if len(self._recent) > MAX_DURATIONS:
            oldest = self._recent.popleft()
            del self._durations[bisect_left(self._durations, oldest)]
